"""Settings that name parameters are compared with the networks before the first job."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from equiscape import models
from equiscape.configuration import parameters, start
from equiscape.configuration.parameters import Named, check
from equiscape.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
SCRIPTS = ROOT / "workflow/scripts"
NETWORKS = {
    "one": {"edges.0.weight": [12, 4], "edges.0.bias": [12], "head.weight": [3, 12]},
    "two": {"layers.0.weight": [8, 8], "layers.0.bias": [8]},
}


def study(**changes):
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = config
        for key in parents:
            at = at.setdefault(key, {})
        at[last] = value
    return start.study(config, SCHEMA)


@pytest.mark.parametrize(
    ("of", "values", "message"),
    [
        ("parameters", ["hed.*"], "'hed.*' matches no parameter of the network of task 'one'"),
        ("parameters", ["edges.0.wieght"], "did you mean edges.0.weight"),
        ("matrices", ["edges.*.bias"], "matches no matrix of the network of task 'one'"),
        ("matrices", ["hidden", "!haed.weight"], "'!haed.weight' matches no matrix"),
        ("matrices", {"edges.*.weight": 5}, "5 does not divide the 12 rows of edges.0.weight"),
        ("layers", {"edges.1": 2.0}, "'edges.1' is unknown; did you mean 'edges.0'"),
        ("layers", {"edges.0.bias": 2.0}, "'edges.0.bias' is unknown"),
        ("sides", {5: None}, "5 leaves no matrix of the network of task 'one', whose smaller side"),
    ],
)
def test_a_name_of_no_parameter_is_refused_with_near_names(of, values, message):
    values = values if isinstance(values, dict) else dict.fromkeys(values)
    with pytest.raises(ConfigError) as error:
        check([Named("a.key", "one", of, values)], NETWORKS)
    assert str(error.value).startswith("a.key")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("of", "values"),
    [
        ("parameters", {"edges.*": None}),
        ("matrices", {"hidden": None, "!edges.0.weight": None}),
        ("sides", {4: None}),
        ("matrices", {"edges.*": 3}),
        ("layers", {"edges.0": 2.0, "head": 1.5}),
    ],
)
def test_names_that_are_there_are_accepted(of, values):
    check([Named("a.key", "one", of, values)], NETWORKS)


def test_a_pattern_of_several_tasks_must_be_about_one_of_them():
    patterns = {"edges.*": None, "layers.*": None}
    both = [Named("k", task, "parameters", patterns) for task in NETWORKS]
    check(both, NETWORKS)
    stray = [Named("k", each.task, "parameters", {**patterns, "haed.*": None}) for each in both]
    with pytest.raises(ConfigError, match=r"'haed.\*' matches no parameter of the network of task"):
        check(stray, NETWORKS)


def test_every_setting_that_names_parameters_is_found():
    switch = {
        "class": "switch",
        "settings": {
            "first": {"class": "adamw"},
            "second": {"class": "muon", "settings": {"orthogonalize": ["a"]}},
            "at": 0.5,
        },
        "grid": {"lr": [1e-3], "wd": [0]},
        "training": {"constraints": [{"name": "spectrum-match", "ranks": {"b": 2.0}}]},
    }
    checked = study(
        optimizers__muon__settings={"blocks": {"c": 2}, "orthogonalize": ["d", "!e"]},
        optimizers__switched=switch,
        analyses__hessian__parameters=["f"],
        tasks__egnn__analyses={"hessian": {"parameters": ["g"]}},
    )
    found = {(each.key, each.of): each.values for each in parameters.named(checked)}
    assert found == {
        ("optimizers.switched.settings.second.settings.orthogonalize", "matrices"): {"a": None},
        ("optimizers.switched.training.constraints.0.ranks", "layers"): {"b": 2.0},
        ("optimizers.muon.settings.blocks", "matrices"): {"c": 2},
        ("optimizers.muon.settings.orthogonalize", "matrices"): {"d": None, "!e": None},
        ("analyses.hessian.parameters", "parameters"): {"f": None},
        ("tasks.egnn.analyses.hessian.parameters", "parameters"): {"g": None},
    }


def test_names_are_those_of_the_built_networks_and_are_kept(tmp_path, monkeypatch):
    checked = study()
    assert parameters.networks(checked, checked.tasks, tmp_path, keep=False)
    assert not list(tmp_path.iterdir())
    found = parameters.networks(checked, checked.tasks, tmp_path)
    assert set(found) == set(checked.tasks)
    for task, shapes in found.items():
        network = parameters.network_of(checked, task)
        model = models.build(network["architecture"], network["arguments"], network["settings"])
        assert shapes == {name: list(p.shape) for name, p in model.named_parameters()}

    def started(*args, **kwargs):
        raise AssertionError("a child process was started")

    monkeypatch.setattr(subprocess, "run", started)
    assert parameters.networks(checked, checked.tasks, tmp_path) == found


def test_planning_starts_no_child_and_imports_no_torch():
    code = (
        f"import json, subprocess, sys, yaml; sys.path.insert(0, {str(SCRIPTS)!r});"
        "from equiscape.configuration import parameters, start;"
        "subprocess.run = None;"
        f"s = start.study(yaml.safe_load(open('config.yaml')), {str(SCHEMA)!r});"
        "parameters.refuse_unknown_names(s, 'nowhere');"
        "print(json.dumps(sorted({'torch', 'numpy', 'pandas'} & set(sys.modules))))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert json.loads(run.stdout) == [], run.stderr


def test_a_network_by_import_path_is_read_too(tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "ownnets.py").write_text(
        "from equiscape.models.pointnet import PointNet\n\n\nclass Own(PointNet):\n    pass\n"
    )
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    config["plugins"] = [str(folder)]
    config["tasks"] = {
        "own": {"architecture": "ownnets:Own", "dataset": config["tasks"]["pointnet"]["dataset"]}
    }
    config["analyses"] = {"hessian": {"parameters": ["haed.*"]}}
    checked = start.study(config, SCHEMA)
    with pytest.raises(ConfigError, match=r"analyses.hessian.parameters: 'haed.\*' matches no"):
        parameters.refuse_unknown_names(checked, tmp_path / "networks")


def test_a_network_that_needs_its_data_or_cannot_be_built_is_left_to_its_job(tmp_path):
    broken = {"architecture": "nowhere:Net", "arguments": {}, "settings": {}}
    good = {"architecture": "pointnet", "arguments": {"num_outputs": 2}, "settings": {}}
    found = parameters._built({"broken": broken, "good": good}, [])
    assert set(found) == {"good"}
    assert "head.output.weight" in found["good"]
