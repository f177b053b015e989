"""The bend of a curve of small loss between two networks (Garipov et al. 2018)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from equiscape.data.base import Batch
from equiscape.landscape import paths
from equiscape.task import Task

SHARES = (0.0, 0.5, 1.0)  # of the way from the midpoint to where the steps ended


def learn_bend(
    task: Task,
    model: nn.Module,
    start: paths.State,
    end: paths.State,
    batch: Callable[[int], Batch],
    held: Sequence[Batch],
    *,
    steps: int,
    lr: float,
    seed: int,
    places: int = 7,
) -> paths.State:
    """The bend of a quadratic Bezier curve of small training loss (section 3.2 of the paper).

    From the midpoint, at which the curve is the line; t is uniform, and the bend's gradient is
    ``2 t (1 - t)`` times the loss's. A step of Adam has one length for every parameter, so the rate
    of each tensor is taken relative to how far apart its ends are, and it falls to zero along half
    a cosine. The curve returned is the best of three, on ``held`` and by the largest loss: with the
    bend where the steps ended, half as far, and none. So it is not above the line there.

    Batch norms use their batch's statistics, since the points of a curve have none of their own,
    and dropout is off. The network is left as it was.

    Args:
        task: gives the loss.
        model: the network; its own parameters are not read.
        start, end: states of the two ends, as ``paths.state_of`` gives them.
        batch: the training batch of a step.
        held: batches that the three curves are compared on.
        steps: gradient steps.
        lr: first step of a tensor, in root mean squares of the difference of its ends.
        seed: of the places t.
        places: points of a curve that are compared, ends included.

    Returns:
        A state: the bend, with the buffers of the midpoint.
    """
    generator = torch.Generator().manual_seed(seed)
    names = [name for name, _ in model.named_parameters()]
    middle = paths.combine([start, end], [0.5, 0.5])
    bend = {name: middle[name].clone().requires_grad_() for name in names}
    rates = {name: lr * (end[name] - start[name]).square().mean().sqrt().item() for name in names}
    optimizer = torch.optim.Adam(
        [{"params": [bend[name]], "lr": rates[name]} for name in names], lr=lr
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))
    )

    def loss(middle: paths.State, t: float, batch: Batch) -> Tensor:
        state = {
            name: (1 - t) ** 2 * start[name] + 2 * t * (1 - t) * middle[name] + t**2 * end[name]
            for name in names
        }
        return task.loss(_Bound(model, state), batch)

    def largest(candidate: paths.State) -> float:
        found = [
            sum(loss(candidate, float(t), batch).item() for batch in held) / len(held)
            for t in np.linspace(0, 1, places)[1:-1]
        ]
        return max(found) if np.isfinite(found).all() else math.inf

    training, dropout = model.training, [m for m in model.modules() if isinstance(m, nn.Dropout)]
    buffers = {name: tensor.clone() for name, tensor in model.named_buffers()}
    model.train()
    for module in dropout:
        module.eval()
    try:
        for step in range(steps):
            optimizer.zero_grad()
            loss(bend, torch.rand((), generator=generator).item(), batch(step)).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            curves = [
                {name: torch.lerp(middle[name], bend[name].detach(), share) for name in names}
                for share in SHARES
            ]
            best = min(curves, key=largest)
    finally:
        model.train(training)
        with torch.no_grad():
            for name, tensor in model.named_buffers():
                tensor.copy_(buffers[name])
    return {**middle, **best}


class _Bound(nn.Module):
    """A network that runs with other parameters than its own."""

    def __init__(self, model: nn.Module, state: paths.State):
        super().__init__()
        self.__dict__["bound"] = (model, state)  # not a submodule: its parameters are not ours
        self.neighborhood = getattr(model, "neighborhood", None)

    def forward(self, *inputs: Any, **keywords: Any) -> Tensor:
        model, state = self.__dict__["bound"]
        return functional_call(model, state, inputs, keywords)
