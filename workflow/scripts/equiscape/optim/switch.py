"""From one optimizer to another in the course of a training, as an intervention."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from equiscape.settings import Fraction, NonNegative, Positive


class Switch(Optimizer):
    """The first optimizer up to a fraction of the training, then the second with fresh state.

    Both have the same learning rate, weight decay and schedule, which runs on unbroken; a
    ``lr_ratio`` makes the second's learning rates that many times the first's.

    Args:
        params: the network; each optimizer takes the parameters that it would take alone.
        lr: learning rate.
        weight_decay: of both.
        first, second: ``{class: name, settings: {...}}`` as an entry of ``optimizers``.
        at: the fraction of all steps that the first one takes, rounded to a whole step.
        lr_ratio: of the second's learning rates by the first's.

    Raises:
        ConfigError: one of them is unknown, or a setting of it.
    """

    composes = True  # is made from a network
    NESTED = ("first", "second")  # settings that are entries of optimizers

    def __init__(
        self,
        params: nn.Module,
        lr: NonNegative,
        weight_decay: NonNegative,
        first: Mapping[str, Any],
        second: Mapping[str, Any],
        at: Fraction = 0.5,
        lr_ratio: Positive = 1.0,
    ):
        from equiscape.optim import build_optimizer

        if not 0 <= at <= 1:
            raise ValueError(f"at {at} must lie between 0 and 1")
        if not 0 < lr_ratio < float("inf"):
            raise ValueError(f"lr_ratio {lr_ratio} must be positive")
        rates = (lr, lr * lr_ratio)
        built = [
            build_optimizer(params, entry, rate, weight_decay)
            for entry, rate in zip((first, second), rates)
        ]
        self.parts = [optimizer for optimizer, _ in built]
        self.split = {
            f"{name}: {algorithm}": names
            for name, (_, split) in zip(self.NESTED, built)
            for algorithm, names in split.items()
        }
        self.at, self.steps = at, 0
        self.last: int | None = None
        super().__init__([{"params": list(params.parameters())}], {})
        self._join()

    def _join(self) -> None:
        """One list of groups, so that a schedule sets the learning rates of both."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def plan(self, steps: int) -> None:
        """Say how many steps the whole training has."""
        self.last = round(self.at * steps)

    @property
    def active(self) -> Optimizer:
        """The one that takes the next step.

        Raises:
            RuntimeError: :meth:`plan` was not called.
        """
        if self.last is None:
            raise RuntimeError("call plan(steps) of the optimizer before its step")
        return self.parts[self.steps >= self.last]

    def step(self, closure: Callable | None = None):
        """A step of the active one; returns the ``closure``'s loss, if any."""
        active = self.active
        self.steps += 1
        return active.step(closure)

    def state_dict(self) -> dict[str, Any]:
        """The states of both, and the number of steps."""
        return {
            "parts": [part.state_dict() for part in self.parts],
            "steps": self.steps,
            "last": self.last,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        for part, state in zip(self.parts, state_dict["parts"]):
            part.load_state_dict(state)
        self.steps, self.last = state_dict["steps"], state_dict["last"]
        self._join()
