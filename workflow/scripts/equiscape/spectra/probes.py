"""What a layer's outputs know of the target: linear probes, and margins of the network's own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equiscape.objectives import Objective

PENALTIES = tuple(10.0**power for power in range(-6, 3))
"""Ridge penalties to choose from, times the mean squared singular value."""


@dataclass(frozen=True)
class Probe:
    """A ridge regression from a layer's outputs to the target.

    Attributes:
        weight: ``[C, outputs]`` float64, on standardized features.
        mean, scale: ``[C]``, of the features.
        offset: ``[outputs]``.
        penalty: that was chosen, relative to the mean squared singular value.
    """

    weight: Tensor
    mean: Tensor
    scale: Tensor
    offset: Tensor
    penalty: float

    def __call__(self, features: Tensor) -> Tensor:
        """``[samples, outputs]`` for ``features [samples, C]``."""
        return (features.double() - self.mean) / self.scale @ self.weight + self.offset


def fit_probe(features: Tensor, outputs: Tensor, penalties: Sequence[float] = PENALTIES) -> Probe:
    """The ridge probe whose penalty has the least generalized cross-validation error.

    ``GCV = |Y - Y_hat|^2 / (n - df)^2`` with df the trace of the hat matrix, the mean included
    (Golub, Heath & Wahba 1979), in closed form from one singular value decomposition.

    Args:
        features: ``[samples, C]``; standardized here, a constant one counts for nothing.
        outputs: ``[samples, outputs]``, what a network's outputs should be.
        penalties: to choose from.
    """
    x, y = features.double(), outputs.double()
    mean, offset = x.mean(0), y.mean(0)
    scale = x.std(0, correction=0)
    scale = torch.where(scale > 1e-6 * x.abs().amax(0).clamp(min=1e-30), scale, torch.inf)
    u, s, vt = torch.linalg.svd((x - mean) / scale, full_matrices=False)
    y = y - offset
    inside, squares = u.T @ y, s.square()
    beyond = y.square().sum() - inside.square().sum()  # what no penalty can reach
    unit = squares.mean().clamp(min=1e-30)
    best, kept = math.inf, penalties[0]
    for penalty in penalties:
        shrink = squares / (squares + penalty * unit)
        left = ((1 - shrink).unsqueeze(1) * inside).square().sum() + beyond
        freedom = len(x) - 1 - shrink.sum()
        error = (left / freedom.square()).item() if freedom > 1e-9 else math.inf
        if error < best:
            best, kept = error, penalty
    weight = vt.T @ ((s / (squares + kept * unit)).unsqueeze(1) * inside)
    return Probe(weight, mean, scale, offset, kept)


def wanted_outputs(objective: Objective, target: Tensor, outputs: int) -> Tensor:
    """``[samples, outputs]``: what a linear probe is fitted to, as many as the network has.

    One-hot classes, the standardized value of a regression, labels as -1 and 1 (0 where unknown).
    """
    described = objective.describe()
    if described["kind"] == "classification":
        return torch.nn.functional.one_hot(target.flatten(), outputs).double()
    if described["kind"] == "regression":
        return ((target.double().flatten() - described["mean"]) / described["std"]).unsqueeze(1)
    return (2 * target.double() - 1).nan_to_num(0.0)


def margins(objective: Objective, output: Tensor, target: Tensor) -> Tensor | None:
    """``[samples]``: the target's logit less the largest other one; of labels ``+-`` the logit.

    Above zero where the network is right. ``[samples * labels]`` for several labels a sample,
    unknown ones left out. None for a regression, which has none.
    """
    kind, output = objective.describe()["kind"], output.double()
    if kind == "classification":
        own = output.gather(1, target.unsqueeze(1)).squeeze(1)
        others = output.scatter(1, target.unsqueeze(1), -math.inf).amax(1)
        return own - others
    if kind == "multilabel":
        known = ~target.double().isnan()
        return ((2 * target.double() - 1) * output)[known]
    return None
