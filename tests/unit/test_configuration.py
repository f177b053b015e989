"""Configuration files: their faults in one sentence, and what their spelling does not change."""

import random
from pathlib import Path

import pytest
import yaml

from equiscape.configuration import start
from equiscape.configuration.reading import read_config
from equiscape.errors import ConfigError
from equiscape.hints import plain
from equiscape.report.manifest import Manifest
from equiscape.study import Plan

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
STUDIES = [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"tasks:\n\tegnn: 1\n", r"line 2 of .* is indented by a tab; use spaces"),
        (b"tasks: [1, 2\nfinal: {", r"line \d of .* is not YAML"),
        (b"a: 1\n---\nb: 2\n", r"holds more than one document; give one study a file"),
        (b"a: caf\xe9\n", r"line 1 of .* is not UTF-8"),
        (b"", r"is empty"),
        (b"- a\n", r"holds no map"),
        (b"a: 1\nb: {c: 1,\n  c: 2}\n", r"line 3 of .* gives 'c' a second time, after line 2"),
        (b"tasks: {}\nfinal: {}\ntasks: {}\n", r"line 3 of .* gives 'tasks' a second time"),
        (b"a: *b\n", r"line 1 of .* is not YAML"),
        (b"a: 1\x00\n", r"holds a character that YAML forbids"),
        (b"a: 2026-99-99\n", r"cannot be read as YAML"),
    ],
)
def test_a_fault_of_the_file_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(path)
    assert "\n" not in str(caught.value)
    assert "study.yaml" in str(caught.value)


def test_a_file_that_is_absent_or_a_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml does not exist; .*before --configfile"):
        read_config(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="is a folder; give a configuration file"):
        read_config(tmp_path)


def test_marks_line_ends_and_merged_keys_are_no_fault(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: &a {b: 1, c: 2}\r\nd: {<<: *a, c: 3}\r\ne: *a\r\n")
    assert read_config(path) == {
        "a": {"b": 1, "c": 2},
        "d": {"b": 1, "c": 3},
        "e": {"b": 1, "c": 2},
    }


def test_a_target_read_as_a_configuration_is_told_from_one(tmp_path):
    (tmp_path / "study.yaml").write_text("tasks: {}\n")
    (tmp_path / "more.yaml").write_text("threads: 2\n")
    (tmp_path / "result.json").write_text('{"eigenvalues": []}')
    files = [tmp_path / "study.yaml", tmp_path / "more.yaml"]
    start.refuse_file_faults(files, ["tasks", "threads"])
    with pytest.raises(ConfigError, match=r"result\.json was read as a configuration.*put targets"):
        start.refuse_file_faults([*files, tmp_path / "result.json"], ["tasks", "threads"])


def test_a_part_of_a_study_is_refused():
    start.refuse_part_of_a_study({"device": "cpu", "threads": 2, "pathvars": {}})
    with pytest.raises(ConfigError, match="has optimizers, training but no tasks"):
        start.refuse_part_of_a_study({"training": {}, "optimizers": {}, "device": "cpu"})


def load(text: str) -> dict:
    config = yaml.safe_load(text)
    for entry in config["datasets"].values():
        if "../shared" in (entry.get("source") or ""):
            entry["source"] = "https://example.org/data.zip"  # real data that may be absent
    return config


def shuffled(value, rng):
    """The same values with the keys of every map in another order."""
    if isinstance(value, dict):
        keys = rng.sample(list(value), len(value))
        return {key: shuffled(value[key], rng) for key in keys}
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


def params(study: Plan) -> list:
    """Everything that the rules hand to jobs, order included."""
    answers: list = [list(study.tasks), list(study.optimizers), study.pairs, study.optimizer_pairs]
    answers += [list(study.analyses), plain(Manifest.from_study(study, "r", "x").to_dict())]
    for name in study.datasets:
        answers += [study.dataset_settings(name), study.preparation_settings(name)]
        answers += [study.download_settings(name), study.preparation_version(name)]
        if study.datasets[name].get("corruptions"):
            answers.append(study.corruption_settings(name))
    for optimizer in study.optimizers:
        answers += [study.optimizer_settings(optimizer), list(study.grid(optimizer))]
    for task in study.tasks:
        answers += [study.analysis_task_settings(task), study.snapshots(task)]
        for optimizer in study.optimizers:
            for grid in (False, True):
                answers.append(study.task_settings(task, grid=grid, optimizer=optimizer))
        answers += [study.analysis(name, task) for name in study.analyses]
    return [repr(answer) for answer in answers]


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_the_order_and_spelling_of_keys_change_nothing(path):
    before = load(path.read_text())
    after = shuffled(load(path.read_text()), random.Random(0))
    text = yaml.safe_dump(after, sort_keys=False)  # without comments and anchors
    first = start.study(before, SCHEMA, root=ROOT)
    second = start.study(load(text), SCHEMA, root=ROOT)
    assert params(first) == params(second)


def test_another_spelling_of_a_number_changes_nothing():
    config = load((ROOT / "config/demo.yaml").read_text())
    first = params(start.study(config, SCHEMA, root=ROOT))
    config = load((ROOT / "config/demo.yaml").read_text())
    config["training"] |= {"label_smoothing": "2e-1"}
    config["training"]["schedule"] |= {"warmup_epochs": 1.0, "final_fraction": "0.010"}
    config["tasks"]["gotennet-energy"]["model"]["dropout"] = 0.0
    config["datasets"]["shapes"]["noise"] = "2e-2"
    assert params(start.study(config, SCHEMA, root=ROOT)) == first
