"""Array operations on many small graphs at once: ranges, neighbor lists, random walks.

A list of graphs is stored flat, the elements of graph g at ``ptr[g]:ptr[g + 1]``. Work goes over
groups of graphs, so that no Python loop runs over single ones.
"""

from collections.abc import Iterator, Sequence

import numpy as np

BLOCK = 2**22  # elements of a dense block of pairs: bounds the memory of preparation
WALKERS = 2**17  # nodes whose walks are taken together, for the same reason


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The concatenation of ``arange(start, start + count)`` over all pairs, as int64."""
    counts = np.asarray(counts, dtype=np.int64)
    before = np.cumsum(counts) - counts
    return np.repeat(np.asarray(starts, dtype=np.int64) - before, counts) + np.arange(counts.sum())


def pointer(counts: np.ndarray | Sequence[int]) -> np.ndarray:
    """``[0, c_0, c_0 + c_1, ...]`` as int64."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def index_type(largest: int) -> type:
    """The smallest unsigned type that holds node indices up to ``largest``."""
    return np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.int64


def blocks_of_size(counts: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(nodes, graphs of exactly that many nodes) in blocks of bounded memory."""
    for nodes in np.unique(counts):
        graphs = np.flatnonzero(counts == nodes)
        step = max(1, BLOCK // max(1, int(nodes) ** 2))
        for first in range(0, len(graphs), step):
            yield int(nodes), graphs[first : first + step]


def radius_edges(
    positions: np.ndarray, node_ptr: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """Neighbor lists of molecules: all ordered pairs closer than ``cutoff``, with self-loops.

    Args:
        positions: ``[N, 3]``.
        node_ptr: ``[n + 1]``.
        cutoff: in the positions' unit; pairs at exactly this distance are left out.

    Returns:
        ``edge_index [2, E]``, rows source and target within their molecule, sorted by target, and
        ``edge_ptr [n + 1]``.
    """
    counts = np.diff(node_ptr)
    edge_counts = np.zeros(len(counts), dtype=np.int64)
    kind = index_type(int(counts.max(initial=0)))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for nodes, graphs in blocks_of_size(counts):
        x = positions[node_ptr[graphs][:, None] + np.arange(nodes)]
        squared = np.zeros((len(graphs), nodes, nodes), dtype=x.dtype)
        for axis in range(3):
            squared += (x[:, :, None, axis] - x[:, None, :, axis]) ** 2
        graph, target, source = np.nonzero(squared < cutoff**2)
        edge_counts[graphs] = np.bincount(graph, minlength=len(graphs))
        found.append((graphs, source.astype(kind), target.astype(kind)))
    edge_ptr = pointer(edge_counts)
    edge_index = np.empty((2, edge_ptr[-1]), dtype=kind)
    for graphs, source, target in found:
        where = ranges(edge_ptr[graphs], edge_counts[graphs])
        edge_index[0, where] = source
        edge_index[1, where] = target
    return edge_index, edge_ptr


def random_walks(
    edge_index: np.ndarray, node_ptr: np.ndarray, edge_ptr: np.ndarray, steps: int
) -> np.ndarray:
    """Return probabilities of random walks on undirected graphs (Dwivedi et al. 2022).

    Column k - 1 is the diagonal of ``(A D^-1)^k``, k = 1 .. ``steps``. As that is similar to the
    symmetric ``S = D^-1/2 A D^-1/2``, and ``diag(S^(a+b))_i = sum_j (S^a)_ij (S^b)_ij``, powers up
    to ``steps / 2`` are enough, in which the graphs of molecules are still sparse.

    Returns:
        ``[N, steps]`` float32; an isolated node never walks, and has zeros.
    """
    from scipy import sparse

    walks = np.zeros((int(node_ptr[-1]), steps), dtype=np.float32)
    first = 0
    while first < len(node_ptr) - 1:
        last = max(first + 1, int(np.searchsorted(node_ptr, node_ptr[first] + WALKERS)) - 1)
        nodes = slice(int(node_ptr[first]), int(node_ptr[last]))
        edges = slice(int(edge_ptr[first]), int(edge_ptr[last]))
        size = nodes.stop - nodes.start
        offset = np.repeat(node_ptr[first:last] - nodes.start, np.diff(edge_ptr[first : last + 1]))
        source, target = edge_index[:, edges].astype(np.int64) + offset
        degree = np.bincount(source, minlength=size)
        weight = 1 / np.sqrt(degree[source] * degree[target])
        step = sparse.csr_array((weight.astype(np.float32), (source, target)), shape=(size, size))
        before, power = sparse.eye_array(size, dtype=np.float32, format="csr"), step
        for k in range(steps):
            walks[nodes, k] = power.multiply(power if k % 2 else before).sum(1)
            if k % 2 and k + 1 < steps:
                before, power = power, power @ step
        first = last
    return walks


def composition(z: np.ndarray, node_ptr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The elements ``[e]`` that occur, and how many atoms of each a molecule has: ``[n, e]``."""
    elements, column = np.unique(z, return_inverse=True)
    counts = np.zeros((len(node_ptr) - 1, len(elements)))
    np.add.at(counts, (np.repeat(np.arange(len(counts)), np.diff(node_ptr)), column), 1)
    return elements, counts


def fitted_references(
    z: np.ndarray,
    node_ptr: np.ndarray,
    targets: np.ndarray,
    train: np.ndarray,
    columns: list[int],
) -> np.ndarray:
    """Least-squares contributions of the elements, summed for each molecule: ``[n, T]``.

    Args:
        z: ``[N]`` atomic numbers.
        node_ptr: ``[n + 1]``.
        targets: ``[n, T]``.
        train: molecules that they are fitted to.
        columns: of the targets that are nearly sums over atoms; the others get zero.
    """
    _, counts = composition(z, node_ptr)
    fit = np.linalg.lstsq(counts[train], targets[np.ix_(train, np.array(columns))], rcond=None)[0]
    baseline = np.zeros_like(targets)
    baseline[:, columns] = counts @ fit
    return baseline


def atom_references(z: np.ndarray, node_ptr: np.ndarray, sums: np.ndarray) -> dict[str, float]:
    """What an atom of each element adds to ``sums [n]`` over molecules, by atomic number.

    The sums determine them by least squares; see ``node_ptr`` in :mod:`equiscape.data.molecules`.
    """
    elements, counts = composition(z, node_ptr)
    fit = np.linalg.lstsq(counts, sums, rcond=None)[0]
    return {str(int(element)): float(value) for element, value in zip(elements, fit)}
