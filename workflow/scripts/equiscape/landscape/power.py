"""Plain power iteration, the published way to the eigenvalue of largest magnitude."""

from dataclasses import dataclass

import torch
from torch import Tensor

from equiscape.landscape.lanczos import gaussian, inner, power_of_two, unit_rows
from equiscape.landscape.operators import SymmetricOperator


@dataclass(frozen=True)
class PowerResult:
    """The eigenvalue of largest magnitude.

    Attributes:
        value: the Rayleigh quotient.
        residual: ``|A y - value y|``.
        iterations: products spent.
        converged: residual at most tolerance times the dominant magnitude.
        vector: ``[n]``, unit.
    """

    value: float
    residual: float
    iterations: int
    converged: bool
    vector: Tensor


def power_iteration(
    operator: SymmetricOperator,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    shift: float = 0.0,
    generator: torch.Generator | None = None,
) -> PowerResult:
    """Power iteration on ``A - shift I``: its eigenvalue of largest magnitude, given for A.

    Shifted by the dominant eigenvalue it finds the opposite end of the spectrum. It stops at a
    residual of ``tolerance`` relative to the dominant magnitude, or after ``max_iterations``.
    """
    vector = unit_rows(gaussian(operator, 1, generator))
    for iteration in range(1, max_iterations + 1):
        image = operator(vector)
        unit = power_of_two(image) or 1.0
        image = image / unit
        value = inner(vector, image).item()
        residual = (image - value * vector).double().norm().item()
        converged = residual <= tolerance * max(abs(value), abs(value - shift / unit))
        if converged or iteration == max_iterations:
            break
        vector = unit_rows(image - (shift / unit) * vector)
    return PowerResult(value * unit, residual * unit, iteration, converged, vector[0])
