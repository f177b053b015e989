"""How many directions of parameter space are exactly flat because of declared symmetries.

The rank of the generators' span at a point, over all parameters or over those that are free. The
generators are a sparse matrix, a row an entry of a parameter and a column a coefficient, of which
this takes the rank parameter by parameter: within one, columns fall into small groups that share
entries; a singular value decomposition of a group gives its rank there and the combinations that
leave the parameter as it is, which go on to the next one. No matrix over all parameters is made.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array, csc_array, hstack
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.func import vmap

from equiscape.symmetries import Continuous

LARGEST = 2**28
"""Entries of generators without a pattern (2 GB) beyond which a declared dimension is taken."""
CHUNK = 2**22
TINY, RELATIVE = 1e-12, 1e-9
"""Of columns of unit length: an entry that is rounding, and a singular value that is."""
Columns = dict[str, csc_array]


@dataclass(frozen=True)
class Flat:
    """A number of flat directions.

    Attributes:
        count: of the directions.
        exact: False where a symmetry was too large and its declared dimension was added, which is
            an upper bound where it shares directions with others.
    """

    count: int
    exact: bool = True


def flat_directions(
    state: Mapping[str, Tensor], symmetries: Sequence[Continuous], frozen: Iterable[str] = ()
) -> Flat:
    """The dimension of the span of the symmetries' generators at a point.

    Args:
        state: parameters and buffers by name.
        symmetries: that hold exactly there; see :func:`equiscape.landscape.identities.applicable`.
        frozen: names of parameters that stand still: combinations that move one do not count.
    """
    state = {n: t.detach().cpu() for n, t in state.items()}
    state = {n: t.double() if t.is_floating_point() else t for n, t in state.items()}
    found, declared = [], 0
    for symmetry in symmetries:
        columns = generators(symmetry, state)
        if columns is None:
            declared += symmetry.dimension
        else:
            found.append(columns)
    parts = _normalized(_beside(found))
    held = [name for name in parts if name in set(frozen)]
    parts, _ = _eliminated(parts, held)
    _, rank = _eliminated(parts, list(parts))
    return Flat(rank + declared, exact=not declared)


def generators(symmetry: Continuous, state: Mapping[str, Tensor]) -> Columns | None:
    """Name of a parameter -> ``[entries, coefficients]``; None where that is too large.

    An entry that one coefficient moves alone is found from three directions: all coefficients 1,
    their numbers, and random ones that tell whether it is so. Else every coefficient has its turn.
    """
    size = math.prod(symmetry.shape)
    random = torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probes = [torch.ones_like(random), 1.0 + torch.arange(size).double(), 1.0 + random]
    ones, numbers, randoms = (symmetry.generator(state, p.view(symmetry.shape)) for p in probes)
    found: Columns = {}
    for name in symmetry.parameters:
        moved = ones[name].flatten()
        place = torch.where(moved == 0, 1.0, numbers[name].flatten() / moved).round() - 1
        place = place.clamp(0, size - 1).long()
        off = [
            (part[name].flatten() - moved * probe[place]).abs()
            for part, probe in ((numbers, probes[1]), (randoms, probes[2]))
        ]
        if all(bool((o <= 1e-9 * moved.abs() * p[place]).all()) for o, p in zip(off, probes[1:])):
            rows = moved.nonzero().flatten().numpy()
            entries = moved.numpy()[rows], (rows, place.numpy()[rows])
            found[name] = csc_array(coo_array(entries, shape=(len(moved), size)))
    rest = [name for name in symmetry.parameters if name not in found]
    if sum(state[name].numel() for name in rest) * size > LARGEST:
        return None
    return found | _each(symmetry, state, rest, size)


def _each(
    symmetry: Continuous, state: Mapping[str, Tensor], names: Sequence[str], size: int
) -> Columns:
    """The columns of some parameters, one after the other."""
    if not names:
        return {}

    def generator(coefficients: Tensor) -> list[Tensor]:
        tangent = symmetry.generator(state, coefficients)
        return [tangent[name].flatten() for name in names]

    entries = sum(state[name].numel() for name in symmetry.parameters)
    chunk = max(1, CHUNK // entries)
    pieces: dict[str, list] = {name: [] for name in names}
    for start in range(0, size, chunk):
        count = min(chunk, size - start)
        units = torch.zeros(count, size, dtype=torch.float64)
        units[torch.arange(count), start + torch.arange(count)] = 1
        for name, part in zip(names, vmap(generator)(units.view(count, *symmetry.shape))):
            pieces[name].append(csc_array(part.numpy().T))
    return {name: csc_array(hstack(parts)) for name, parts in pieces.items()}


def _beside(found: Sequence[Columns]) -> Columns:
    """The columns of all symmetries in one matrix a parameter."""
    sizes = [next(iter(columns.values())).shape[1] for columns in found]
    heights = {name: part.shape[0] for columns in found for name, part in columns.items()}
    return {
        name: csc_array(
            hstack(
                [
                    columns.get(name, csc_array((height, size)))
                    for columns, size in zip(found, sizes, strict=True)
                ]
            )
        )
        for name, height in heights.items()
    }


def _normalized(parts: Columns) -> Columns:
    """Columns of length 1 over all parameters; those that move nothing are left out."""
    if not parts:
        return parts
    squares = np.sum([np.asarray(part.power(2).sum(axis=0)) for part in parts.values()], axis=0)
    kept = squares > 0
    scale = csc_array(coo_array((squares[kept] ** -0.5, (np.arange(kept.sum()),) * 2)))
    return {name: csc_array(part[:, kept] @ scale) for name, part in parts.items()}


def _eliminated(parts: Columns, names: Sequence[str]) -> tuple[Columns, int]:
    """The rank over some parameters, and what is left of the other ones.

    That is the columns of all combinations that leave those parameters as they are. Places of
    columns stay; those of combinations that are no more are empty.
    """
    parts, left, rank = dict(parts), list(names), 0
    groups = {name: _groups(parts[name]) for name in left}
    while left:
        name = min(left, key=lambda n: (max(map(len, groups[n]), default=0), parts[n].nnz))
        left.remove(name)
        part, own = parts.pop(name), groups.pop(name)
        if not own:
            continue
        kept, gained = _combinations(part, own)
        rank += gained
        touched = np.zeros(part.shape[1], dtype=bool)
        touched[np.concatenate(own)] = True
        for other, matrix in parts.items():
            if touched[_used(matrix)].any():
                parts[other] = _rounded(csc_array(matrix @ kept))
                if other in groups:
                    groups[other] = _groups(parts[other])
    return parts, rank


def _used(part: csc_array) -> np.ndarray:
    """The columns that hold an entry."""
    return np.flatnonzero(np.diff(part.indptr))


def _groups(part: csc_array) -> list[np.ndarray]:
    """The columns of a parameter that share entries with each other, group by group."""
    columns = _used(part)
    if np.bincount(part.indices, minlength=1).max() <= 1:
        return list(columns[:, None])
    column = np.repeat(np.arange(len(columns)), np.diff(part.indptr)[columns])
    size = len(columns) + part.shape[0]
    ends = column, len(columns) + part.indices
    graph = coo_array((np.ones(part.nnz), ends), shape=(size, size))
    label = connected_components(graph, directed=False)[1][: len(columns)]
    order = np.argsort(label, kind="stable")
    return np.split(columns[order], np.flatnonzero(np.diff(label[order])) + 1)


def _combinations(part: csc_array, groups: Sequence[np.ndarray]) -> tuple[csc_array, int]:
    """``[columns, columns]``: combinations that leave a parameter as it is, and its rank.

    Orthonormal in each group, at the places of its first columns.
    """
    entries, rank = [], 0
    untouched = np.setdiff1d(np.arange(part.shape[1]), np.concatenate(groups))
    lengths = np.sqrt(np.asarray(part.power(2).sum(axis=0)))
    alone = np.array([group[0] for group in groups if len(group) == 1], dtype=int)
    rank += int((lengths[alone] > RELATIVE).sum())
    same = np.concatenate([untouched, alone[lengths[alone] <= RELATIVE]])
    entries.append((same, same, np.ones(len(same))))
    for group in groups:
        if len(group) == 1:
            continue
        own = part[:, group]
        rows = np.zeros(part.shape[0], dtype=bool)
        rows[own.indices] = True
        dense = own[rows].toarray()
        if len(dense) > len(group):
            dense = np.linalg.qr(dense, mode="r")
        _, values, right = np.linalg.svd(dense)
        independent = int((values > RELATIVE).sum())
        rank += independent
        null = right[independent:].T
        i, j = np.indices(null.shape)
        entries.append((group[i.ravel()], group[j.ravel()], null.ravel()))
    row, column, value = (np.concatenate(parts) for parts in zip(*entries))
    return csc_array(coo_array((value, (row, column)), shape=(part.shape[1],) * 2)), rank


def _rounded(part: csc_array) -> csc_array:
    """Without entries that are rounding."""
    part.data[np.abs(part.data) < TINY] = 0
    part.eliminate_zeros()
    return part
