"""Folders that a configuration names: what no path may hold, and folders that must lie apart."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from equiscape.errors import ConfigError
from equiscape.hints import spelled
from equiscape.registry import unknown

LONGEST = 200  # bytes of a part of a path; file systems take 255, and temporary files are longer
USUAL = {"results": "results", "resources": "resources"}
STRANGE = {
    "{}<>": "which Snakemake reads as wildcards",
    "*?[]": "which shells read as patterns",
    "$": "which nothing fills in",
    "\\": "where folders are divided by /",
}
"""Characters that no folder may have -> why."""


def check_folder(path: str, key: str) -> None:
    """Refuse a path that no folder can have, or that another program would read as something else.

    Raises:
        ConfigError: naming ``key`` and what to write instead.
    """
    if not path.strip():
        raise ConfigError(f"{key}: {spelled(path)} must be a folder.")
    for marks, why in STRANGE.items():
        found = [mark for mark in marks if mark in path]
        if found:
            raise ConfigError(f"{key}: {spelled(path)} holds {found[0]!r}, {why}; leave it out.")
    if not path.isprintable() or path != path.strip():
        raise ConfigError(
            f"{key}: {spelled(path)} holds a line feed, a control character or a space at an end; "
            "leave it out."
        )
    if "://" in path:
        raise ConfigError(f"{key}: {spelled(path)} is an address; give a folder of this machine.")
    if path.startswith("~"):
        raise ConfigError(
            f"{key}: {spelled(path)} would be a folder named ~; "
            f"write {spelled(str(Path(path).expanduser()))}."
        )
    if any(len(os.fsencode(part)) > LONGEST for part in PurePosixPath(path).parts):
        raise ConfigError(
            f"{key}: {spelled(path)} has a name of more than {LONGEST} bytes; give a shorter one."
        )


def check_pathvars(pathvars: Mapping[str, str], known: Iterable[str], root: Path) -> None:
    """Refuse an unknown path variable, one that is no plain folder, and two that lie in each other.

    Args:
        pathvars: of the configuration.
        known: their names.
        root: the folder that relative ones are relative to.

    Raises:
        ConfigError: naming the key.
    """
    known = list(known)
    for name, path in pathvars.items():
        key = f"pathvars.{name}"
        if name not in known:
            raise unknown(name, known, "pathvars")
        check_folder(path, key)
        plain = os.path.normpath(path)
        if plain != path.rstrip("/") or plain in (".", "/"):
            own = "a folder of its own" if plain in (".", "/", "..") else plain
            raise ConfigError(f"{key}: {spelled(path)} must be spelled plainly; write {own}.")
        if (root / path).exists() and not (root / path).is_dir():
            raise ConfigError(f"{key}: {path} is a file; give a folder.")
    results, resources = (
        Path(os.path.realpath(root / pathvars.get(name, usual))) for name, usual in USUAL.items()
    )
    if results.is_relative_to(resources) or resources.is_relative_to(results):
        raise ConfigError(
            f"pathvars: results ({pathvars.get('results', USUAL['results'])}) and resources "
            f"({pathvars.get('resources', USUAL['resources'])}) must lie apart; "
            "give two folders, neither in the other."
        )


def check_resume(folder: str, root: Path) -> None:
    """Refuse a folder of resume points that cannot be written."""
    check_folder(str(Path(folder).expanduser()) if folder.strip() else folder, "resume")
    path = root / Path(folder).expanduser()
    for place in (path, *path.parents):
        if place.is_dir():
            if not os.access(place, os.W_OK | os.X_OK):
                raise ConfigError(f"resume: {place} cannot be written; give another folder.")
            return
        if place.exists() or place.is_symlink():
            raise ConfigError(f"resume: {place} is not a folder; give another one.")
