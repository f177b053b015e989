"""One real SLURM for all tests of this folder; without it each is skipped in one line."""

import os
import shutil
import tempfile
from pathlib import Path

import cluster as slurm
import pytest


@pytest.fixture(scope="session")
def cluster():
    reason = slurm.missing()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short, for the path of munge's socket
    try:
        with slurm.Cluster(folder, cpus=max(4, os.cpu_count() or 1)) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)
