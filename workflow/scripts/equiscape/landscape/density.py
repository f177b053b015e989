"""The density of a whole spectrum by stochastic Lanczos quadrature (Ghorbani et al. 2019)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscape.landscape.lanczos import gaussian, power_of_two, unit_rows
from equiscape.landscape.operators import SymmetricOperator


@dataclass(frozen=True)
class SpectralDensity:
    """Point masses that stand for the eigenvalues: some exact ones, and quadratures of the rest.

    Attributes:
        exact: ``[k]`` float64, eigenvalues that were known; each has the mass 1 / n.
        nodes, weights: ``[probes, steps]`` float64, the quadrature of each probe; the weights of
            one probe add up to (n - k) / n.
        size: n.
    """

    exact: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray
    size: int

    def mean(self, values_exact: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean over the spectrum and its standard error over the probes.

        Args:
            values_exact: ``[k, ...]``, the function at the known eigenvalues.
            values: ``[probes, steps, ...]``, the function at the nodes.
        """
        known = values_exact.sum(0) / self.size
        each = np.einsum("ps,ps...->p...", self.weights, values)
        error = each.std(0, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else each[0] * np.nan
        return known + each.mean(0), error

    def cumulative(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Share of eigenvalues at or below each of ``points [g]``, and its standard error."""
        return self.mean(self.exact[:, None] <= points, self.nodes[..., None] <= points)

    def smooth(self, points: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
        """Density at ``points [g]``, per unit of eigenvalue, and its standard error.

        Each point mass is spread as a Gaussian of standard deviation ``width``.
        """

        def kernel(nodes: np.ndarray) -> np.ndarray:
            z = (nodes[..., None] - points) / width
            return np.exp(-(z**2) / 2) / (width * np.sqrt(2 * np.pi))

        return self.mean(kernel(self.exact), kernel(self.nodes))

    def described(self) -> dict[str, Any]:
        """Plain values: the quadrature, the smoothed density on a grid, the share below thresholds.

        The Gaussian's width is a hundredth of the spectrum's; the thresholds lie closer near zero.
        A standard error is None where one probe alone leaves none.
        """
        ends = np.concatenate([self.exact, self.nodes[self.weights > 0]])
        low, high = float(ends.min()), float(ends.max())
        width = max(high - low, abs(high), 1e-30) / 100
        points = np.linspace(low - 3 * width, high + 3 * width, 201)
        largest = max(abs(low), abs(high), 1e-30)
        thresholds = 1e-3 * largest * np.sinh(np.linspace(-1, 1, 101) * np.arcsinh(1.001e3))
        density, density_error = self.smooth(points, width)
        share, share_error = self.cumulative(thresholds)
        return {
            "probes": len(self.nodes),
            "steps": self.nodes.shape[1],
            "exact": self.exact.tolist(),
            "nodes": self.nodes.tolist(),
            "weights": self.weights.tolist(),
            "width": width,
            "points": points.tolist(),
            "density": density.tolist(),
            "density_standard_error": _finite(density_error),
            "thresholds": thresholds.tolist(),
            "share": share.tolist(),
            "share_standard_error": _finite(share_error),
        }


def _finite(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def spectral_density(
    operator: SymmetricOperator,
    probes: int,
    steps: int,
    *,
    generator: torch.Generator | None = None,
    exact: np.ndarray | None = None,
    vectors: Tensor | None = None,
    block: int = 4,
) -> SpectralDensity:
    """Gauss quadratures of the spectrum as random unit vectors u see it.

    ``steps`` Lanczos steps from u give nodes and weights with
    ``sum w f(node) = u^T f(A) u`` for every polynomial f of degree below ``2 steps``; the mean over
    u, uniform on the sphere, is ``tr f(A) / n``. Eigenpairs that are known take their part exactly,
    and u is drawn off them, so that outliers add nothing to the error.

    Args:
        operator: A, of size n.
        probes: random vectors; the standard error needs at least 2.
        steps: Lanczos steps a probe, one product each.
        generator: CPU generator of the probes.
        exact: ``[k]`` known eigenvalues.
        vectors: ``[k, n]`` their orthonormal eigenvectors.
        block: probes at once, which share one linearization; memory is ``block x steps x n``.
    """
    exact = np.zeros(0) if exact is None else np.asarray(exact, dtype=np.float64)
    known = None if vectors is None or not len(vectors) else vectors
    steps = min(steps, operator.size - len(exact))
    nodes: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    while len(nodes) < probes:
        start = gaussian(operator, min(block, probes - len(nodes)), generator)
        alpha, beta = _tridiagonal(operator, _off(start, known), steps, known)
        for a, b in zip(alpha, beta, strict=True):
            values, coordinates = np.linalg.eigh(np.diag(a) + np.diag(b, 1) + np.diag(b, -1))
            nodes.append(values)
            weights.append(coordinates[0] ** 2 * (operator.size - len(exact)) / operator.size)
    return SpectralDensity(exact, np.array(nodes), np.array(weights), operator.size)


def _tridiagonal(
    operator: SymmetricOperator, start: Tensor, steps: int, known: Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Lanczos from each row of ``start [p, n]``: ``alpha [p, steps]``, ``beta [p, steps - 1]``."""
    count = len(start)
    basis = torch.zeros(steps, *start.shape, dtype=start.dtype, device=start.device)
    alpha, beta = np.zeros((count, steps)), np.zeros((count, steps - 1))
    epsilon = torch.finfo(start.dtype).eps
    vector, unit = unit_rows(start), 0.0
    for step in range(steps):
        basis[step] = vector
        image = _off(operator(vector), known)
        unit = unit or power_of_two(image)
        image = image / (unit or 1.0)
        alpha[:, step] = (image * vector).sum(1).double().cpu().numpy()
        if step + 1 == steps:
            break
        for _ in range(2):
            inside = torch.einsum("spn,pn->sp", basis[: step + 1], image)
            image = image - torch.einsum("sp,spn->pn", inside, basis[: step + 1])
        norms = image.double().norm(dim=1).cpu().numpy()
        largest = np.abs(alpha[:, : step + 1]).max(1) + beta.max(1)
        # What is left below rounding ends this probe's quadrature: it is exact already.
        norms[norms <= 10 * epsilon * largest] = 0
        beta[:, step] = norms
        keep = torch.from_numpy(norms > 0).to(image.device)[:, None]
        vector = torch.where(keep, unit_rows(image), 0.0)
    return alpha * (unit or 1.0), beta * (unit or 1.0)


def _off(vectors: Tensor, known: Tensor | None) -> Tensor:
    return vectors if known is None else vectors - (vectors @ known.T) @ known
