"""What an interrupted analysis had finished, kept on disk until it ends.

An analysis of minutes is cut into named stages. A finished stage is a file in an undeclared folder,
as resume points of a training are, so a job that is killed and run again goes on behind it, with
the same bits as one that was not disturbed.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from equiscape.errors import first_line
from equiscape.files import sealed
from equiscape.io import atomic_path, settings_hash

log = logging.getLogger("equiscape")

T = TypeVar("T")
SUFFIX = ".stage"
ARRAY, KIND = "__array__", "__kind__"
LEAST = 2.0  # seconds of a stage that is worth a file


class Partial:
    """The finished stages of one analysis of one subject.

    Args:
        folder: of all analyses; None keeps nothing.
        identity: all that the result depends on; stages of another identity are not seen.
        least: seconds; a stage that took less is not kept.
    """

    def __init__(self, folder: str | Path | None, identity: Any = None, least: float = LEAST):
        key = settings_hash(identity)
        self.folder = None if folder is None else Path(folder) / f"analysis-{key}"
        self.least = least

    def stage(
        self, name: str, compute: Callable[[], T], kinds: Iterable[type] = (), keep: bool = True
    ) -> T:
        """The value of the stage ``name``: read where it is finished, else computed and kept.

        Args:
            name: of the stage; unlike that of any other.
            compute: makes numbers, strings, None, tensors, arrays, and lists, tuples, dicts and
                dataclasses of these. It may depend on nothing that an earlier stage changes.
            kinds: the dataclasses in the value.
            keep: False computes the stage every time.

        A file that cannot be read, or a folder that cannot be written, costs the time of the stage.
        """
        path = None if self.folder is None or not keep else self.folder / f"{_file(name)}{SUFFIX}"
        if path is not None and path.exists():
            try:
                value = _decode(_read(path), {kind.__name__: kind for kind in kinds})
                log.info("%s: finished in an earlier attempt", name)
                return value
            except Exception as error:  # whatever a damaged file may raise
                log.warning("%s cannot be used (%s); computed again", path, first_line(error))
        start = time.monotonic()
        value = compute()
        if path is not None and time.monotonic() - start >= self.least:
            try:
                _write(path, _encode(value))
            except OSError as error:
                log.warning("%s was not kept (%s)", path, first_line(error))
        return value

    def discard(self) -> None:
        """Remove the stages of a finished analysis."""
        if self.folder is not None and self.folder.is_dir():
            for path in [*self.folder.glob(f"*{SUFFIX}"), *self.folder.glob(".*.part")]:
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds something that is not ours
                self.folder.rmdir()


NOTHING = Partial(None)
"""Keeps no stage."""


def _file(name: str) -> str:
    """A name that every file system takes."""
    plain = "".join(c if c.isalnum() else "-" for c in name)[:60]
    return f"{plain}-{sha256(name.encode()).hexdigest()[:8]}"


def _write(path: Path, value: Any) -> None:
    head, content = sealed.seal(value)
    place = path.parents[1] if path.parents[1].is_dir() else "."
    if shutil.disk_usage(place).free < 2 * len(content):
        log.warning("%s was not kept: the disk has no room for it", path)
        return
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(head)
        file.write(content)


def _read(path: Path) -> Any:
    _, content = sealed.unseal(path.read_bytes())
    if content is None:
        raise ValueError("its checksum is wrong")
    return sealed.load(content)


def _encode(value: Any) -> Any:
    """``value`` in what ``torch.load(weights_only=True)`` reads."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: _encode(getattr(value, f.name)) for f in fields(value)}
        return {KIND: type(value).__name__, **parts}
    if isinstance(value, np.ndarray):
        return {ARRAY: torch.from_numpy(np.ascontiguousarray(value)).reshape(value.shape)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach().clone()  # a view would be saved with all that it is a view of
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_encode(item) for item in value)
    return value


def _decode(value: Any, kinds: Mapping[str, type]) -> Any:
    if isinstance(value, dict):
        if ARRAY in value:
            return value[ARRAY].numpy()
        parts = {key: _decode(item, kinds) for key, item in value.items() if key != KIND}
        return kinds[value[KIND]](**parts) if KIND in value else parts
    if isinstance(value, list | tuple):
        return type(value)(_decode(item, kinds) for item in value)
    return value
