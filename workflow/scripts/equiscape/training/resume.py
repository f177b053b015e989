"""Resume points: the state of a cell in the middle of its training, on disk.

A point is one line of text (format, cell, SHA-256 of what follows) and a ``torch.save`` of tensors
and plain values. Two are kept, so that one that a dying disk or job has damaged costs minutes.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from equiscape.errors import CheckpointError, ConfigError, first_line
from equiscape.files import sealed
from equiscape.io import atomic_path
from equiscape.training.gradient import out_of_memory


class Resumable(Protocol):
    """What a resume point is taken over by."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the state that the point holds."""
        ...


T = TypeVar("T", bound=Resumable)

log = logging.getLogger("equiscape.training")

FORMAT = 1
MARK = "equiscape-resume"
NEWEST, PREVIOUS, ASIDE = "newest.point", "previous.point", ".aside"
SHARE = 0.01


class ResumePoints:
    """The newest resume point of a cell and the one before it.

    Args:
        folder: of this cell alone; None keeps no points.
        cell: a hash of all that the training depends on; a point of another cell is not used.
        seconds: least time between two points. Where writing is slow, points are further apart,
            so that they never take more than one percent of the time.
    """

    def __init__(self, folder: str | Path | None, cell: str, seconds: float):
        self.folder = None if folder is None else Path(folder)
        self.cell = cell
        self.seconds = seconds
        self._last = time.monotonic()
        self._cost = 0.0

    def due(self) -> bool:
        """Whether it is time for the next point."""
        wait = max(self.seconds, self._cost / SHARE)
        return self.folder is not None and time.monotonic() - self._last >= wait

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` as the newest point; the newest so far becomes the previous one."""
        if self.folder is None:
            return
        start = time.monotonic()
        head, content = sealed.seal(state, MARK, str(FORMAT), self.cell)
        newest = self.folder / NEWEST
        with atomic_path(newest) as temporary:
            with open(temporary, "wb") as file:
                file.write(head)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):  # the first point
                os.replace(newest, self.folder / PREVIOUS)
        self._last = time.monotonic()
        self._cost = self._last - start

    def check_writable(self) -> None:
        """Refuse a folder that cannot be written before any time is spent.

        Raises:
            ConfigError: naming it.
        """
        if self.folder is None:
            return
        try:
            with atomic_path(self.folder / "writable"):
                pass
            (self.folder / "writable").unlink()
        except OSError as error:
            raise ConfigError(
                f"resume: {self.folder} cannot be written ({error.strerror}); give a folder that "
                "can, with the key `resume`."
            ) from None

    def resume(self, device: torch.device, start: Callable[[], T]) -> T:
        """A fresh ``start()`` that has taken over the newest point that works, if there is one.

        A point that is damaged, of another cell, or that cannot be taken over (it is from other
        code, or a snapshot is missing) is set aside with a warning.
        """
        for name in (NEWEST, PREVIOUS):
            path = None if self.folder is None else self.folder / name
            if path is None or not path.exists():
                continue
            started = start()
            try:
                started.restore(self._read(path, device))
                return started
            except CheckpointError as error:
                reason = str(error)
            except Exception as error:
                if out_of_memory(error):
                    raise
                reason = f"{path} does not fit this version of the code ({first_line(error)})"
            log.warning("%s; set aside as %s", reason.rstrip("."), path.name + ASIDE)
            os.replace(path, path.with_name(path.name + ASIDE))
        return start()

    def _read(self, path: Path, device: torch.device) -> dict[str, Any]:
        words, content = sealed.unseal(path.read_bytes())
        if len(words) != 3 or words[0] != MARK:
            raise CheckpointError(f"{path} is no resume point")
        _, version, cell = words
        if version != str(FORMAT):
            raise CheckpointError(f"{path} has format {version}, not {FORMAT}")
        if cell != self.cell:
            raise CheckpointError(f"{path} belongs to another cell ({cell})")
        if content is None:
            raise CheckpointError(f"{path} is damaged (checksum)")
        return sealed.load(content, device)

    def discard(self) -> None:
        """Remove the points and their folder, which a finished cell needs no more."""
        if self.folder is None:
            return
        for name in (NEWEST, PREVIOUS, f"*{ASIDE}", "snapshot*.pt", ".*.part"):
            for path in self.folder.glob(name):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # absent, or it holds something that is not ours
            self.folder.rmdir()
