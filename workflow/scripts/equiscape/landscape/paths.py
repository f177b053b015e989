"""Loss and score of a network at many points of its parameter space.

Planes, bands along random directions and paths between two solutions are all sums of a few fixed
states with changing coefficients; they are evaluated here and nowhere else.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from equiscape.data.base import Batch
from equiscape.errors import first_line
from equiscape.task import Task

log = logging.getLogger("equiscape.landscape")

State = Mapping[str, Tensor]
CUDA_POINTS = 16


def along(
    task: Task,
    model: nn.Module,
    batches: Sequence[Batch],
    states: Sequence[State],
    points: np.ndarray,
    *,
    reset: Sequence[Batch] | None = None,
    batch_points: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and score at ``theta_g = sum_j points[g, j] states[j]``, in eval mode.

    Args:
        task: gives loss and score.
        model: the network; its state and mode are as before afterwards.
        batches: the samples; every sample weighs the same.
        states: named tensors, parameters or floating buffers of ``model``; a name that a state
            does not have counts as zero there, one that none has stays what it is in ``model``.
        points: ``[g, len(states)]`` coefficients. A coefficient of 1 beside zeros gives that state
            to the last bit.
        reset: batches from which the statistics of every batch norm are recomputed at each
            point, with dropout off; None leaves them.
        batch_points: points in one forward pass, through ``torch.func.vmap``: memory grows with
            it. None takes 16 on CUDA, where starting kernels is what a small network waits for,
            and 1 on the CPU, where the networks' own layers work in cache-sized pieces and are
            up to four times faster one point at a time. A network that cannot be batched, and any
            with ``reset``, is evaluated one point at a time.

    Returns:
        ``[g]`` losses and ``[g]`` scores, float64; not finite where the network's are not.
    """
    if batch_points is None:
        batch_points = CUDA_POINTS if task.device.type == "cuda" else 1
    loss, score = np.empty(len(points)), np.empty(len(points))
    with restored(model):
        model.eval()
        start = 0
        while start < len(points):
            rows = points[start : start + batch_points]
            try:
                if len(rows) == 1 or reset is not None:
                    rows = rows[:1]
                    found = [_point(task, model, batches, states, rows[0], reset)]
                else:
                    found = _block(task, model, batches, states, rows)
            except RuntimeError as error:
                if len(rows) == 1:
                    raise
                log.info("one point at a time: %s", first_line(error))
                batch_points = 1
                continue
            for index, result in enumerate(found, start):
                loss[index], score[index] = result["loss"], result["score"]
            start += len(rows)
    return loss, score


def line(start: State, end: State, t: np.ndarray) -> tuple[list[State], np.ndarray]:
    """States and coefficients of ``(1 - t) start + t end``, for :func:`along`."""
    return [start, end], np.stack([1 - t, t], axis=1)


def bezier(start: State, bend: State, end: State, t: np.ndarray) -> tuple[list[State], np.ndarray]:
    """The curve ``(1 - t)^2 start + 2 t (1 - t) bend + t^2 end`` (Garipov et al. 2018)."""
    return [start, bend, end], np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=1)


def corners(states: Sequence[State], names: Sequence[str]) -> tuple[float, float, float] | None:
    """Where three states lie in the plane through them: at (0, 0), (d, 0) and (x, y).

    The axes are orthonormal in parameter space (Gram-Schmidt on ``end - start`` and
    ``third - start``; Garipov et al. 2018, section 3.3), so a length is a distance of parameters.

    Args:
        states: start, end and third.
        names: of the parameters that count.

    Returns:
        d, x, y; None where the three lie on a line.
    """
    start, end, third = states

    def difference(state: State) -> Tensor:
        parts = [(state[n].double() - start[n].double()).flatten() for n in names]
        return torch.cat(parts)

    first, other = difference(end), difference(third)
    d, length = first.norm().item(), other.norm().item()
    if d == 0:
        return None
    x = (first @ other).item() / d
    y = (other - first * (x / d)).norm().item()
    return (d, x, y) if y > 1e-6 * max(d, length) else None


