"""What Snakemake's own process arranges before the first job: tools that jobs import, and GPUs."""

import os
import re

import pytest
from workspace import ROOT, Workspace

CELLS = [f"results/grid/egnn_adam/lr{lr}_wd1e-2_seed0/metrics.json" for lr in ("1e-3", "3e-3")]
HIDE = """
from importlib import metadata
real = metadata.version
def version(name):
    if name == "nbclient":
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version
"""


@pytest.fixture
def variables(monkeypatch):
    """Set variables of Snakemake's process."""
    return lambda **new: [monkeypatch.setenv(name, value) for name, value in new.items()]


def local(workspace: Workspace, *targets: str, options=()) -> str:
    """A run with profiles/local."""
    profile = ["--profile", str(ROOT / "profiles/local"), "--cores", "2"]
    return workspace.run(*targets, options=[*profile, *options])


def test_a_missing_tool_ends_before_the_first_job_that_needs_it(workspace, variables):
    (workspace / "site").mkdir()
    (workspace / "site/sitecustomize.py").write_text(HIDE)
    variables(PYTHONPATH=str(workspace / "site"))
    output = workspace.run("tables", ok=False)
    assert "nbclient is missing in the environment of" in output
    assert "--sdm conda" in output
    assert "Traceback" not in output
    assert not (workspace / "resources/prepared").exists()
    workspace.run("resources/prepared/shapes.h5")  # no notebook in sight


@pytest.mark.slow
def test_two_jobs_at_once_have_a_gpu_each(workspace, variables):
    workspace.config |= {"device": "auto"}
    workspace.config["selection"]["training"] = {"epochs": 40}
    variables(CUDA_VISIBLE_DEVICES="0,1", TMPDIR=str(workspace.folder))
    local(workspace, *CELLS)
    logs = [
        (workspace / "results/logs/grid/egnn_adam" / f"{os.path.dirname(cell).split('/')[-1]}.log")
        for cell in CELLS
    ]
    seen = [re.findall(r"this job has GPU (\d) of 0, 1", path.read_text()) for path in logs]
    assert sorted(seen) == [["0"], ["1"]]


@pytest.mark.parametrize(("visible", "device"), [("", "auto"), ("0", "cpu")])
def test_jobs_ask_for_a_gpu_unless_all_run_on_the_cpu(workspace, variables, visible, device):
    workspace.config |= {"device": device}
    variables(CUDA_VISIBLE_DEVICES=visible)
    output = local(workspace, *CELLS, options=["--dry-run"])
    asked = set(re.findall(r"gpu=(\d)", output.split("train_grid_cell:")[-1]))
    assert asked == ({"1"} if device == "auto" else {"0"})
