"""The network at named epochs, kept while a cell trains, with the resume points' guarantee.

Each snapshot lies serialized in the folder of the resume points until the cell has finished, and a
resume point holds the SHA-256 of those before it. Without a folder they stay in memory.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from equiscape.checkpoint import plain
from equiscape.errors import CheckpointError
from equiscape.io import atomic_path
from equiscape.training.settings import Settings


class Snapshots:
    """Snapshots of a cell.

    Args:
        epochs: after which one is kept; 0 is ahead of the first step.
        folder: of the cell's resume points, or None.
    """

    def __init__(self, epochs: Iterable[int], folder: Path | None):
        self.epochs = frozenset(epochs)
        self.folder = folder
        self._kept: dict[int, str] = {}  # epoch -> SHA-256
        self._memory: dict[int, bytes] = {}

    def due(self, epoch: int) -> bool:
        """Whether the network is to be kept after ``epoch`` epochs and is not yet."""
        return epoch in self.epochs and epoch not in self._kept

    def keep(self, epoch: int, state: dict[str, Any]) -> None:
        """Serialize ``state``, a nested dict of CPU tensors and plain values."""
        content = serialized(state)
        self._kept[epoch] = hashlib.sha256(content).hexdigest()
        if self.folder is None:
            self._memory[epoch] = content
            return
        with atomic_path(self._path(epoch)) as temporary:
            temporary.write_bytes(content)

    def read(self, epoch: int) -> bytes:
        """The serialized snapshot of ``epoch``.

        Raises:
            CheckpointError: it is absent or damaged.
        """
        if self.folder is None:
            return self._memory[epoch]
        path = self._path(epoch)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise CheckpointError(f"{path}, which the resume point needs, is absent") from None
        if hashlib.sha256(content).hexdigest() != self._kept[epoch]:
            raise CheckpointError(f"{path} is damaged (checksum)")
        return content

    def _path(self, epoch: int) -> Path:
        assert self.folder is not None
        return self.folder / f"snapshot{epoch}.pt"

    def kept(self) -> list[int]:
        """The epochs that are kept so far, ascending."""
        return sorted(self._kept)

    def state(self) -> dict[int, str]:
        """SHA-256 of each snapshot so far."""
        return dict(self._kept)

    def restore(self, state: Mapping[int, str]) -> None:
        """Take over what :meth:`state` returned.

        Raises:
            CheckpointError: a snapshot is absent or damaged.
        """
        self._kept = dict(state)
        for epoch in self._kept:
            self.read(epoch)


def resumable(entry: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """What a snapshot says beside weights and states, so that a step can be taken from it.

    Args:
        entry: of the optimizer, ``{"name", "class", "settings"}``.
        settings: of the training.
    """
    kept = ("batch_size", "clip_norm", "label_smoothing", "epochs")
    return {
        "optimizer_entry": {
            "class": entry["class"],
            "settings": plain(entry.get("settings") or {}),
        },
        "training": {name: getattr(settings, name) for name in kept},
    }


def serialized(state: dict[str, Any]) -> bytes:
    """What ``torch.save`` writes of ``state``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def on_cpu(value: Any) -> Any:
    """A copy of nested dicts and lists whose tensors lie on the CPU and share no memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_cpu(item) for item in value)
    return value
