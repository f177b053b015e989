"""A learning rate that falls where the validation score stops improving."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from equiscape.metric import Metric
from equiscape.optim.schedules import Plan, warm
from equiscape.settings import Above, Below, Fraction, NonNegative, NonNegativeInt


@dataclass(frozen=True)
class Plateau:
    """``torch.optim.lr_scheduler.ReduceLROnPlateau`` on the validation score.

    The score's metric says which direction is better. A score counts as an improvement where it is
    better than the best so far by more than ``threshold`` times that best; a NaN never is one.

    Attributes:
        warmup_epochs: length of the linear warm-up, in epochs; may be fractional.
        factor: that the learning rate is multiplied by at each fall.
        patience: epochs without improvement that are put up with; the next one lowers the rate.
        threshold: least relative improvement.
        final_fraction: least part of the learning rate.
    """

    warmup_epochs: NonNegative = 0.0
    factor: Annotated[float, Above(0), Below(1)] = 0.5
    patience: NonNegativeInt = 10
    threshold: NonNegative = 0.0
    final_fraction: Fraction = 0.0
    CONSTRAINTS = (
        ("warmup_epochs <= epochs", "warmup_epochs must not be more than training.epochs"),
    )

    def fraction(self, step: int, plan: Plan, memory: Mapping[str, Any]) -> float:
        """The part of the learning rate that update ``step`` (from 0) uses."""
        rising = warm(step, plan.warmup(self.warmup_epochs))
        return (1.0 if rising is None else rising) * memory.get("scale", 1.0)

    def observe(self, memory: dict[str, Any], epoch: int, score: float, metric: Metric) -> None:
        """Lower the rate once ``patience`` epochs have passed without an improvement."""
        best = memory.get("best")
        sign = 1 if metric.direction == "max" else -1
        needed: Any = None if best is None else best + sign * self.threshold * abs(best)
        if (best is None and score == score) or (best is not None and metric.better(score, needed)):
            memory.update(best=score, since=epoch)
        elif epoch - memory.setdefault("since", 0) > self.patience:
            scale = memory.get("scale", 1.0) * self.factor
            memory.update(scale=max(scale, self.final_fraction), since=epoch)
