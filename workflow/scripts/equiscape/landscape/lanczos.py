"""Extreme eigenvalues of a symmetric operator by Lanczos."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from equiscape.landscape.operators import SymmetricOperator

ROUNDING = 10  # residuals below this many units in the last place of the largest are not resolved
SETTLE = 5  # steps after the last change of a wanted pair
KEEPS = 0.7  # share of a vector's length; a projection that leaves more of it need not be repeated
NOISE = 0.03  # length of the random part of a warm start


@dataclass(frozen=True)
class Eigenpairs:
    """Approximate eigenvalues and what they can be trusted for.

    Attributes:
        values: ``[k]`` float64, descending.
        residuals: ``[k]`` float64, ``|A y - theta y|`` of the unit Ritz vectors y from the Lanczos
            recurrence, never less than ``rounding``: an eigenvalue of A lies within the residual
            of theta.
        converged: ``[k]`` bool, residual at most tolerance times ``|theta|``, or at rounding.
        sign_known: ``[k]`` bool, residual below ``|theta|``.
        vectors: ``[k, n]``, unit rows.
    """

    values: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    sign_known: np.ndarray
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
        rounding: smallest residual that the precision of the products resolves.
        copies: ``"searched"`` where the copies of multiple eigenvalues were looked for,
            ``"one a start vector"`` where only as many are sure to be found as there are start
            vectors.
        space: what the basis can be grown in, up to the limit; None after a search for copies.
    """

    leading: Eigenpairs
    trailing: Eigenpairs
    basis: Tensor
    projection: np.ndarray
    ritz_values: np.ndarray
    tolerance: float
    rounding: float
    copies: str
    space: "Krylov | None" = None

    @property
    def iterations(self) -> int:
        """Dimension of the Krylov space: products spent."""
        return self.basis.shape[0]

    def known(self) -> tuple[np.ndarray, Tensor]:
        """The converged pairs of both ends, each once: values ``[k]`` and unit rows ``[k, n]``."""
        ends = [self.leading, self.trailing]
        if len(self.leading.values) + len(self.trailing.values) > self.iterations:
            ends = ends[:1]  # the ends overlap
        values = np.concatenate([end.values[end.converged] for end in ends])
        flags = [torch.from_numpy(end.converged.copy()).to(end.vectors.device) for end in ends]
        vectors = [end.vectors[flag] for end, flag in zip(ends, flags, strict=True)]
        return values, torch.cat(vectors)


