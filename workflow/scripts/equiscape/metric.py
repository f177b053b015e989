"""What selection compares; apart from the objectives, so that a selection needs no torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """The figure that selection compares.

    Attributes:
        name: as the field calls it, e.g. ``accuracy``.
        direction: ``"max"`` where higher is better, ``"min"`` where lower is.
        unit: of the score, e.g. ``%``, ``D``, ``meV``; empty for a pure number.
    """

    name: str
    direction: Literal["max", "min"]
    unit: str = ""

    def better(self, a: float, b: float) -> bool:
        """Whether score ``a`` is strictly better than ``b``; a non-finite score never is."""
        if a != a:
            return False
        return b != b or (a > b if self.direction == "max" else a < b)
