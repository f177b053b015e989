"""A step against the quadratic model of the loss: gain, penalty, angles, the edge of stability."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.operators import SymmetricOperator
from equiscape.optim.frozen import Frozen


@dataclass(frozen=True)
class Step:
    """What ``theta <- theta - D`` does to the loss, with g and H at theta.

    Attributes:
        gain: ``<g, D>``, what the loss falls by to first order.
        penalty: ``<D, H D> / 2``, what curvature takes of it.
        change: the loss after the step less that before it; to second order
            ``penalty - gain``.
    """

    gain: float
    penalty: float
    change: float

    @property
    def rho(self) -> float:
        """``penalty / gain``: the quadratic model rises iff it is above 1. NaN without gain."""
        return self.penalty / self.gain if self.gain > 0 else math.nan


def measure_step(objective: TrainingLoss, loss: float, gradient: Tensor, step: Tensor) -> Step:
    """The step ``D [n]`` at an objective whose ``loss`` and ``gradient [n]`` are known.

    One product, and the loss at one more point.
    """
    image = objective.operator(step[None])[0]
    after = objective.value_at(objective.vector() - step)
    return Step(dot(gradient, step), dot(step, image) / 2, after - loss)


def angle(a: Tensor, b: Tensor) -> float:
    """The angle between two vectors in degrees, from 0 to 180; NaN where one is zero."""
    a, b = a.double().flatten(), b.double().flatten()
    lengths = a.norm(), b.norm()
    if not (lengths[0] and lengths[1]):
        return math.nan
    a, b = a / lengths[0], b / lengths[1]
    # by the half angle, which keeps its digits near 0 and 180
    return math.degrees(2 * math.atan2((a - b).norm().item(), (a + b).norm().item()))


def share_in(vectors: Tensor, vector: Tensor) -> float:
    """``|V v|^2 / |v|^2``: the part of ``vector [n]`` in the span of orthonormal rows ``[k, n]``.

    NaN where the vector is zero.
    """
    size = dot(vector, vector)
    inside = vectors.double() @ vector.double()
    return min(1.0, dot(inside, inside) / size) if size else math.nan


def dot(a: Tensor, b: Tensor) -> float:
    """``<a, b>`` in float64."""
    return (a.double() @ b.double()).item()


def preconditioned(
    objective: TrainingLoss, maps: Mapping[str, Frozen]
) -> tuple[SymmetricOperator, list[float]]:
    """H in the geometry of an optimizer with frozen second moments, by its stability threshold.

    ``R (H + C) R`` with ``R = P^-1/2 / threshold^1/2``, C the L2 penalty: its largest eigenvalue
    reaches 1 where the optimizer starts to diverge on the quadratic model (see
    :mod:`equiscape.optim.frozen`), also with several thresholds in one network.

    Args:
        objective: the loss.
        maps: name of a parameter -> its linear map. The others are left out: they stand still.

    Returns:
        The operator on all n parameters, and the thresholds that occur, ascending.
    """
    scales = {name: frozen.threshold**-0.5 for name, frozen in maps.items()}

    def root(vectors: Tensor) -> Tensor:
        rows = []
        for vector in vectors:
            parts = objective.split_vector(vector)
            rows.append(
                objective.flatten(
                    [
                        scales[name] * maps[name].root(part.double()) if name in maps else None
                        for name, part in zip(objective.names, parts, strict=True)
                    ]
                )
            )
        return torch.stack(rows).to(vectors.dtype)

    ones = [
        torch.full_like(p, maps[name].penalty if name in maps else 0.0)
        for name, p in zip(objective.names, objective.parameters, strict=True)
    ]
    penalty = objective.flatten(list(ones))

    def apply(vectors: Tensor) -> Tensor:
        inner = root(vectors)
        return root(objective.operator(inner) + penalty * inner)

    operator = replace(objective.operator, apply=apply, products=0)
    return operator, sorted({frozen.threshold for frozen in maps.values()})
