"""A killed run goes on from its resume points, to the same bits; divergence is a result."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
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
    assert "going on at epoch" in log
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

    workspace.config["optimizers"]["sgd"]["grid"]["lr"] = ["1e30"]
    output = workspace.run("results/selection/egnn_sgd.json", ok=False)
    assert "every grid cell of egnn with sgd diverged" in output


@pytest.mark.slow
def test_each_retry_asks_for_more_memory_up_to_a_bound(workspace):
    if torch.cuda.is_available():
        pytest.skip("this machine has a working GPU")
    workspace.config["device"] = "cuda"  # so that every attempt fails
    output = workspace.run(f"{CELL}/metrics.json", ok=False, options=["--retries", "4"])
    asked = [int(mb) for mb in re.findall(r"resources:.*gpu=1.*\bmem_mb=(\d+)", output)]
    assert asked == [8000, 12000, 16000, 20000, 20000]


def test_results_may_lie_far_from_the_checkout(tmp_path):
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(tmp_path / "scratch"), "--dry-run", "--quiet", "--cores", "1"]
    target = "results/hessian/egnn_muon.json"
    run = subprocess.run([*command, "--", target], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
