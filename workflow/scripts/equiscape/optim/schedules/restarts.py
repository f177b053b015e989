"""Half a cosine over and over, each time from the full learning rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from equiscape.optim.schedules import Plan
from equiscape.optim.schedules.cosine import Cosine
from equiscape.settings import PositiveInt


@dataclass(frozen=True)
class WarmRestarts(Cosine):
    """Loshchilov & Hutter (2017) with restarts, in cycles of equal length.

    Each cycle is a :class:`~equiscape.optim.schedules.cosine.Cosine` with its own warm-up; steps
    that are left over where the cycles do not divide the training belong to the last one.

    Attributes:
        cycles: how many.
    """

    cycles: PositiveInt = 2

    def fraction(self, step: int, plan: Plan, memory: Mapping[str, Any]) -> float:
        """The part of the learning rate that update ``step`` (from 0) uses."""
        length = max(1, plan.steps // self.cycles)
        cycle = min(step // length, self.cycles - 1)
        last = cycle == self.cycles - 1
        own = Plan(1, plan.steps - cycle * length if last else length)
        warmup = plan.warmup(self.warmup_epochs)
        return Cosine(warmup, self.final_fraction).fraction(step - cycle * length, own, memory)
