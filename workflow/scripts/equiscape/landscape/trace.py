"""The trace of an operator known by its products: Hutchinson's estimator, plain and deflated."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from equiscape.landscape.lanczos import LanczosResult
from equiscape.landscape.objective import SymmetricOperator


@dataclass(frozen=True)
class TraceEstimate:
    """An unbiased estimate.

    Attributes:
        value: of the trace.
        standard_error: of ``value``, from the spread of the samples.
        probes: random vectors, one product each.
        deflated: dimension of the subspace whose share of the trace is exact.
    """

    value: float
    standard_error: float
    probes: int
    deflated: int


def hutchinson(
    operator: SymmetricOperator,
    probes: int,
    *,
    generator: torch.Generator | None = None,
    krylov: LanczosResult | None = None,
    tolerance: float | None = None,
    block: int = 8,
) -> TraceEstimate:
    """Mean of ``z^T A z`` over Rademacher vectors z (Hutchinson 1989).

    The variance of a sample is ``2 (|A|_F^2 - sum A_ii^2)``: a few outlier eigenvalues make up
    nearly all of it. Given the Krylov basis Q of a Lanczos run, with ``P = Q^T Q``,

        tr A = tr(Q A Q^T) + tr((I - P) A (I - P)),

    whose first term is known exactly and costs nothing, and the second has lost its outliers. The
    estimate stays unbiased because the probes are drawn independently of Q. (Hutch++, Meyer et
    al. 2021, is the same split with a basis from products spent for that alone.)

    Args:
        operator: A.
        probes: how many, at least 2; with ``tolerance`` the largest number.
        generator: CPU generator of the probes.
        krylov: a Lanczos run on the same operator.
        tolerance: stop at this standard error relative to ``|value|``, after 8 probes or more.
        block: probes applied at once, which share one linearisation.
    """
    exact = 0.0 if krylov is None else float(krylov.projection.trace())
    samples: list[float] = []
    while len(samples) < probes:
        count = min(block, probes - len(samples))
        z = rademacher(operator, count, generator)
        if krylov is not None:
            z = z - (z @ krylov.basis.T) @ krylov.basis
        samples += (z.double() * operator(z).double()).sum(1).tolist()
        value, error = _mean(samples)
        if tolerance is not None and len(samples) >= 8 and error <= tolerance * abs(exact + value):
            break
    deflated = 0 if krylov is None else krylov.basis.shape[0]
    return TraceEstimate(exact + value, error, len(samples), deflated)


def rademacher(
    operator: SymmetricOperator, count: int, generator: torch.Generator | None
) -> Tensor:
    """``[count, n]`` entries +1 and -1 with equal probability, the same on every device."""
    bits = torch.randint(0, 2, (count, operator.size), generator=generator, dtype=torch.int8)
    return (2 * bits - 1).to(device=operator.device, dtype=operator.dtype)


def _mean(samples: list[float]) -> tuple[float, float]:
    """Mean and its standard error; NaN for a single sample."""
    mean = math.fsum(samples) / len(samples)
    if len(samples) < 2:
        return mean, math.nan
    variance = math.fsum((s - mean) ** 2 for s in samples) / (len(samples) - 1)
    return mean, math.sqrt(variance / len(samples))
