"""A constant learning rate after a linear warm-up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from equiscape.optim.schedules import OpenLoop, Plan, warm
from equiscape.settings import Fraction, NonNegative


@dataclass(frozen=True)
class Constant(OpenLoop):
    """``(step + 1) / warmup`` during the warm-up, 1 after it.

    Attributes:
        warmup_epochs: length of the linear warm-up, in epochs; may be fractional.
        final_fraction: accepted beside a cosine's settings in a lower layer, and without effect.
    """

    warmup_epochs: NonNegative = 0.0
    final_fraction: Fraction = 1.0
    CONSTRAINTS = (
        ("warmup_epochs <= epochs", "warmup_epochs must not be more than training.epochs"),
    )

    def fraction(self, step: int, plan: Plan, memory: Mapping[str, Any]) -> float:
        """The part of the learning rate that update ``step`` (from 0) uses."""
        return warm(step, plan.warmup(self.warmup_epochs)) or 1.0
