"""The tiny study, fresh or finished."""

import pytest
from workspace import TINY, Workspace


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """An empty folder with the tiny study."""
    return Workspace(tmp_path, TINY)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Workspace:
    """The tiny study, run once to its end; tests leave its files as they are."""
    workspace = Workspace(tmp_path_factory.mktemp("study"), TINY)
    workspace.said = workspace.run()
    return workspace
