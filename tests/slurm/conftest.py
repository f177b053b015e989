"""One real SLURM for all tests of this folder; without it each is skipped in one line."""

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import cluster as slurm
import pytest


@pytest.fixture(scope="session")
def cluster():
    reason = slurm.missing()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short, for the path of munge's socket
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            running = slurm.Cluster(folder, cpus=max(4, os.cpu_count() or 1))
            stack.enter_context(running)
        except slurm.DidNotStart as error:  # a container may forbid what its daemons need
            pytest.skip(f"SLURM does not start on this machine: {error}")
        yield running
