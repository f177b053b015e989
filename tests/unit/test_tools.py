"""Packages that jobs import are looked for before the first job."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from equiscape.configuration import tools
from equiscape.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
ENVS = [ROOT / "envs/torch.yaml", ROOT / "envs/report.yaml"]


def test_the_environment_of_these_tests_has_all():
    tools.check_tools(ENVS)


def test_the_names_are_those_of_the_environments():
    assert {"torch", "torch-geometric", "numpy"} <= set(tools.packages(ENVS[0]))
    assert {"nbclient", "nbconvert", "ipykernel", "jupytext"} <= set(tools.packages(ENVS[1]))


@pytest.mark.parametrize("name", ["torch", "nbclient", "nbconvert", "ipykernel", "jupytext"])
def test_a_missing_one_is_named(monkeypatch, name):
    real = metadata.version

    def version(asked):
        if asked == name:
            raise metadata.PackageNotFoundError(asked)
        return real(asked)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(ConfigError, match=rf"^{name} is missing in the environment of .*\.$"):
        tools.check_tools(ENVS)
    tools.check_tools([])  # no job of this run needs it


@pytest.mark.parametrize(("found", "old"), [("2.8.1+cu126", True), ("2.9.0a0+git", False)])
def test_one_that_is_too_old_is_named(monkeypatch, found, old):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda n: found if n == "torch" else real(n))
    if old:
        with pytest.raises(ConfigError, match=r"torch 2\.8\.1\+cu126 is too old, 2\.9 or later"):
            tools.check_tools(ENVS)
    else:
        tools.check_tools(ENVS)


def test_an_old_python_is_named():
    with pytest.raises(ConfigError, match=r"Python 3\.11 or later"):
        tools.check_tools([], python=(3, 10))


def test_least_versions_are_those_of_the_package():
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    least = dict(line.split(">=") for line in lines if ">=" in line)
    assert least == {name: ".".join(map(str, v)) for name, v in tools.LEAST.items()}
    assert re.match(r">=3\.11", ">=" + ".".join(map(str, tools.PYTHON)))
