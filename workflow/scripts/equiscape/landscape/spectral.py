"""Sharpness in the geometry of Muon: the largest curvature of a step of bounded spectral norm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscape.landscape.lanczos import gaussian
from equiscape.landscape.operators import SymmetricOperator

PATIENCE = 3


@dataclass(frozen=True)
class SpectralSharpness:
    """A lower bound on ``max <D, A D>`` over matrices ``|D_i|_op <= r_i``.

    Attributes:
        value: at the best start.
        gap: what first-order optimality leaves there, ``sum r_i |(A D + c D)_i|_nuclear -
            <D, (A + c) D>``: zero where D is stationary.
        converged: the value rose by less than the tolerance in three steps on end.
        products: spent on all starts.
        starts: value of each start.
        direction: ``[n]``, the best D.
    """

    value: float
    gap: float
    converged: bool
    products: int
    starts: tuple[float, ...]
    direction: Tensor


def spectral_sharpness(
    operator: SymmetricOperator,
    shapes: Sequence[tuple[int, int]],
    radii: Sequence[float],
    *,
    gradient: Tensor | None = None,
    starts: int = 2,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    generator: torch.Generator | None = None,
) -> SpectralSharpness:
    """``S = max <D, A D>`` by steps ``D_i <- r_i polar((A D)_i + c D_i)``.

    The generalized sharpness of Islamov et al. (arXiv 2603.05002) for the norm
    ``max_i |D_i|_op / r_i``. Extreme points of the ball are ``r_i`` times matrices with orthonormal
    rows or columns, all of one Frobenius norm, so c changes no maximum, and from some c on (the
    most negative curvature) no step can lower the value. c starts at 0 and grows where one does,
    for a large c is slow.

    Args:
        operator: A over the matrices, flattened one after the other.
        shapes: ``(rows, columns)`` of each matrix.
        radii: r_i of each.
        gradient: ``[n]``, the first start; further ones are Gaussian. Maxima are local, so the
            best start is a lower bound.
        starts: how many.
        tolerance: on the relative rise in a step.
        max_iterations: steps a start, one product each.
        generator: CPU generator of the random starts.
    """
    before = operator.products
    best: Any = None  # a SpectralSharpness from the first start on
    values = []
    for start in range(starts):
        if start == 0 and gradient is not None:
            first = gradient
        else:
            first = gaussian(operator, 1, generator)[0]
        found = _ascend(operator, shapes, radii, first, tolerance, max_iterations)
        values.append(found[0])
        if best is None or found[0] > best.value:
            best = SpectralSharpness(*found[:3], 0, (), found[3])
    return SpectralSharpness(
        best.value,
        best.gap,
        best.converged,
        operator.products - before,
        tuple(values),
        best.direction,
    )


def polar(matrix: Tensor) -> tuple[Tensor, float]:
    """The nearest matrix with orthonormal rows or columns, and the nuclear norm; in float64."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (u @ vh).to(matrix), s.sum().item()


def _ascend(
    operator: SymmetricOperator,
    shapes: Sequence[tuple[int, int]],
    radii: Sequence[float],
    start: Tensor,
    tolerance: float,
    limit: int,
) -> tuple[float, float, bool, Tensor]:
    direction, _ = _extreme(start, shapes, radii)
    size = (direction.double() @ direction.double()).item()
    image = operator(direction[None])[0]
    value = _dot(direction, image)
    shift, calm = 0.0, 0
    for _ in range(limit - 1):
        trial, _ = _extreme(image + shift * direction, shapes, radii)
        trial_image = operator(trial[None])[0]
        trial_value = _dot(trial, trial_image)
        rise = trial_value - value
        if rise < -1e-12 * abs(value):
            # A larger shift stays nearer; from -lambda_min on it cannot fall.
            shift = max(2 * shift, abs(value) / size, abs(rise) / size)
            calm = 0
            continue
        calm = calm + 1 if rise <= tolerance * abs(trial_value) else 0
        direction, image, value = trial, trial_image, trial_value
        if calm == PATIENCE:
            break
    _, bound = _extreme(image + shift * direction, shapes, radii)
    return value, max(0.0, bound - value - shift * size), calm == PATIENCE, direction


def _extreme(
    vector: Tensor, shapes: Sequence[tuple[int, int]], radii: Sequence[float]
) -> tuple[Tensor, float]:
    """The extreme point of the ball that has the largest product with ``vector``; the product."""
    parts, total = [], 0.0
    sizes = [int(np.prod(shape)) for shape in shapes]
    for part, shape, radius in zip(vector.split(sizes), shapes, radii, strict=True):
        unitary, nuclear = polar(part.view(shape))
        parts.append(radius * unitary.flatten())
        total += radius * nuclear
    return torch.cat(parts), total


def _dot(a: Tensor, b: Tensor) -> float:
    return (a.double() @ b.double()).item()
