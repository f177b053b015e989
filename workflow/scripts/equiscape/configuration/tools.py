"""Packages that jobs need, looked for before the first of them starts and without importing any."""

import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import yaml

from equiscape.errors import ConfigError, listed

PIP = {"pytorch": "torch", "pytorch_geometric": "torch-geometric"}  # names of conda-forge
OPTIONAL = ("python", "rdkit", "trimesh")  # of some data only, whose preparation asks for them
LEAST = {"torch": (2, 9), "torch-geometric": (2, 7)}
PYTHON = (3, 11)


def check_tools(environments: Iterable[str | Path], python: tuple[int, ...] | None = None) -> None:
    """Refuse to start jobs in an environment that lacks what they import.

    Args:
        environments: conda files (``envs/torch.yaml``) of the rules whose jobs will run in this
            process's own environment; their names are looked for, their exact versions are not.
        python: version of the interpreter, this one's by default.

    Raises:
        ConfigError: Python is too old, a package is missing or too old.
    """
    remedy = "install requirements.txt (`make setup`), or add --sdm conda."
    if tuple(python or sys.version_info[:2]) < PYTHON:
        raise ConfigError(
            f"Python {'.'.join(map(str, PYTHON))} or later is needed; use a newer one."
        )
    needed = dict.fromkeys(name for path in environments for name in packages(path))
    missing = [name for name in needed if _version(name) is None]
    if missing:
        raise ConfigError(
            f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing in the "
            f"environment of {sys.executable}, in which the jobs will run; {remedy}"
        )
    for name in needed:
        found, least = _version(name), LEAST.get(name)
        if found and least and _numbers(found) < least:
            wanted = ".".join(map(str, least))
            raise ConfigError(f"{name} {found} is too old, {wanted} or later is needed; {remedy}")


def packages(path: str | Path) -> list[str]:
    """Names, as pip spells them, of the packages in a conda file that are always needed."""
    dependencies = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["dependencies"]
    names = [line.partition("=")[0].strip() for line in dependencies if isinstance(line, str)]
    return [PIP.get(name, name) for name in names if name not in OPTIONAL]


def _version(name: str) -> str | None:
    """The installed version; None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """``2.9.0+cu129`` -> (2, 9)."""
    parts = version.split("+")[0].split(".")[:2]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)
