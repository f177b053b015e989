"""A snapshot as a point of its training: weights, optimizer and the step that would come next."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equiscape.analyses.subject import Checkpoint
from equiscape.checkpoint import fill, read
from equiscape.errors import CheckpointError
from equiscape.landscape.identities import ModeLoss
from equiscape.landscape.objective import TrainingLoss
from equiscape.optim import build_optimizer
from equiscape.optim.frozen import Frozen, active, frozen_maps, radii
from equiscape.task import Task
from equiscape.training.batches import batch_statistics

MOMENTA = ("momentum_buffer", "exp_avg", "momentum")
"""What optimizers call their average of gradients."""


@dataclass
class Snapshot:
    """A network after an epoch, with the optimizer as it was.

    Attributes:
        model: as it was kept, in eval mode; an optimizer that averages its iterates keeps the
            average.
        optimizer: over the parameters of ``shadow``, in float64, at the learning rates of the
            last step (of the first one ahead of training), without weight decay that is decoupled.
        shadow: a copy of the network in float64, at the weights that the optimizer takes its
            gradients at.
        lr: of the optimizer's first group.
        training: settings of the training.
        epoch: after how many.
        entry: what the optimizer is built from: ``class``, ``settings``, ``lr``, ``wd``.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    shadow: nn.Module
    lr: float
    training: Mapping[str, Any]
    epoch: int
    entry: Mapping[str, Any]

    @classmethod
    def load(cls, task: Task, checkpoint: Checkpoint) -> "Snapshot":
        """The snapshot in a checkpoint's file.

        Raises:
            CheckpointError: as ``task.restore``; or the file is of a version that did not keep what
                a step depends on.
        """
        state = read(checkpoint.path, map_location=task.device)
        return cls.of(task, state, checkpoint.path)

    @classmethod
    def of(cls, task: Task, state: Mapping[str, Any], path: str | Path) -> "Snapshot":
        """The snapshot with a file's content."""
        if "optimizer_entry" not in state:
            raise CheckpointError(
                f"{path} does not say how its optimizer was built, as snapshots of earlier "
                "versions; rerun its cell with --forcerun."
            )
        model = fill(task.build(seed=0), state, path)
        shadow = deepcopy(model).double()
        cell = state["cell"]
        entry = {**state["optimizer_entry"], "lr": cell["lr"], "wd": cell["wd"]}
        optimizer = _rebuilt(shadow, entry, state["optimizer_state"])
        groups = optimizer.param_groups
        first = groups[0].get("initial_lr", groups[0]["lr"])
        for group in groups:
            group["lr"] = group.get("initial_lr", group["lr"]) * (state["lr"] / first)
        if hasattr(optimizer, "train"):  # from the average to where gradients are taken
            optimizer.train()
        return cls(model, optimizer, shadow, state["lr"], state["training"], state["epoch"], entry)

    @property
    def averages(self) -> bool:
        """Whether the kept weights are an average and gradients are taken elsewhere."""
        return hasattr(self.optimizer, "train")

    def objective(
        self, task: Task, mode: str, samples: int | None, batch_size: int, **arguments: Any
    ) -> TrainingLoss:
        """The loss at :attr:`shadow`.

        In mode ``train`` as it is trained: with label smoothing, and where the network has batch
        statistics with those of batches of the training's size, of which the samples are then a
        whole number. Without augmentation and dropout. In mode ``eval`` without any of it.
        """
        statistics = mode == "train" and bool(batch_statistics(self.shadow))
        if statistics:
            batch_size = min(self.training["batch_size"], task.dataset.size("train"))
            samples = task.dataset.size("train") if samples is None else samples
            samples = max(1, min(samples, task.dataset.size("train")) // batch_size) * batch_size
        return ModeLoss(
            task,
            self.shadow,
            training=statistics,
            label_smoothing=self.training["label_smoothing"] if mode == "train" else 0.0,
            samples=samples,
            batch_size=batch_size,
            **arguments,
        )

    def step(self, objective: TrainingLoss, gradient: Tensor) -> Tensor:
        """``[n]``: what the optimizer's next step, given this gradient, takes off the weights.

        From its state as it was kept; clipped as in training; decoupled weight decay left out. The
        optimizer of this snapshot stays as it is.
        """
        model = deepcopy(self.shadow)
        optimizer = _rebuilt(model, self.entry, self.optimizer.state_dict())
        for group in optimizer.param_groups:
            if not _penalizes(optimizer):
                group["weight_decay"] = 0.0
        parts = dict(zip(objective.names, objective.split_vector(gradient.double()), strict=True))
        parameters = dict(model.named_parameters())
        before = {name: p.detach().clone() for name, p in parameters.items()}
        for name, p in parameters.items():
            unused = name not in parts or name in objective.without_gradient
            p.grad = None if unused else parts[name].clone()
        if self.training["clip_norm"] is not None:
            nn.utils.clip_grad_norm_(model.parameters(), self.training["clip_norm"])
        optimizer.step()
        return objective.flatten([before[n] - parameters[n].detach() for n in objective.names])

    @cached_property
    def names(self) -> dict[Tensor, str]:
        """Parameter of the shadow -> its name."""
        return {p: name for name, p in self.shadow.named_parameters()}

    def maps(self) -> dict[str, Frozen]:
        """The linear map of every parameter that has one, see :mod:`equiscape.optim.frozen`."""
        return {self.names[p]: found for p, found in frozen_maps(self.optimizer).items()}

    def radii(self) -> dict[str, tuple[float, int]]:
        """Of every matrix with polar steps: spectral norm by the learning rate, and its blocks."""
        return {self.names[p]: found for p, found in radii(self.optimizer).items()}

    def momenta(self) -> dict[str, Tensor]:
        """The average of gradients of every parameter whose optimizer keeps one."""
        found = {}
        for p, state in active(self.optimizer).state.items():
            for name in MOMENTA:
                if name in state:
                    found[self.names[p]] = state[name].reshape(p.shape)
        return found


def _rebuilt(
    model: nn.Module, entry: Mapping[str, Any], state: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """An optimizer over ``model`` with a copy of ``state``."""
    optimizer, _ = build_optimizer(model, entry, entry["lr"], entry["wd"])
    optimizer.load_state_dict(deepcopy(dict(state)))
    return optimizer


def _penalizes(optimizer: Any) -> bool:
    """Whether weight decay is part of the gradient, as for ``sgd``."""
    return isinstance(active(optimizer), torch.optim.SGD)
