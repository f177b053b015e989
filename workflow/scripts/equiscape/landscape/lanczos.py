"""Extreme eigenvalues of a symmetric operator: Lanczos, and plain power iteration beside it."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from equiscape.landscape.objective import SymmetricOperator


@dataclass(frozen=True)
class Eigenpairs:
    """Approximate eigenvalues and what they can be trusted for.

    Attributes:
        values: ``[k]`` float64, descending.
        residuals: ``[k]`` float64, ``|A y - theta y|`` of the unit Ritz vectors y, from products
            of their own: an eigenvalue of A lies within the residual of theta.
        converged: ``[k]`` bool, residual at most tolerance times the largest ``|theta|``.
        vectors: ``[k, n]``, unit rows.
    """

    values: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    vectors: Tensor


@dataclass(frozen=True)
class LanczosResult:
    """Both ends of a spectrum, and the Krylov basis they were found in.

    Attributes:
        leading: largest eigenvalues, descending.
        trailing: smallest eigenvalues, descending, so the smallest comes last.
        basis: ``[m, n]`` orthonormal rows Q.
        projection: ``[m, m]`` float64, ``Q A Q^T``.
        ritz_values: ``[m]`` float64 eigenvalues of the projection, descending.
        tolerance: what convergence was judged by.
    """

    leading: Eigenpairs
    trailing: Eigenpairs
    basis: Tensor
    projection: np.ndarray
    ritz_values: np.ndarray
    tolerance: float

    @property
    def iterations(self) -> int:
        """Dimension of the Krylov space: products spent without the residuals."""
        return self.basis.shape[0]


def lanczos(
    operator: SymmetricOperator,
    *,
    leading: int,
    trailing: int = 1,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    block: int = 1,
    generator: torch.Generator | None = None,
) -> LanczosResult:
    """Block Lanczos with full reorthogonalisation (Golub & Van Loan, section 10.3).

    Starts from Gaussian vectors and stops when the wanted Ritz pairs have converged, after
    ``max_iterations`` basis vectors, or when the basis spans the whole space. Where the Krylov
    space is exhausted early (a multiple of the identity, say) it goes on from a new random
    direction. From a single start vector only one copy of a multiple eigenvalue is sure to be
    found; a ``block`` of p finds p copies.

    Args:
        operator: A, of size n.
        leading, trailing: how many eigenvalues from the upper and the lower end.
        tolerance: on the residual, relative to the largest ``|theta|``.
        max_iterations: largest basis; its memory is ``max_iterations x n``.
        block: vectors a step.
        generator: CPU generator of the start vectors.
    """
    n, limit = operator.size, min(max_iterations, operator.size)
    basis = torch.empty(limit, n, dtype=operator.dtype, device=operator.device)
    projection = np.zeros((limit, limit))
    epsilon = torch.finfo(operator.dtype).eps
    candidates = gaussian(operator, min(block, limit), generator)
    count, scale = 0, 0.0
    while True:
        added = 0
        for candidate in candidates[: limit - count]:
            floor = 100 * epsilon * scale
            basis[count + added] = _orthonormal(
                candidate, basis[: count + added], floor, operator, generator
            )
            added += 1
        images = operator(basis[count : count + added])
        count += added
        columns = _inner(basis[:count], images)
        projection[:count, count - added : count] = columns
        projection[count - added : count, :count] = columns.T
        theta, s = scipy.linalg.eigh(projection[:count, :count])
        scale = float(np.abs(theta).max())
        candidates = images - (basis[:count].T @ (basis[:count] @ images.T)).T
        # A Q^T = Q^T T + W e^T: the residual of a Ritz pair is W times the end of its coordinates.
        tail = s[-added:]
        bounds = np.sqrt(np.einsum("ai,ab,bi->i", tail, _inner(candidates, candidates), tail))
        wanted = np.r_[0 : min(trailing, count), max(count - leading, 0) : count]
        enough = count >= min(leading + trailing, n)
        if count == limit or (enough and (bounds[wanted] <= tolerance * scale).all()):
            break
    theta, s = theta[::-1], s[:, ::-1]
    basis, projection = basis[:count], projection[:count, :count]
    ends = [np.arange(min(leading, count)), np.arange(max(count - trailing, 0), count)]
    rows = np.unique(np.concatenate(ends))
    coordinates = torch.from_numpy(s[:, rows].T.copy()).to(basis)
    vectors = torch.nn.functional.normalize(coordinates @ basis, dim=1)
    residuals = _residuals(operator, vectors, theta[rows])
    pairs = []
    for end in ends:
        index = np.searchsorted(rows, end)
        pairs.append(
            Eigenpairs(
                theta[end], residuals[index], residuals[index] <= tolerance * scale, vectors[index]
            )
        )
    return LanczosResult(*pairs, basis, projection, theta, tolerance)


@dataclass(frozen=True)
class PowerResult:
    """The eigenvalue of largest magnitude.

    Attributes:
        value: the Rayleigh quotient.
        residual: ``|A y - value y|``.
        iterations: products spent.
        converged: residual at most tolerance times ``|value|``.
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
    vector = torch.nn.functional.normalize(gaussian(operator, 1, generator), dim=1)
    for iteration in range(1, max_iterations + 1):
        image = operator(vector)
        value = _inner(vector, image).item()
        residual = (image - value * vector).double().norm().item()
        converged = residual <= tolerance * max(abs(value), abs(value - shift))
        if converged or iteration == max_iterations:
            break
        image = image - shift * vector
        vector = torch.nn.functional.normalize(image, dim=1)
    return PowerResult(value, residual, iteration, converged, vector[0])


def gaussian(operator: SymmetricOperator, count: int, generator: torch.Generator | None) -> Tensor:
    """``[count, n]`` standard normal vectors, the same on every device for one generator."""
    return torch.randn(count, operator.size, generator=generator).to(
        device=operator.device, dtype=operator.dtype
    )


def _orthonormal(
    vector: Tensor,
    basis: Tensor,
    floor: float,
    operator: SymmetricOperator,
    generator: torch.Generator | None,
) -> Tensor:
    """``vector [n]`` orthonormalised against ``basis [m, n]``.

    What is left below ``floor`` is rounding: a random direction takes its place.
    """
    vector = vector - basis.T @ (basis @ vector)
    if vector.double().norm().item() <= floor:
        vector = gaussian(operator, 1, generator)[0]
        vector = vector - basis.T @ (basis @ vector)
    for _ in range(2):  # twice is enough (Parlett): orthogonal to working precision
        vector = vector / vector.norm()
        vector = vector - basis.T @ (basis @ vector)
    return vector / vector.norm()


def _inner(a: Tensor, b: Tensor) -> np.ndarray:
    """``a [k, n]`` times ``b [l, n]`` transposed, ``[k, l]`` float64."""
    return (a @ b.T).double().cpu().numpy()


def _residuals(operator: SymmetricOperator, vectors: Tensor, values: np.ndarray) -> np.ndarray:
    images = operator(vectors)
    theta = torch.from_numpy(values.copy()).to(vectors)[:, None]
    return (images - theta * vectors).double().norm(dim=1).cpu().numpy()
