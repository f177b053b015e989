"""A learning rate that falls by a factor every few epochs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from equiscape.optim.schedules import OpenLoop, Plan, warm
from equiscape.settings import Fraction, NonNegative, PositiveInt


@dataclass(frozen=True)
class Step(OpenLoop):
    """``factor ** (epoch // every_epochs)`` with epochs from 0, after a linear warm-up.

    Without a warm-up it is ``torch.optim.lr_scheduler.StepLR``, stepped once an epoch.

    Attributes:
        warmup_epochs: length of the linear warm-up, in epochs; may be fractional.
        every_epochs: epochs between two falls, counted from the beginning of the training.
        factor: that the learning rate is multiplied by at each.
        final_fraction: least part of the learning rate.
    """

    warmup_epochs: NonNegative = 0.0
    every_epochs: PositiveInt = 20
    factor: Fraction = 0.7
    final_fraction: Fraction = 0.0
    CONSTRAINTS = (
        ("warmup_epochs <= epochs", "warmup_epochs must not be more than training.epochs"),
    )

    def fraction(self, step: int, plan: Plan, memory: Mapping[str, Any]) -> float:
        """The part of the learning rate that update ``step`` (from 0) uses."""
        if (rising := warm(step, plan.warmup(self.warmup_epochs))) is not None:
            return rising
        falls = step // (self.every_epochs * plan.steps_per_epoch)
        return max(self.factor**falls, self.final_fraction)
