"""A bad configuration ends in one sentence that names the key."""

from pathlib import Path

import pytest
import yaml
from studies import shipped

from equiscape.configuration import start
from equiscape.errors import ConfigError
from equiscape.study import Plan, spell

ROOT = Path(__file__).resolve().parents[2]
SCHEMA_PATH = ROOT / "workflow/schemas/config.schema.yaml"
SCHEMA = yaml.safe_load(SCHEMA_PATH.read_text())
STUDIES = [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]


def demo() -> dict:
    return yaml.safe_load((ROOT / "config/demo.yaml").read_text())


def study(config: dict) -> Plan:
    return start.study(config, SCHEMA_PATH, root=ROOT)


def change(config: dict, path: str, value: object) -> dict:
    *parents, last = path.split("/")
    at = config
    for key in parents:
        at = at[key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return config


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_study_of_the_project_is_valid(path):
    assert study(shipped(path)).tasks


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optimisers", {}, r"optimisers.*did you mean 'optimizers'"),
        ("training/epoch", 3, r"training: 'epoch' is unknown; did you mean 'epochs'"),
        ("training/epochs", 0, r"training\.epochs: 0 must be a whole number, at least 1"),
        ("tasks/egnn/dataset", "shape", r"tasks\.egnn\.dataset: 'shape'.*'shapes'"),
        ("tasks/egnn/architecture", "egn", r"tasks\.egnn\.architecture: 'egn'.*'egnn'"),
        ("tasks/egnn/model", {"hiden": 8}, r"tasks\.egnn\.model: 'hiden'.*'hidden'"),
        ("optimizers/muon/settings", {"ns_step": 3}, r"muon\.settings: 'ns_step'.*'ns_steps'"),
        ("optimizers/muon/class", "moun", r"optimizers\.muon\.class: 'moun'.*'muon'"),
        ("optimizers/muon/grid/lr", ["-1e-3"], r"optimizers\.muon\.grid\.lr: -1e-3 must be pos"),
        ("optimizers/muon/grid/lr", [-0.001], r"muon\.grid\.lr\.0: -0\.001 must be .* at least 0"),
        ("optimizers/muon/grid/lr", ["0"], r"grid\.lr: 0 must be positive"),
        ("optimizers/muon/grid/lr", ["fast"], r"grid\.lr: 'fast' is not a number"),
        ("optimizers/muon/grid/lr", ["nan"], r"grid\.lr: nan must be positive"),
        ("optimizers/muon/grid/lr", ["1e-3", 0.001], r"1e-3 and 0\.001 are the same"),
        ("optimizers/muon/grid/wd", [], r"optimizers\.muon\.grid\.wd"),
        ("optimizers/my_muon", {"class": "muon"}, r"my_muon.*without underscores"),
        ("datasets/shapes/kind", "meshes", r"datasets\.shapes\.kind: 'meshes'"),
        ("datasets/shapes/kind", "pointcloud", r"datasets\.shapes\.source is missing"),
        ("report/baseline", "sgd", r"report\.baseline: 'sgd'"),
        ("analyses/slice/resolution", 10, r"analyses\.slice\.resolution.*odd"),
        ("selection/seeds", [0, 0], r"selection\.seeds"),
        ("final", None, r"the configuration: 'final' is missing"),
        ("optimizers/muon/grid/lr", [" 1e-3"], r"' 1e-3' is not a number"),
        ("optimizers/muon/grid/lr", ["1_0e-3"], r"'1_0e-3' is not a number"),
        ("optimizers/muon/settings", {"lr": 1}, r"muon\.settings: 'lr' is unknown"),
        (
            "optimizers/adam",
            {"class": "sgd", "grid": {"lr": [1], "wd": [0]}, "settings": {"momentun": 0.9}},
            r"adam\.settings: 'momentun' is unknown; did you mean 'momentum'",
        ),
        ("tasks/egnn/data", {"pionts": 64}, r"tasks\.egnn\.data: 'pionts'.*'points'"),
        ("tasks/egnn", {"dataset": "shapes"}, r"tasks\.egnn: 'architecture' is missing"),
        ("training/epochs", None, r"training\.epochs is missing"),
        (
            "selection/training",
            {"schedule": {"warmup_epochs": 99}},
            r"schedule\.warmup_epochs: .* must not be more",
        ),
        (
            "analyses/hessian/probes",
            1,
            r"analyses\.hessian\.probes: 1 must be a whole number, at least 2",
        ),
        ("device", "gpu", r"device: 'gpu' must be auto"),
        ("datasets/shapes/expect", {"trian": 3}, r"datasets\.shapes\.expect.*'trian'"),
    ],
)
def test_a_fault_is_named(path, value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        study(change(demo(), path, value))
    assert "\n" not in str(caught.value)


def test_a_missing_local_source_is_named(tmp_path):
    config = demo()
    config["datasets"]["shapes"] = {"kind": "pointcloud", "source": str(tmp_path / "gone.zip")}
    with pytest.raises(ConfigError, match=r"datasets\.shapes\.source: .*gone\.zip does not exist"):
        study(config)


def test_paths_keep_the_spelling_of_the_configuration():
    assert [spell(v) for v in ("1e-3", "0.0010", 0, 0.001)] == ["1e-3", "0.0010", "0", "0.001"]


def test_training_settings_merge_from_study_to_task_to_grid():
    config = demo()
    config["tasks"]["egnn"]["training"] = {"batch_size": 7}
    merged = study(config)
    assert merged.task_settings("egnn")["training"]["batch_size"] == 7
    assert merged.task_settings("egnn")["training"]["epochs"] == config["training"]["epochs"]
    assert (
        merged.task_settings("egnn", grid=True)["training"]["epochs"]
        == config["selection"]["training"]["epochs"]
    )
    assert merged.task_settings("pointnet")["training"]["batch_size"] == 32


def test_maps_within_training_settings_merge_too():
    config = demo()
    config["tasks"]["egnn"]["training"] = {"schedule": {"warmup_epochs": 3}, "augmentation": None}
    training = study(config).task_settings("egnn")["training"]
    assert training["schedule"] == {**config["training"]["schedule"], "warmup_epochs": 3}
    assert training["augmentation"] is None


def test_what_changes_no_result_is_no_part_of_a_cell():
    before, config = study(demo()), demo()
    config["tasks"]["egnn"]["analyses"]["hessian"] |= {"samples": 7, "graph_memory_mb": 7}
    config["tasks"]["egnn"] |= {
        "resources": {"runtime": 7},
        "training": {"resume_seconds": 7, "micro_batch": 7},
    }
    after = study(config)
    assert after.task_settings("egnn") == before.task_settings("egnn")
    assert after.dataset_settings("shapes") == before.dataset_settings("shapes")
    expected = {**before.analysis("hessian", "egnn"), "samples": 7}
    assert after.analysis("hessian", "egnn") == expected
    assert after.execution("egnn", "micro_batch") == 7
    assert before.execution("egnn", "micro_batch") is None


def test_an_analysis_does_not_depend_on_how_long_its_task_was_trained():
    before, config = study(demo()), demo()
    config["training"]["epochs"] += 1
    after = study(config)
    assert after.task_settings("egnn") != before.task_settings("egnn")
    assert after.analysis_task_settings("egnn") == before.analysis_task_settings("egnn")


def test_an_analysis_runs_on_the_tasks_that_it_lists():
    config = demo()
    names = list(study(config).tasks)
    config["analyses"]["rank"] = {"samples": 8, "tasks": [names[2], names[0]]}
    made = study(config)
    assert made.analyzed_tasks("rank") == [names[0], names[2]]
    assert made.analyzed_tasks("hessian") == names
    assert "tasks" not in made.analysis("rank", names[0])


def test_the_schema_repeats_no_key():
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), sorted(k for k in keys if keys.count(k) > 1)
            return super().construct_mapping(node, deep)

    for path in SCHEMA_PATH.parent.glob("*.yaml"):
        yaml.load(path.read_text(), Strict)


