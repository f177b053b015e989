"""Records of our own files: a JSON beside each with its SHA-256, compared before it is read.

``x.h5`` has ``x.json``. The file is renamed into place first and its record after it, so a record
is never of a file that is not there yet.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from equiscape import io
from equiscape.errors import DataError


def record_of(path: str | Path) -> Path:
    """Where the record of a file lies."""
    return Path(path).with_suffix(".json")


def sign(path: str | Path, **facts: Any) -> None:
    """Write the record of ``path``: its SHA-256 and size, and further ``facts``."""
    path = Path(path)
    io.write_json(
        record_of(path), {"sha256": io.sha256(path), "bytes": path.stat().st_size, **facts}
    )


def amend(path: str | Path, **facts: Any) -> None:
    """Add ``facts`` to the record of ``path``, which is made where there is none."""
    record = record_of(path)
    if not record.exists():
        sign(path)
    io.write_json(record, {**io.read_json(record, "product"), **facts})


def stamp(paths: Iterable[str | Path]) -> dict[str, dict[str, Any]]:
    """Checksum, size and time of change of files, by their path."""
    stamps = {}
    for path in map(Path, paths):
        stat = path.stat()
        stamps[str(path)] = {
            "sha256": io.sha256(path),
            "bytes": stat.st_size,
            "changed": stat.st_mtime_ns,
        }
    return stamps


def unchanged(path: str | Path, source: str | Path) -> bool:
    """Whether ``path`` was made from the bytes that ``source`` has now, whatever its time.

    Only a file whose size is the recorded one is read.
    """
    try:
        known = io.read_json(record_of(path), "product")["sources"][str(source)]
        stat = Path(source).stat()
        if stat.st_size != known["bytes"]:
            return False
        return stat.st_mtime_ns == known["changed"] or io.sha256(source) == known["sha256"]
    except (OSError, DataError, KeyError):
        return False


def verify(path: str | Path, rule: str) -> dict[str, Any]:
    """The record of ``path``, once its bytes are those that were written; once a job.

    Args:
        path: of the file.
        rule: the rule that makes it, for the messages.

    Raises:
        DataError: the file or its record is absent, or they do not fit.
    """
    path = Path(path)
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run the rule {rule} first.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    record = record_of(path)
    if not record.is_file():
        raise DataError(
            f"{path} has no record {record.name} beside it; run again with --forcerun {rule}."
        )
    facts = io.read_json(record, "product")
    if stat.st_size != facts["bytes"] or _sha256(path, stat.st_mtime_ns) != facts["sha256"]:
        raise DataError(
            f"{path} is damaged: it is not the file that was written (its SHA-256 differs from "
            f"{record.name}); run again with --forcerun {rule}."
        )
    return facts


@lru_cache(maxsize=64)
def _sha256(path: Path, changed: int) -> str:
    try:
        return io.sha256(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
