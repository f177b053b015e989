"""Resume points: the state of a cell in the middle of its training, on disk.

A point is one line of text (format, cell, SHA-256 of what follows) and a ``torch.save`` of tensors
and plain values. Two are kept, so that one that a dying disk or job has damaged costs minutes.
"""

import contextlib
import hashlib
import io
import logging
import os
import time
from pathlib import Path
from typing import Any

import torch

from equiscape.errors import CheckpointError
from equiscape.io import atomic_path

log = logging.getLogger("equiscape.training")

FORMAT = 1
NEWEST, PREVIOUS = "newest.point", "previous.point"
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
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        head = f"equiscape-resume {FORMAT} {self.cell} {hashlib.sha256(content).hexdigest()}\n"
        newest = self.folder / NEWEST
        with atomic_path(newest) as temporary:
            with open(temporary, "wb") as file:
                file.write(head.encode())
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):  # the first point
                os.replace(newest, self.folder / PREVIOUS)
        self._last = time.monotonic()
        self._cost = self._last - start

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The newest intact point, or None where there is none.

        A damaged or foreign point is named in a warning and removed.
        """
        if self.folder is None:
            return None
        for name in (NEWEST, PREVIOUS):
            path = self.folder / name
            try:
                return self._read(path, device)
            except FileNotFoundError:
                continue
            except CheckpointError as error:
                log.warning("%s", error)
                path.unlink(missing_ok=True)
        return None

    def _read(self, path: Path, device: torch.device) -> dict[str, Any]:
        head, _, content = path.read_bytes().partition(b"\n")
        words = head.decode(errors="replace").split()
        if len(words) != 4 or words[0] != "equiscape-resume":
            raise CheckpointError(f"{path} is no resume point and is not used.")
        _, version, cell, checksum = words
        if version != str(FORMAT):
            raise CheckpointError(f"{path} has format {version}, not {FORMAT}, and is not used.")
        if cell != self.cell:
            raise CheckpointError(f"{path} belongs to another cell ({cell}) and is not used.")
        if hashlib.sha256(content).hexdigest() != checksum:
            raise CheckpointError(f"{path} is damaged (checksum) and is not used.")
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)

    def discard(self) -> None:
        """Remove the points and their folder, which a finished cell needs no more."""
        if self.folder is None:
            return
        killed_in_writing = self.folder.glob(f".{NEWEST}.*.part")
        for path in (self.folder / NEWEST, self.folder / PREVIOUS, *killed_in_writing):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # absent, or it holds something that is not ours
            self.folder.rmdir()