def test_a_grid_change_leaves_the_other_optimizers_alone():
    before, config = study(demo()), demo()
    config["optimizers"]["muon"]["grid"]["lr"] = ["7e-3"]
    after = study(config)
    assert list(after.grid("adam")) == list(before.grid("adam"))
    assert list(after.grid("muon")) == [("7e-3", "1e-2", 0)]
    assert after.optimizer_settings("muon") == before.optimizer_settings("muon")


def test_where_the_data_lies_does_not_change_what_it_is():
    config = demo()
    config["datasets"]["a"] = {"kind": "pointcloud", "source": "https://one.example/a.zip"}
    config["datasets"]["b"] = {"kind": "pointcloud", "source": "https://two.example/a.zip"}
    both = study(config)
    assert both.dataset_settings("a") == both.dataset_settings("b")


def test_every_key_of_the_schema_is_described():
    missing = []

    def walk(node, path):
        if not isinstance(node, dict):
            return
        for name, child in node.get("properties", {}).items():
            target = child
            if "$ref" in child and "description" not in child:
                target = SCHEMA["$defs"][child["$ref"].rsplit("/", 1)[1]]
            if "description" not in target:
                missing.append("/".join([*path, name]))
            walk(child, [*path, name])
        for name, child in node.get("$defs", {}).items():
            walk(child, [*path, name])

    walk(SCHEMA, [])
    assert missing == []


def test_an_analysis_of_snapshots_needs_a_task_that_keeps_some():
    config = demo()
    assert study(config).analyzed_tasks("dynamics") == ["pointnet"]
    assert not study(config).at_every_seed("dynamics")
    config["analyses"]["dynamics"]["seeds"] = "all"
    assert study(config).at_every_seed("dynamics")
    config["analyses"]["dynamics"]["tasks"] = ["egnn"]
    with pytest.raises(ConfigError, match=r"analyses\.dynamics: .* set training\.snapshots"):
        study(config)