class Krylov:
    """A growing block Krylov space with full reorthogonalization, and its Rayleigh-Ritz pairs.

    Everything is kept in units of the first product (a power of two, so nothing is rounded): the
    scale of A does not matter (squares of 1e-25 underflow in float32, those of 1e30 overflow).

    Attributes:
        count: basis vectors so far.
        theta, coordinates: ascending Ritz values ``[count]`` in units, and their coordinates.
        bounds: ``[count]`` residuals of the Ritz pairs by the recurrence, in units.
        drops: for each basis vector, how much ``|(I - P) A (I - P)|_F^2`` fell when it came, in
            units squared.
    """

    def __init__(
        self,
        operator: SymmetricOperator,
        limit: int,
        block: int = 1,
        generator: torch.Generator | None = None,
        start: Tensor | None = None,
    ):
        self.operator = operator
        self.generator = generator
        self.limit = min(limit, operator.size)
        self.epsilon = torch.finfo(operator.dtype).eps
        self.unit = 0.0
        self.count = 0
        self.drops: list[float] = []
        self._basis = torch.empty(
            self.limit, operator.size, dtype=operator.dtype, device=operator.device
        )
        self._projection = np.zeros((self.limit, self.limit))
        self._candidates = gaussian(operator, min(block, self.limit), generator)
        if start is not None:
            given = start.to(self._candidates)[: len(self._candidates)]
            self._candidates = torch.cat([given, self._candidates[len(given) :]])

    @property
    def basis(self) -> Tensor:
        """``[count, n]`` orthonormal rows."""
        return self._basis[: self.count]

    @property
    def projection(self) -> np.ndarray:
        """``[count, count]`` in A's own scale."""
        return self._projection[: self.count, : self.count] * (self.unit or 1.0)

    @property
    def rounding(self) -> float:
        """Smallest residual, in units, that the precision resolves."""
        return ROUNDING * self.epsilon * float(np.abs(self.theta).max())

    def extend(self) -> None:
        """One block step: a product for each vector of the block."""
        basis, start = self._basis, self.count
        floor = self.rounding if start else 0.0
        for candidate in self._candidates[: self.limit - start]:
            basis[self.count] = self._orthonormal(candidate, floor)
            self.count += 1
        images = self.operator(basis[start : self.count])
        if self.unit == 0.0:
            self.unit = power_of_two(images)
        images = images / (self.unit or 1.0)
        along = images @ self.basis.T
        columns = along.T.double().cpu().numpy()
        self._projection[: self.count, start : self.count] = columns
        self._projection[start : self.count, : self.count] = columns.T
        sizes = torch.linalg.vector_norm(images, dim=1, dtype=torch.float64).square().tolist()
        for index, (size, column) in enumerate(zip(sizes, columns.T, strict=True), start):
            # B = (I - P) A (I - P) of the basis before: 2 |B q|^2 - (q^T B q)^2
            self.drops.append(2 * (size - (column[:index] ** 2).sum()) - column[index] ** 2)
        self.theta, self.coordinates = np.linalg.eigh(self._projection[: self.count, : self.count])
        self._candidates = images - along @ self.basis
        # A Q^T = Q^T T + W e^T: the residual of a Ritz pair is W times the end of its coordinates.
        tail = self.coordinates[start:]
        gram = inner(self._candidates, self._candidates)
        self.bounds = np.sqrt(np.maximum((tail * (gram @ tail)).sum(0), 0.0))

    def pairs(self, rows: np.ndarray, tolerance: float) -> Eigenpairs:
        """The Ritz pairs ``rows`` of the ascending order, as given."""
        theta, residuals = self.theta[rows], np.maximum(self.bounds[rows], self.rounding)
        unit = self.unit or 1.0
        coordinates = torch.from_numpy(self.coordinates[:, rows].T.copy()).to(self._basis)
        vectors = coordinates @ self.basis
        return Eigenpairs(
            theta * unit,
            residuals * unit,
            residuals <= np.maximum(tolerance * np.abs(theta), self.rounding),
            residuals < np.abs(theta),
            vectors / vectors.norm(dim=1, keepdim=True),
        )

    def settled(self, rows: np.ndarray, tolerance: float) -> bool:
        """Whether the Ritz pairs ``rows`` have converged, or reached the rounding."""
        allowed = np.maximum(tolerance * np.abs(self.theta[rows]), self.rounding)
        return bool((self.bounds[rows] <= allowed).all())

    def _orthonormal(self, vector: Tensor, floor: float) -> Tensor:
        """``vector [n]`` orthonormalized against the basis.

        What is left below ``floor`` is rounding: a random direction takes its place. A projection
        that leaves most of a vector leaves it orthogonal to working precision (Daniel, Gragg,
        Kaufman & Stewart 1976); any other is repeated, twice at most (Parlett).
        """
        basis, before = self.basis, length_of(vector)
        for _ in range(4):  # one is usual; after a random direction at most two more
            vector = vector - (vector @ basis.T) @ basis
            length = length_of(vector)
            if length <= floor:
                vector = gaussian(self.operator, 1, self.generator)[0]
                before, floor = length_of(vector), 0.0
                continue
            vector = vector / length
            if length > KEEPS * before:
                break
            before, floor = 1.0, 0.0
        return vector


def lanczos(
    operator: SymmetricOperator,
    *,
    leading: int,
    trailing: int = 1,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    block: int = 1,
    copies: bool = False,
    generator: torch.Generator | None = None,
    start: Tensor | None = None,
) -> LanczosResult:
    """Block Lanczos with full reorthogonalization (Golub & Van Loan, section 10.3).

    Starts from Gaussian vectors and goes on until each wanted Ritz pair has converged by its own
    magnitude and none has changed for five more steps (an end of the spectrum that the start
    vector hardly contains shows up late), until ``max_iterations`` basis vectors, or until the
    basis spans the whole space. Where the Krylov space is exhausted early (a multiple of the
    identity, say) it goes on from a new random direction. From a single start vector only one copy
    of a multiple eigenvalue is sure to be found; a ``block`` of p finds p copies, and ``copies``
    starts again from random vectors off the pairs found, until no further copy appears.

    Args:
        operator: A, of size n.
        leading, trailing: how many eigenvalues from the upper and the lower end.
        tolerance: on each residual, relative to its own ``|theta|``.
        max_iterations: largest basis; its memory is ``max_iterations x n``.
        block: vectors a step.
        copies: whether to look for the copies of multiple leading eigenvalues: at least as many
            further products as the first search took.
        generator: CPU generator of the start vectors.
        start: ``[b, n]`` start vectors in place of the first b of the ``block``, such as
            :func:`warm_start` gives.
    """
    krylov = Krylov(operator, max_iterations, block, generator, start)
    enough = min(leading + trailing, operator.size)
    steady, before = 0, None
    while krylov.count < krylov.limit:
        krylov.extend()
        count = krylov.count
        wanted = np.r_[0 : min(trailing, count), max(count - leading, 0) : count]
        values = krylov.theta[wanted]
        allowed = np.maximum(tolerance * np.abs(values), krylov.rounding)
        same = before is not None and len(before) == len(values)
        if count < enough or not krylov.settled(wanted, tolerance):
            steady, before = 0, None
            continue
        if same and (np.abs(values - before) <= allowed).all():
            steady += 1
        else:
            steady, before = 0, values
        if steady == SETTLE:
            break
    count = krylov.count
    first = krylov.pairs(np.arange(count)[::-1][:leading], tolerance)
    last = krylov.pairs(np.arange(min(trailing, count))[::-1], tolerance)
    basis, projection = krylov.basis, krylov.projection
    if copies and leading and krylov.settled(np.arange(count)[::-1][:leading], tolerance):
        first, extra = _with_copies(operator, first, tolerance, max_iterations, generator)
        basis, projection = _joined(operator, basis, projection, extra)
    return LanczosResult(
        first,
        last,
        basis,
        projection,
        scipy.linalg.eigvalsh(projection)[::-1],
        tolerance,
        krylov.rounding * (krylov.unit or 1.0),
        "searched" if copies else "one a start vector",
        None if copies else krylov,
    )


