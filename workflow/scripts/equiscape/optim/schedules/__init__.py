"""Learning-rate schedules: one small class each, stepped once an optimizer step.

A schedule is a frozen dataclass of its settings (``training.schedule`` without ``name``) with

* ``fraction(step, plan, memory)``: the part of the learning rate that update ``step`` uses, from 0;
* ``observe(memory, epoch, score, metric)``: called after each evaluation with the validation
  score; a schedule that reacts to it keeps what it must know in ``memory``, a dict of plain values.

Importing this package imports no torch, so that the workflow can check a schedule cheaply.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from equiscape.metric import Metric
from equiscape.registry import lookup
from equiscape.settings import check, declaration_of

SCHEDULES = {
    "constant": "equiscape.optim.schedules.constant:Constant",
    "cosine": "equiscape.optim.schedules.cosine:Cosine",
    "restarts": "equiscape.optim.schedules.restarts:WarmRestarts",
    "step": "equiscape.optim.schedules.step:Step",
    "wsd": "equiscape.optim.schedules.wsd:WarmupStableDecay",
    "plateau": "equiscape.optim.schedules.plateau:Plateau",
}
KEY = "training.schedule"


@dataclass(frozen=True)
class Plan:
    """How long the training is planned to be."""

    steps_per_epoch: int
    epochs: int

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.epochs * self.steps_per_epoch

    def warmup(self, epochs: float) -> int:
        """Steps of a warm-up of (possibly fractional) ``epochs``."""
        return round(epochs * self.steps_per_epoch)


class Shape(Protocol):
    """What a registered schedule is."""

    warmup_epochs: float

    def fraction(self, step: int, plan: Plan, memory: Mapping[str, Any]) -> float:
        """The part of the learning rate that update ``step`` (from 0) uses."""
        ...

    def observe(self, memory: dict[str, Any], epoch: int, score: float, metric: Metric) -> None:
        """Take note of the validation score of ``epoch`` (from 1)."""
        ...


def read_schedule(settings: Mapping[str, Any] | None, epochs: int, key: str = KEY) -> Shape:
    """The schedule that ``settings`` describe; None is ``constant``, without ``name`` ``cosine``.

    Raises:
        ConfigError: the name or a setting is unknown or out of range.
    """
    chosen = {"name": "constant"} if settings is None else dict(settings)
    name = chosen.pop("name", "cosine")
    cls = lookup(SCHEDULES, name, f"{key}.name")
    context = {"epochs": epochs}
    checked = check(chosen, declaration_of(cls), key, context=context)
    return cls(**checked)


class Schedule:
    """A shape applied to every parameter group of an optimizer.

    Args:
        optimizer: a ``torch.optim.Optimizer``; its groups' learning rates are set at once.
        shape: see :func:`read_schedule`.
        steps_per_epoch, epochs: of the planned training.
    """

    def __init__(self, optimizer: Any, shape: Shape, steps_per_epoch: int, epochs: int):
        self.optimizer, self.shape = optimizer, shape
        self.plan = Plan(steps_per_epoch, epochs)
        self.taken = 0  # steps
        self.memory: dict[str, Any] = {}
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self._apply()

    def _apply(self) -> None:
        fraction = self.shape.fraction(self.taken, self.plan, self.memory)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * fraction

    def step(self) -> None:
        """Set the learning rate of the next update; call it after every one."""
        self.taken += 1
        self._apply()

    def observe(self, epoch: int, score: float, metric: Metric) -> None:
        """Take note of a validation score; call it after every evaluation."""
        self.shape.observe(self.memory, epoch, score, metric)
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """All that the next learning rates depend on beside the settings."""
        return {"taken": self.taken, "memory": dict(self.memory)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.taken, self.memory = state["taken"], dict(state["memory"])
        self._apply()


def schedule(
    optimizer: Any, settings: Mapping[str, Any] | None, steps_per_epoch: int, epochs: int
) -> Schedule:
    """The schedule of ``settings`` over ``epochs * steps_per_epoch`` steps of ``optimizer``.

    Raises:
        ConfigError: a key of ``training.schedule`` is unknown or out of range.
    """
    return Schedule(optimizer, read_schedule(settings, epochs), steps_per_epoch, epochs)


def warm(step: int, steps: int) -> float | None:
    """``(step + 1) / steps`` during a linear warm-up of that many steps, None after it."""
    return (step + 1) / steps if step < steps else None


class OpenLoop:
    """Base of the schedules that do not look at scores."""

    def observe(self, memory: dict[str, Any], epoch: int, score: float, metric: Metric) -> None:
        """Nothing to note."""
