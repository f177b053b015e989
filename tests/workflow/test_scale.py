"""A study of ten thousand cells is planned in a minute; what a study leaves behind is counted."""

import resource
import subprocess
from copy import deepcopy
from math import prod

import pytest
from workspace import TINY, Workspace

pytestmark = pytest.mark.scale
SECONDS, MEGABYTES = 60, 1024
CELLS = {"grid": 4, "final": 6}  # files a cell leaves, its log and benchmark counted in


@pytest.mark.slow
def test_ten_thousand_cells_are_planned_in_a_minute_and_a_gibibyte(tmp_path, record_property):
    config = deepcopy(TINY)
    axis = {"lr": [f"{i}e-5" for i in range(1, 51)], "wd": [f"{i}e-4" for i in range(50)]}
    for optimizer in config["optimizers"].values():
        optimizer["grid"] = axis
    workspace = Workspace(tmp_path, config)
    command = workspace.command("grid", options=["--dry-run", "--quiet", "rules"])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        command,
        cwd=workspace.folder,
        env=workspace.environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.returncode == 0, run.stderr[-3000:]
    cells = prod(map(len, (config["tasks"], config["optimizers"], *axis.values())))
    assert cells == 10_000
    assert f"train_grid_cell    {cells}" in run.stdout + run.stderr
    # processor time, so that a busy machine does not fail the test
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    megabytes = after.ru_maxrss / 1024  # of the largest child so far
    record_property("seconds", seconds)
    record_property("megabytes", megabytes)
    print(f"{cells} cells: {seconds:.1f} s of processor time, {megabytes:.0f} MiB")
    assert seconds < SECONDS
    assert megabytes < MEGABYTES


def test_the_number_of_files_that_cells_leave_is_as_documented(finished):
    """docs/cluster.md says how many; on a cluster's file system inodes are rationed."""
    for kind, expected in CELLS.items():
        cells = list((finished / f"results/{kind}").glob("*/*"))
        assert cells
        files = [
            file
            for root in ("results", "results/logs", "results/benchmarks")
            for file in (finished / root / kind).rglob("*")
            if file.is_file()
        ]
        assert len(files) == expected * len(cells)
    assert not [file for file in (finished / "resources/resume").rglob("*") if file.is_file()]