def plane(places: tuple[float, float, float], points: np.ndarray) -> np.ndarray:
    """``[g, 3]`` coefficients of three states at points ``[g, 2]`` of their plane.

    Args:
        places: from :func:`corners`.
        points: coordinates (x, y) on its axes.
    """
    d, x, y = places
    beta = points[:, 1] / y
    alpha = (points[:, 0] - beta * x) / d
    return np.stack([1 - alpha - beta, alpha, beta], axis=1)


def state_of(model: nn.Module, buffers: bool = True) -> dict[str, Tensor]:
    """Copies of the parameters and, unless told otherwise, of the floating buffers."""
    state = {name: p.detach().clone() for name, p in model.named_parameters()}
    if buffers:
        state |= {n: b.clone() for n, b in model.named_buffers() if b.is_floating_point()}
    return state


@torch.no_grad()
def combine(
    states: Sequence[State], coefficients: Sequence[float] | np.ndarray
) -> dict[str, Tensor]:
    """``sum_j coefficients[j] states[j]``; a state with coefficient 0 takes no part."""
    total: dict[str, Tensor] = {}
    for state, coefficient in zip(states, coefficients, strict=True):
        for name, tensor in state.items():
            if name not in total:
                total[name] = tensor * coefficient
            elif coefficient:
                total[name].add_(tensor, alpha=float(coefficient))
    return total


@torch.no_grad()
def put(model: nn.Module, state: State) -> None:
    """Copy the tensors of ``state`` into the model's parameters and buffers of these names."""
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in state.items():
        own[name].copy_(tensor)


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """State and modes of ``model`` are after the block what they were before it."""
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        model.load_state_dict(before)
        for module, training in modes:
            module.training = training


@torch.no_grad()
def reset_norms(task: Task, model: nn.Module, batches: Sequence[Batch]) -> None:
    """Statistics of every batch norm from ``batches``, each weighing the same; dropout is off.

    The plain mean over batches, by a momentum of ``1 / (k + 1)`` at batch k.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    kept = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
    try:
        for k, batch in enumerate(batches):
            for norm in norms:
                norm.momentum = 1 / (k + 1)
            task.loss(model, batch)
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.eval()


def _point(
    task: Task,
    model: nn.Module,
    batches: Sequence[Batch],
    states: Sequence[State],
    coefficients: np.ndarray,
    reset: Sequence[Batch] | None,
) -> dict[str, float]:
    put(model, combine(states, coefficients))
    if reset is not None:
        reset_norms(task, model, reset)
    return task.score(model, iter(batches))


class _Output(nn.Module):
    """A task's network as a module of batches, for :func:`functional_call`."""

    def __init__(self, task: Task, model: nn.Module):
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Batch) -> Tensor:
        return self.task.output(self.model, batch)


@torch.no_grad()
def _block(
    task: Task,
    model: nn.Module,
    batches: Sequence[Batch],
    states: Sequence[State],
    points: np.ndarray,
) -> list[dict[str, float]]:
    """Losses and scores of several points from one forward pass a batch of samples."""
    each = [combine(states, row) for row in points]
    stacked = {f"model.{name}": torch.stack([s[name] for s in each]) for name in each[0]}
    network, objective = _Output(task, model), task.dataset.objective
    outputs = [
        vmap(lambda state, b=batch: functional_call(network, state, (b,)))(stacked)
        for batch in batches
    ]
    targets = torch.cat([batch.target for batch in batches])
    total = sum(batch.size for batch in batches)
    found = []
    for g in range(len(points)):
        loss: Any = sum(
            objective.loss(output[g], batch.target).double() * batch.size
            for output, batch in zip(outputs, batches, strict=True)
        )
        score = objective.score(torch.cat([output[g] for output in outputs]), targets)
        found.append({"loss": (loss / total).item(), "score": score})
    return found
