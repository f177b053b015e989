"""Recorders observe a training; what they find joins ``history.csv``, a row an epoch.

A recorder is one class and one line in :data:`equiscape.training.RECORDERS`; its settings are the
keywords of its ``__init__``, and ``training.recorders`` lists it by name, or by a map with ``name``
and settings. It must leave the training as it is: no change to weights, gradients or random states.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from equiscape.errors import ConfigError
from equiscape.registry import call, lookup
from equiscape.training import RECORDERS

if TYPE_CHECKING:
    from equiscape.training.loop import Trainer


class Recorder(Protocol):
    """What a registered recorder has. Its methods are called without gradients being recorded.

    So that a step never waits for the device, keep numbers on it until :meth:`row`.
    """

    def after_backward(self, trainer: "Trainer") -> None:
        """The parameters hold the gradient of the batch's mean loss, not clipped."""
        ...

    def after_update(self, trainer: "Trainer") -> None:
        """The optimizer has changed the parameters; their gradients are still there."""
        ...

    def row(self) -> dict[str, float]:
        """The columns of the epoch that ends, always the same ones; the next epoch begins."""
        ...

    def state(self) -> dict[str, Any]:
        """What the recorder holds of the epoch under way: tensors and plain values."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        ...


class GradientNorm:
    """``gradient_norm``: Euclidean norm of the gradient of the batch's mean loss.

    Taken over all parameters before clipping; the mean over the steps of the epoch.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.steps = 0

    def after_backward(self, trainer: "Trainer") -> None:
        """Add the norm, on the device."""
        gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.total = norm if self.total is None else self.total + norm
        self.steps += 1

    def after_update(self, trainer: "Trainer") -> None:
        """Nothing to record."""

    def row(self) -> dict[str, float]:
        """The mean over the steps of the epoch."""
        mean = float("nan") if self.total is None else self.total.item() / self.steps
        self.total, self.steps = None, 0
        return {"gradient_norm": mean}

    def state(self) -> dict[str, Any]:
        """The sum so far and its number of terms."""
        return {"total": self.total, "steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.total, self.steps = state["total"], state["steps"]


def build_all(
    registry: Mapping[str, str], entries: Iterable[str | Mapping[str, Any]], key: str
) -> dict[str, Any]:
    """What ``entries`` name, in their order, by name.

    Raises:
        ConfigError: a name or a setting is unknown, or a name is listed twice.
    """
    built = {}
    for i, entry in enumerate(entries):
        settings = {"name": entry} if isinstance(entry, str) else dict(entry)
        name = settings.pop("name", "")
        cls = lookup(registry, name, f"{key}.{i}")
        if name in built:
            raise ConfigError(f"{key}: {name!r} is listed twice; keep one.")
        built[name] = call(cls, f"{key}.{i} ({name})", settings)
    return built


def build_recorders(entries: Iterable[str | Mapping[str, Any]]) -> dict[str, Recorder]:
    """The recorders that ``training.recorders`` lists."""
    return build_all(RECORDERS, entries, "training.recorders")
