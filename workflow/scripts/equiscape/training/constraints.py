"""Constraints act on the weights after each epoch, ahead of its evaluation.

A constraint is one class and one line in :data:`equiscape.training.CONSTRAINTS`; its settings are
the keywords of its ``__init__``, and ``training.constraints`` lists it by name, or by a map with
``name`` and settings. Applied in the order of the list, without gradients being recorded.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from equiscape.training import CONSTRAINTS
from equiscape.training.recorders import build_all

if TYPE_CHECKING:
    from equiscape.training.loop import Trainer


class Constraint(Protocol):
    """What a registered constraint has."""

    def apply(self, trainer: "Trainer") -> None:
        """Change ``trainer.model``'s weights in place, at the end of epoch ``trainer.epoch + 1``.

        What it does may depend on the trainer's task, optimizer, epoch and weights alone, and on
        random numbers of a generator of its own seed, so that a resumed cell does the same.
        """
        ...


def build_constraints(entries: Iterable[str | Mapping[str, Any]]) -> dict[str, Constraint]:
    """The constraints that ``training.constraints`` lists."""
    return build_all(CONSTRAINTS, entries, "training.constraints")
