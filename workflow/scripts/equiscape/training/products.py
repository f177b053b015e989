"""A recorder of what a training costs, whatever the machine: its matrix products."""

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from equiscape.training.loop import Trainer


class Counter(TorchDispatchMode):
    """Multiplications and additions of the matrix products while it is entered.

    By torch's own formulas, which count 2 n m k for a product of n x m with m x k. Eigenvalues and
    elementwise operations are not among them.
    """

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry

        super().__init__()
        self.formulas = flop_registry
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet is torch.ops.aten.addmm_:
            packet = torch.ops.aten.addmm
        elif packet is torch.ops.aten.baddbmm_:
            packet = torch.ops.aten.baddbmm
        if packet in self.formulas:
            self.total += self.formulas[packet](*args, **(kwargs or {}), out_val=out)
        return out


class Products:
    """``products``: multiplications and additions in the matrix products of an epoch's steps.

    Those of the gradient are counted on one batch of the training split, without augmentation,
    on a copy of the network, and taken for every sample of an epoch; those of the optimizer on the
    first step of each epoch, and taken for every step. Evaluation is not
    among them.
    """

    def __init__(self) -> None:
        self.per_epoch: float | None = None  # of all samples' gradients
        self.per_step: float | None = None  # of the optimizer
        self.steps = 0
        self._counter: Counter | None = None

    def after_backward(self, trainer: "Trainer") -> None:
        """Count the gradient's once, and begin with the optimizer's."""
        if self.per_epoch is None:
            self.per_epoch = _per_sample(trainer) * trainer.task.dataset.size("train")
        if self.per_step is None:
            self._counter = Counter()
            self._counter.__enter__()

    def after_update(self, trainer: "Trainer") -> None:
        """The optimizer's are counted."""
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.per_step, self._counter = float(self._counter.total), None
        self.steps += 1

    def row(self) -> dict[str, float]:
        """The products of the epoch that ends."""
        total = (self.per_epoch or 0.0) + (self.per_step or 0.0) * self.steps
        self.per_step, self.steps = None, 0
        return {"products": total}

    def state(self) -> dict[str, Any]:
        """What is counted so far."""
        return {"per_epoch": self.per_epoch, "per_step": self.per_step, "steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.per_epoch, self.per_step = state["per_epoch"], state["per_step"]
        self.steps = state["steps"]


def _per_sample(trainer: "Trainer") -> float:
    """Products of a training gradient, by the samples of its batch."""
    task, size = trainer.task, trainer.settings.batch_size
    devices = [task.device] if task.device.type == "cuda" else []
    batch = task.batch("train", task.plan("train", size)[0])
    model = deepcopy(trainer.model)
    with torch.random.fork_rng(devices=devices), torch.enable_grad(), Counter() as counter:
        task.loss(model, batch, trainer.settings.label_smoothing).backward()
    return counter.total / batch.size
