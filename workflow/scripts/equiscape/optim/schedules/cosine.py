"""Half a cosine after a linear warm-up."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from equiscape.optim.schedules import OpenLoop, Plan, warm
from equiscape.settings import Fraction, NonNegative


@dataclass(frozen=True)
class Cosine(OpenLoop):
    """Loshchilov & Hutter (2017), equation 5, without restarts.

    Rises linearly, ``(step + 1) / warmup``, then falls along half a cosine from 1 at ``warmup`` to
    ``final_fraction`` at the last planned step, and stays there.

    Attributes:
        warmup_epochs: length of the linear warm-up, in epochs; may be fractional.
        final_fraction: of the learning rate at the end.
    """

    warmup_epochs: NonNegative = 0.0
    final_fraction: Fraction = 0.0
    CONSTRAINTS = (
        ("warmup_epochs <= epochs", "warmup_epochs must not be more than training.epochs"),
    )

    def fraction(self, step: int, plan: Plan, memory: Mapping[str, Any]) -> float:
        """The part of the learning rate that update ``step`` (from 0) uses."""
        warmup, final = plan.warmup(self.warmup_epochs), self.final_fraction
        if (rising := warm(step, warmup)) is not None:
            return rising
        progress = min(1.0, (step - warmup) / max(1, plan.steps - warmup))
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
