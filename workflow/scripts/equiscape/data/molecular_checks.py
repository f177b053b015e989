"""Checks of molecular sources where they enter: lengths, ranges and what belongs to one molecule.

Each raises a :class:`~equiscape.errors.DataError` that names the file and, where there is one, the
molecule. What passes cannot read another molecule's rows, shift targets, or wrap round a type.
"""

from pathlib import Path
from typing import Any

import numpy as np

from equiscape.errors import DataError
from equiscape.files.arrays import Malformed, whole


def fault(path: Path | str, what: str) -> DataError:
    """The error for a file that is not what it should be."""
    return DataError(f"{path} {what}; fetch it again.")


def integers(
    path: Path, array: Any, what: str, low: int | None = None, high: int | None = None
) -> np.ndarray:
    """``array`` as int64, whole numbers from ``low`` to ``high``."""
    try:
        return whole(np.asarray(array), what, low, high)
    except (Malformed, ValueError, TypeError) as error:
        raise fault(path, f"cannot be right: {error}") from None


def pointers(path: Path, array: Any, total: int, what: str) -> np.ndarray:
    """``[n + 1]`` int64 from 0 to ``total`` that never decrease."""
    ptr = integers(path, array, what, 0, total)
    if ptr.ndim != 1 or len(ptr) < 2 or ptr[0] != 0 or ptr[-1] != total or (np.diff(ptr) < 0).any():
        raise fault(path, f"has {what} that do not lead from 0 to the {total} rows there are")
    return ptr


def floats(path: Path, array: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """``array`` as finite floats of a certain shape."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiu" or array.shape != shape:
        raise fault(path, f"has {what} of shape {list(array.shape)} instead of {list(shape)}")
    finite = np.isfinite(array).reshape(len(array), -1).all(1) if len(array) else np.ones(0, bool)
    if not finite.all():
        raise fault(path, f"has {what} that are not finite in row {int(np.argmin(finite))}")
    return array


def bonds(
    path: Path,
    edge_index: Any,
    kinds: np.ndarray,
    node_ptr: np.ndarray,
    edge_ptr: np.ndarray,
) -> np.ndarray:
    """``[2, E]`` int64 indices of undirected bonds, each within its own molecule.

    Args:
        path: for messages.
        edge_index: ``[2, E]``, within each molecule.
        kinds: ``[E]`` types of the bonds, the same in both directions.
        node_ptr, edge_ptr: ``[n + 1]``.
    """
    edges = integers(path, edge_index, "edge indices")
    if edges.shape != (2, len(kinds)):
        raise fault(path, f"has edges of shape {list(edges.shape)} instead of [2, {len(kinds)}]")
    per_graph = np.diff(edge_ptr)
    owner = np.repeat(np.arange(len(per_graph)), per_graph)
    bad = ((edges < 0) | (edges >= np.diff(node_ptr)[owner])).any(0)
    if bad.any():
        edge = int(np.argmax(bad))
        raise fault(
            path,
            f"has an edge {edges[0, edge]} - {edges[1, edge]} in molecule {owner[edge]}, "
            f"which has {np.diff(node_ptr)[owner[edge]]} atoms",
        )
    source, target = edges + node_ptr[:-1][owner]
    total = int(node_ptr[-1])
    there, back = (source * total + target) * 256 + kinds, (target * total + source) * 256 + kinds
    there.sort()
    repeated = there[1:] // 256 == there[:-1] // 256
    if repeated.any():
        atom = int(there[1:][np.argmax(repeated)] // 256 // total)
        raise fault(path, f"has a bond twice in molecule {_owner(node_ptr, atom)}")
    back.sort()
    if not np.array_equal(there, back):
        atom = int(there[np.argmax(there != back)] // 256 // total)
        raise fault(
            path,
            f"has a bond that differs in its two directions in molecule {_owner(node_ptr, atom)}",
        )
    return edges


def _owner(node_ptr: np.ndarray, atom: int) -> int:
    return int(np.searchsorted(node_ptr, atom, side="right")) - 1


def indices(path: Path, array: Any, total: int, what: str) -> np.ndarray:
    """``[n]`` int64, each from 0 below ``total`` and named once; n is not 0."""
    array = np.asarray(array)
    if array.ndim != 1 or not len(array):
        raise fault(path, f"has {what} of shape {list(array.shape)} instead of one row of indices")
    found = integers(path, array, what, 0, total - 1)
    if len(np.unique(found)) < len(found):
        values, counts = np.unique(found, return_counts=True)
        raise fault(path, f"names {values[np.argmax(counts > 1)]} twice in {what}")
    return found
