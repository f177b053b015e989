"""Shared by every test: one thread a process, and the real data beside the project, if any."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the project; without it a test is skipped in one line."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data beside the project (../shared/data) is absent")
    return folder
