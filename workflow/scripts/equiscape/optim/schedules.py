"""Learning-rate schedules, stepped once an optimizer step."""

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from equiscape.errors import ConfigError
from equiscape.registry import call, unknown

SHAPES = ("cosine", "constant")


def schedule(
    optimizer: Optimizer, settings: Mapping[str, Any] | None, steps_per_epoch: int, epochs: int
) -> LambdaLR:
    """A schedule over ``epochs * steps_per_epoch`` steps for all groups of ``optimizer``.

    Args:
        settings: ``name`` (``cosine`` or ``constant``), ``warmup_epochs`` (may be fractional) and
            ``final_fraction`` of the learning rate at the cosine's end; None is ``constant``.

    Raises:
        ConfigError: a key of ``training.schedule`` is unknown or out of range.
    """
    return call(
        _schedule,
        "training.schedule",
        settings or {"name": "constant"},
        optimizer=optimizer,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
    )


def _schedule(
    optimizer: Optimizer,
    steps_per_epoch: int,
    epochs: int,
    name: str = "cosine",
    warmup_epochs: float = 0,
    final_fraction: float = 0.0,
) -> LambdaLR:
    if name not in SHAPES:
        raise unknown(name, SHAPES, "training.schedule.name")
    if not 0 <= warmup_epochs <= epochs:
        raise ConfigError(
            f"training.schedule.warmup_epochs: {warmup_epochs} must lie between 0 and "
            f"training.epochs ({epochs})."
        )
    if not 0 <= final_fraction <= 1:
        raise ConfigError(
            f"training.schedule.final_fraction: {final_fraction} must lie between 0 and 1."
        )
    total = epochs * steps_per_epoch
    warmup = round(warmup_epochs * steps_per_epoch)
    final = final_fraction if name == "cosine" else 1.0
    return LambdaLR(optimizer, lambda step: fraction(step, total, warmup, final))


def fraction(step: int, total: int, warmup: int, final: float) -> float:
    """The part of the learning rate that update number ``step`` (from 0) uses.

    Rises linearly, ``(step + 1) / warmup``, then falls along half a cosine from 1 at ``warmup`` to
    ``final`` at ``total`` (Loshchilov & Hutter 2017, equation 5, without restarts), and stays.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
