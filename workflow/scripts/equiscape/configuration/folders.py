"""Folders that a configuration names: what no path may hold, and folders that must lie apart."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from equiscape.errors import ConfigError
from equiscape.hints import spelled
from equiscape.registry import unknown

LONGEST = 200  # bytes of a part of a path; file systems take 255, and temporary files are longer
USUAL = {"results": "results", "resources": "resources"}
RESUME = "resources/resume"
WORKFLOW = Path(__file__).resolve().parents[4]
SOURCES = ("workflow", "config", "envs", "profiles", "docs", "tests", "benchmarks")  # of it
TOOLS = (".git", ".github", ".ci", ".snakemake", ".venv")
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
    if path.startswith("-"):
        raise ConfigError(
            f"{key}: {spelled(path)} begins like an option of a command; give another name."
        )
    if path.startswith("~"):
        home = os.path.expanduser(path)
        remedy = f"write {spelled(home)}" if home != path else "leave that out"
        raise ConfigError(f"{key}: {spelled(path)} would be a folder named ~; {remedy}.")
    if any(len(os.fsencode(part)) > LONGEST for part in PurePosixPath(path).parts):
        raise ConfigError(
            f"{key}: {spelled(path)} has a name of more than {LONGEST} bytes; give a shorter one."
        )


def check_folders(config: Mapping[str, Any], known: Iterable[str], root: Path) -> None:
    """Refuse folders of modules that cannot be read, and folders to write to.

    These must be plain folders, of known names, that lie apart and where nothing else does.

    Args:
        config: the configuration; ``plugins``, ``pathvars`` and ``resume`` are read.
        known: names of the path variables.
        root: the folder that relative ones are relative to.

    Raises:
        ConfigError: naming the key.
    """
    check_plugins(config.get("plugins") or [], root)
    pathvars, resume = config.get("pathvars") or {}, config.get("resume", RESUME)
    known = list(known)
    for name, path in pathvars.items():
        if name not in known:
            raise unknown(name, known, "pathvars")
        check_folder(path, f"pathvars.{name}")
        _refuse_odd_spelling(path, f"pathvars.{name}")
    check_folder(resume, "resume")
    places = {f"pathvars.{name}": path for name, path in {**USUAL, **pathvars}.items()}
    places |= {"resume": resume}
    for key, path in places.items():
        _refuse_sources(path, key, root)
        _refuse_unwritable(path, key, root)
    results, resources, points = (
        _real(root, places[key]) for key in ("pathvars.results", "pathvars.resources", "resume")
    )
    if results.is_relative_to(resources) or resources.is_relative_to(results):
        raise ConfigError(
            f"pathvars: results ({places['pathvars.results']}) and resources "
            f"({places['pathvars.resources']}) must lie apart; "
            "give two folders, neither in the other."
        )
    if points.is_relative_to(results):
        raise ConfigError(
            f"resume: {resume} lies in results ({places['pathvars.results']}), which are kept and "
            "published without points of interrupted cells; give a folder outside."
        )
    if points == _real(root, "."):
        raise ConfigError(f"resume: {spelled(resume)} must be a folder of its own; write one.")


def check_plugins(folders: Iterable[str], root: Path) -> None:
    """Refuse a folder of modules that is none, cannot be read, or stands there twice."""
    seen: dict[Path, str] = {}
    for i, folder in enumerate(folders):
        key = f"plugins.{i}"
        check_folder(folder, key)
        if not os.path.isdir(root / folder):
            raise ConfigError(f"{key}: {root / folder} is no folder; give one with modules.")
        if not os.access(root / folder, os.R_OK | os.X_OK):
            raise ConfigError(f"{key}: {root / folder} cannot be read; give another folder.")
        place = _real(root, folder)
        if place in seen:
            raise ConfigError(f"{key}: {folder} and {seen[place]} are the same; keep one.")
        seen[place] = folder


def _real(root: Path, path: str) -> Path:
    return Path(os.path.realpath(root / path))


def _refuse_odd_spelling(path: str, key: str) -> None:
    """Refuse a spelling that Snakemake would compare as another path."""
    plain = os.path.normpath(path)
    if plain != path.rstrip("/") or plain in (".", "/"):
        own = "a folder of its own" if plain in (".", "/", "..") else plain
        raise ConfigError(f"{key}: {spelled(path)} must be spelled plainly; write {own}.")


def _refuse_sources(path: str, key: str, root: Path) -> None:
    """Refuse the workflow's own folder and those of its sources and tools."""
    place = _real(root, path)
    if place == WORKFLOW:
        raise ConfigError(f"{key}: {path} is the workflow's own folder; give one of its own.")
    for base in (WORKFLOW, _real(root, ".")):
        part = place.relative_to(base).parts[0] if place.is_relative_to(base) else None
        if part in TOOLS or (part in SOURCES and base == WORKFLOW):
            raise ConfigError(
                f"{key}: {path} lies in {part}, which belongs to "
                f"{'the workflow' if part in SOURCES else 'another program'}; give another folder."
            )


def _refuse_unwritable(path: str, key: str, root: Path) -> None:
    """Refuse a folder in which nothing can be made, or that cannot be made, by trying.

    Permissions alone say too little: neither a read-only mount nor a file system of the kernel such
    as /proc shows in them, least of all to root.
    """
    wanted = root / path
    for place in (wanted, *wanted.parents):
        if os.path.isdir(place):  # False where Path's own raises: in a folder that may not be read
            try:
                os.rmdir(tempfile.mkdtemp(prefix=".equiscape-", dir=place))
            except OSError as error:
                reason = error.strerror
                if isinstance(error, FileNotFoundError):  # as the kernel's own file systems say
                    reason = "nothing can be made there"
                raise ConfigError(
                    f"{key}: {place} cannot be written ({reason}); give another folder."
                ) from None
            return
        if os.path.lexists(place):
            raise ConfigError(f"{key}: {place} is not a folder; give another one.")