def _with_copies(
    operator: SymmetricOperator,
    found: Eigenpairs,
    tolerance: float,
    max_iterations: int,
    generator: torch.Generator | None,
) -> tuple[Eigenpairs, Tensor]:
    """The leading pairs with the copies that the first start vector did not contain.

    Searches off the pairs found, again and again, until the largest eigenvalue there is below the
    smallest one wanted. Also gives the vectors that came in ``[c, n]``.
    """
    wanted = len(found.values)
    extra = found.vectors[:0]
    while len(found.vectors) < operator.size:
        # What has been found is moved below all that could be missing.
        rest = operator.off(_orthonormal_rows(found.vectors), float(found.values[-1]))
        new = lanczos(
            rest,
            leading=1,
            trailing=0,
            tolerance=tolerance,
            max_iterations=max_iterations,
            generator=generator,
        ).leading
        if new.values[0] <= found.values[wanted - 1] + found.residuals[wanted - 1]:
            break
        extra = torch.cat([extra, new.vectors])
        merged = [
            np.concatenate([getattr(found, key), getattr(new, key)])
            for key in ("values", "residuals", "converged", "sign_known")
        ]
        order = np.argsort(-merged[0], kind="stable")
        vectors = torch.cat([found.vectors, new.vectors])[torch.from_numpy(order)]
        values, residuals, converged, known = (column[order] for column in merged)
        found = Eigenpairs(values, residuals, converged, known, vectors)
    first = slice(wanted)
    values, residuals = found.values[first], found.residuals[first]
    flags = found.converged[first], found.sign_known[first]
    return Eigenpairs(values, residuals, *flags, found.vectors[first]), extra


def _joined(
    operator: SymmetricOperator, basis: Tensor, projection: np.ndarray, extra: Tensor
) -> tuple[Tensor, np.ndarray]:
    """Basis and projection with the directions ``extra [c, n]`` added, a product for each."""
    if not len(extra):
        return basis, projection
    rows = _orthonormal_rows(torch.cat([basis, extra]))[len(basis) :]
    images = operator(rows)
    unit = power_of_two(images) or 1.0
    joined = torch.cat([basis, rows])
    columns = inner(joined, images / unit) * unit
    size = len(joined)
    result = np.zeros((size, size))
    result[: len(basis), : len(basis)] = projection
    result[:, len(basis) :] = columns
    result[len(basis) :, :] = columns.T
    return joined, result


def warm_start(
    operator: SymmetricOperator,
    vectors: Tensor,
    generator: torch.Generator | None = None,
    noise: float = NOISE,
) -> Tensor:
    """``[1, n]``: a start vector from eigenvectors of an operator that is nearly this one.

    The sum of the unit rows ``vectors [k, n]``, the first one weighing most, and a Gaussian vector
    of ``noise`` times its length: what the earlier operator did not have must be in the start
    vector to be found.
    """
    weights = torch.arange(len(vectors), 0, -1).to(vectors)
    known = unit_rows((weights @ vectors)[None].to(operator.device, operator.dtype))
    return known + noise * unit_rows(gaussian(operator, 1, generator))


def gaussian(operator: SymmetricOperator, count: int, generator: torch.Generator | None) -> Tensor:
    """``[count, n]`` standard normal vectors, the same on every device for one generator."""
    return torch.randn(count, operator.size, generator=generator).to(
        device=operator.device, dtype=operator.dtype
    )


def inner(a: Tensor, b: Tensor) -> np.ndarray:
    """``a [k, n]`` times ``b [l, n]`` transposed, ``[k, l]`` float64."""
    return (a @ b.T).double().cpu().numpy()


def length_of(vector: Tensor) -> float:
    """The Euclidean norm, summed in float64."""
    return torch.linalg.vector_norm(vector, dtype=torch.float64).item()


def unit_rows(vectors: Tensor) -> Tensor:
    """Rows of length one whatever their scale; zero rows stay zero."""
    largest = vectors.abs().amax(1, keepdim=True)
    vectors = vectors / torch.where(largest > 0, largest, 1.0)
    norms = vectors.norm(dim=1, keepdim=True)
    return vectors / torch.where(norms > 0, norms, 1.0)


def _orthonormal_rows(vectors: Tensor) -> Tensor:
    return torch.linalg.qr(vectors.T).Q.T


def power_of_two(tensor: Tensor) -> float:
    """The power of two at or below the largest magnitude; 0 for zeros."""
    largest = float(tensor.abs().max())
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest > 0 else 0.0
