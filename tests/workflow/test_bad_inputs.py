"""Bad inputs end in one clear sentence, before any job starts where that is possible."""

import os
import subprocess

import h5py
import numpy as np
import pytest


def change(workspace, path, value):
    *parents, last = path.split("/")
    at = workspace.config
    for key in parents:
        at = at[key]
    at[last] = value


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("trainig", {}, "the configuration: 'trainig' is unknown; did you mean 'training'."),
        ("training/epoch", 3, "training: 'epoch' is unknown; did you mean 'epochs'."),
        ("tasks/egnn/dataset", "shape", "tasks.egnn.dataset: 'shape' is unknown"),
        ("optimizers/adam/grid/lr", ["-1e-3"], "optimizers.adam.grid.lr: -1e-3 must be positive"),
        ("tasks/egnn/model", {"hiden": 3}, "tasks.egnn.model: 'hiden' is unknown; did you mean"),
        ("optimizers/muon/settings", {"ns_step": 3}, "optimizers.muon.settings: 'ns_step' is unkn"),
    ],
)
def test_a_bad_configuration_stops_before_any_job(workspace, path, value, sentence):
    change(workspace, path, value)
    output = workspace.run(options=["--dry-run"], ok=False)
    assert sentence in output
    assert "Traceback" not in output
    assert "Job stats" not in output


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (
            "analyses/hessian/parameters",
            ["haed.*"],
            "analyses.hessian.parameters: 'haed.*' matches no parameter of the network of task",
        ),
        (
            "optimizers/muon/settings/orthogonalize",
            ["hidden", "!head.hiden.0.weight"],
            "optimizers.muon.settings.orthogonalize: '!head.hiden.0.weight' matches no matrix of "
            "the network of task 'egnn'; did you mean head.hidden.0.weight",
        ),
        (
            "optimizers/muon/settings/min_side",
            60000,
            "optimizers.muon.settings.min_side: 60000 leaves no matrix of the network of task",
        ),
    ],
)
def test_a_pattern_that_matches_no_parameter_stops_before_the_first_job(
    workspace, path, value, sentence
):
    change(workspace, path, value)
    for options, made in ((["--dry-run"], []), ([], ["networks"])):
        output = workspace.run(options=options, ok=False)
        assert sentence in output
        assert "Traceback" not in output
        assert [path.name for path in workspace.folder.glob("resources/*")] == made


def test_an_unknown_task_is_named(workspace):
    output = workspace.run("results/hessian/egn_muon.json", options=["--dry-run"], ok=False)
    assert "the task of results/hessian/egn_muon.json: 'egn' is unknown; did you mean" in output


def test_a_missing_source_is_named_before_any_job(workspace):
    workspace.config["datasets"]["shapes"] = {"kind": "pointcloud", "source": "data/gone.zip"}
    output = workspace.run(options=["--dry-run"], ok=False)
    assert "datasets.shapes.source: data/gone.zip does not exist" in output


def modelnet_folder(folder, clouds=24, classes=3):
    """A folder in ModelNet40's layout."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        with h5py.File(folder / f"ply_data_{split}0.h5", "w") as file:
            file["data"] = rng.normal(size=(clouds, 64, 3)).astype("f4")
            file["label"] = (np.arange(clouds)[:, None] % classes).astype("u1")
        (folder / f"{split}_files.txt").write_text(f"ply_data_{split}0.h5\n")
    names = [f"class{i}" for i in range(classes)]
    (folder / "shape_names.txt").write_text("\n".join(names) + "\n")


def run_prepare(workspace, ok):
    workspace.config["datasets"]["shapes"] = {
        "kind": "pointcloud",
        "source": "clouds",
        "points": 32,
        "validation": 0.25,
    }
    return workspace.run("resources/prepared/shapes.h5", ok=ok)


def test_a_local_folder_in_modelnet40_s_layout_is_prepared(workspace):
    modelnet_folder(workspace / "clouds")
    run_prepare(workspace, ok=True)
    with h5py.File(workspace / "resources/prepared/shapes.h5") as file:
        assert file["points"].shape == (48, 64, 3)
        assert len(file["split/train"]) + len(file["split/validation"]) == 24


def test_a_truncated_source_is_named_and_leaves_nothing(workspace):
    modelnet_folder(workspace / "clouds")
    damaged = workspace / "clouds/ply_data_train0.h5"
    damaged.write_bytes(damaged.read_bytes()[:1500])
    output = run_prepare(workspace, ok=False)
    assert "ply_data_train0.h5" in output
    assert "Traceback" not in output
    assert not list((workspace / "resources/prepared").glob("*h5*"))


def test_a_damaged_checkpoint_is_named(workspace):
    workspace.config["tasks"].pop("pointnet")
    workspace.config["optimizers"].pop("muon")
    workspace.run("results/representative/egnn_adam.json")
    for checkpoint in (workspace / "results/final/egnn_adam").glob("*/checkpoint.pt"):
        stamp = checkpoint.stat()
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])
        os.utime(checkpoint, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    output = workspace.run("results/rank/egnn_adam.csv", ok=False)
    assert "checkpoint.pt is not the file that its cell wrote" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("options", [[], ["--cores", "1"]])
def test_a_target_behind_configfile_is_told_to_go_first(workspace, options):
    words = workspace.command()[:-1]  # without the two dashes
    at = words.index("--configfile") + 2
    command = [*words[:at], "tables", *words[at:], *options, "--dry-run"]
    run = subprocess.run(
        command, cwd=workspace.folder, env=workspace.environment(), capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "put targets first (snakemake tables --configfile study.yaml) or behind --" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_job_of_many_files_is_a_short_line(workspace):
    for split in ("train", "test"):
        folder = workspace / f"clouds/chair/{split}"
        folder.mkdir(parents=True)
        for number in range(300):
            (folder / f"a_cloud_with_a_long_name_{number}.off").touch()
    workspace.config["datasets"]["shapes"] = {
        "kind": "files", "source": "clouds", "points": 16, "validation": 0.1
    }  # fmt: skip
    workspace.config["analyses"].pop("robustness")
    output = workspace.run("resources/prepared/shapes.h5", options=["--dry-run"])
    assert "and 580 more" in output
    assert max(map(len, output.splitlines())) < 1500
