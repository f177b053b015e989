"""A killed run goes on from its resume points, to the same bits; divergence is a result."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
import yaml
from jsonschema import Draft202012Validator
from workspace import ROOT

CELL = "results/grid/egnn_muon/lr1e-3_wd1e-2_seed0"
FINAL = "results/final/egnn_muon/seed1"


def long_cells(workspace):
    """A study of one optimizer whose final cells run for some seconds."""
    workspace.config["tasks"].pop("pointnet")
    workspace.config["optimizers"].pop("adam")
    workspace.config["report"]["baseline"] = "muon"
    workspace.config["training"]["epochs"] = 60
    workspace.config["training"]["resume_seconds"] = 0.0
    workspace.config["final"]["seeds"] = [1]
    return workspace


@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed_bit_for_bit(workspace, tmp_path_factory):
    long_cells(workspace)
    undisturbed = type(workspace)(tmp_path_factory.mktemp("undisturbed"), workspace.config)
    undisturbed.run(f"{FINAL}/checkpoint.pt")

    workspace.run(f"{CELL}/metrics.json")  # so that the first resume point is the final cell's
    process = subprocess.Popen(
        workspace.command(f"{FINAL}/checkpoint.pt"),
        cwd=workspace.folder,
        env=workspace.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list((workspace / "resources/resume").rglob("newest.point")):
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (workspace / f"{FINAL}/metrics.json").exists()

    refused = workspace.run(f"{FINAL}/checkpoint.pt", ok=False)  # the killed one left its lock
    assert "Directory cannot be locked" in refused
    workspace.run(options=["--unlock"])
    workspace.run(f"{FINAL}/checkpoint.pt", options=["--rerun-incomplete"])
    log = (workspace / "results/logs/final/egnn_muon/seed1.log").read_text()
    assert "resuming at epoch" in log
    one = torch.load(workspace / f"{FINAL}/checkpoint.pt", weights_only=True)
    two = torch.load(undisturbed / f"{FINAL}/checkpoint.pt", weights_only=True)
    assert one["epoch"] == two["epoch"]
    assert all(torch.equal(one["model"][name], two["model"][name]) for name in two["model"])
    times = ("samples_per_second", "peak_memory_mb", "seconds", "provenance")
    kept = [
        {
            k: v
            for k, v in json.loads((w / f"{FINAL}/metrics.json").read_text()).items()
            if k not in times
        }
        for w in (workspace, undisturbed)
    ]
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_an_analysis_killed_between_its_stages_goes_on_to_the_same_bits(workspace):
    long_cells(workspace)
    workspace.config["training"]["epochs"] = 1
    result = workspace / "results/hessian/egnn_muon.json"
    workspace.config["analyses"] = {
        "hessian": {
            "samples": 8,
            "batch_size": 8,
            "eigenvalues": 1,
            "max_iterations": 10,
            "probes": 2000,
            "density_probes": 50,
            "adaptive": False,  # seconds each
        }
    }
    workspace.run("results/representative/egnn_muon.json")
    process = subprocess.Popen(
        workspace.command("results/hessian/egnn_muon.json"),
        cwd=workspace.folder,
        env=workspace.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list((workspace / "resources/resume").rglob("*.stage")):
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    jobs = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if any("analyse.py" in word for word in child.cmdline())
    ]
    jobs[-1].kill()
    assert process.wait(timeout=60) != 0
    assert not result.exists()

    workspace.run("results/hessian/egnn_muon.json")
    log = (workspace / "results/logs/hessian/egnn_muon.log").read_text()
    assert "hessian trace: finished in an earlier attempt" in log
    assert not list((workspace / "resources/resume").rglob("*.stage"))
    resumed = json.loads(result.read_text())
    result.unlink()
    workspace.run("results/hessian/egnn_muon.json")
    assert "earlier attempt" not in (workspace / "results/logs/hessian/egnn_muon.log").read_text()
    whole = json.loads(result.read_text())
    for found in (resumed, whole):
        del found["seconds"], found["provenance"]["seconds"]
    assert resumed == whole


@pytest.mark.slow
def test_a_diverged_cell_is_a_result_that_selection_passes_over(workspace):
    long_cells(workspace)
    workspace.config["training"]["epochs"] = 1
    workspace.config["optimizers"] = {
        "sgd": {"class": "sgd", "grid": {"lr": ["1e-3", "1e30"], "wd": ["0"]}}
    }
    workspace.config["report"]["baseline"] = "sgd"
    workspace.run("results/selection/egnn_sgd.json")
    selection = json.loads((workspace / "results/selection/egnn_sgd.json").read_text())
    assert selection["lr"] == "1e-3"
    assert [line["status"] for line in selection["grid"]] == ["finished", "diverged"]


@pytest.mark.slow
def test_an_optimizer_that_diverged_in_every_cell_has_results_that_say_so(workspace):
    long_cells(workspace)
    workspace.config["training"] |= {"epochs": 1, "snapshots": [1]}
    workspace.config["optimizers"] = {
        "sgd": {"class": "sgd", "grid": {"lr": ["1e30", "1e31"], "wd": ["0"]}}
    }
    workspace.config["report"]["baseline"] = "sgd"
    workspace.run("results/rank/egnn_sgd.csv", "results/representative/egnn_sgd.json")
    selection = json.loads((workspace / "results/selection/egnn_sgd.json").read_text())
    assert (selection["status"], selection["lr"]) == ("diverged", None)
    cell = workspace / "results/final/egnn_sgd/seed1"
    metrics = json.loads((cell / "metrics.json").read_text())
    assert (metrics["status"], metrics["lr"]) == ("diverged", None)
    assert metrics["diverged_at"] == {"epoch": 0, "step": 0}
    for name in ("checkpoint.pt", "snapshots/epoch1.pt"):
        assert torch.load(cell / name, weights_only=True)["status"] == "diverged"
    chosen = json.loads((workspace / "results/representative/egnn_sgd.json").read_text())
    assert (chosen["status"], chosen["seed"]) == ("diverged", None)
    rank = json.loads((workspace / "results/rank/egnn_sgd.json").read_text())
    assert rank["status"] == "diverged"
    for name, file in (
        ("metrics", cell / "metrics.json"),
        ("selection", workspace / "results/selection/egnn_sgd.json"),
        ("choice", workspace / "results/selection/egnn_sgd.choice.json"),
        ("representative", workspace / "results/representative/egnn_sgd.json"),
        ("representative_choice", workspace / "results/representative/egnn_sgd.choice.json"),
    ):
        schema = yaml.safe_load((ROOT / f"workflow/schemas/{name}.schema.yaml").read_text())
        Draft202012Validator(schema).validate(json.loads(file.read_text()))


@pytest.mark.slow
def test_each_retry_asks_for_more_memory_up_to_a_bound(workspace):
    if torch.cuda.is_available():
        pytest.skip("this machine has a working GPU")
    workspace.config["device"] = "cuda"  # so that every attempt fails
    output = workspace.run(f"{CELL}/metrics.json", ok=False, options=["--retries", "4", "-p"])
    asked = [int(mb) for mb in re.findall(r"resources:.*gpu=1.*\bmem_mb=(\d+)", output)]
    assert asked == [8000, 12000, 16000, 20000, 20000]


def test_results_may_lie_far_from_the_checkout(tmp_path):
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(tmp_path / "scratch"), "--dry-run", "--quiet", "--cores", "1"]
    target = "results/hessian/egnn_muon.json"
    run = subprocess.run([*command, "--", target], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
