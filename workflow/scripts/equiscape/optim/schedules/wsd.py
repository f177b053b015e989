"""Warm-up, stable, decay."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from equiscape.optim.schedules import OpenLoop, Plan, warm
from equiscape.settings import Fraction, NonNegative


@dataclass(frozen=True)
class WarmupStableDecay(OpenLoop):
    """Hu et al. (2024, MiniCPM), with the linear decay of Hagele et al. (2024).

    Rises linearly, ``(step + 1) / warmup``, stays at 1, and over the last ``decay_fraction`` of all
    planned steps falls linearly to ``final_fraction``.

    Attributes:
        warmup_epochs: length of the linear warm-up, in epochs; may be fractional.
        decay_fraction: of all steps, at the end.
        final_fraction: of the learning rate at the end.
    """

    warmup_epochs: NonNegative = 0.0
    decay_fraction: Fraction = 0.2
    final_fraction: Fraction = 0.0
    CONSTRAINTS = (
        ("warmup_epochs <= epochs", "warmup_epochs must not be more than training.epochs"),
        (
            "warmup_epochs + decay_fraction * epochs <= epochs",
            "warmup_epochs and the decay_fraction of training.epochs must not overlap",
        ),
    )

    def fraction(self, step: int, plan: Plan, memory: Mapping[str, Any]) -> float:
        """The part of the learning rate that update ``step`` (from 0) uses."""
        warmup = plan.warmup(self.warmup_epochs)
        decay = min(round(self.decay_fraction * plan.steps), plan.steps - warmup)
        if (rising := warm(step, warmup)) is not None:
            return rising
        left = plan.steps - step
        if left >= decay or not decay:
            return 1.0
        return self.final_fraction + (1 - self.final_fraction) * max(0, left) / decay
