"""Several files of one molecular data set: where they are, and one checksum for them all."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from equiscape.errors import DataError, listed
from equiscape.io import sha256


def folder_with(folder: Path, names: Iterable[str]) -> Path:
    """``folder``, or the one folder below it (two levels at most) that holds all of ``names``."""
    names = list(names)
    for place in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))):
        if all((place / name).is_file() for name in names):
            return place
    return folder


def require(folder: Path, names: Iterable[str], what: str) -> list[Path]:
    """The paths of files in ``folder``, or in a folder below it that has them all.

    Raises:
        DataError: one is absent.
    """
    names = list(names)
    paths = [folder_with(folder, names) / name for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{folder} lacks {listed(missing)} of {what}; give a complete source.")
    return paths


def checksum(paths: Iterable[Path]) -> str:
    """One SHA-256 for several files, from theirs in order; of a single file, its own."""
    sums = [sha256(path) for path in paths]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
