"""Exact k nearest neighbors in batches of clouds, and reductions over them.

The reductions never hold a value for every edge: a sum over neighbors is a product with the sparse
adjacency matrix, a maximum is a selection of winners found in chunks. Both can be differentiated
any number of times.
"""

from collections.abc import Callable, Hashable, Iterator
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from equiscape.errors import ConfigError
from equiscape.ops.chunks import (
    chunk_size,
    differentiated,
    first_maximum,
    transformed,
    upload,
)
from equiscape.ops.precision import full_precision, full_products

LONG, PART = 512, 8  # a row worth to be searched by parts, and the values of a part


class NeighborTables:
    """The neighbors of clouds that never change, searched once for each cloud.

    Args:
        clouds: how many there are.
        limit: bytes of the largest table; above it neighbors are searched each time.
    """

    def __init__(self, clouds: int, limit: int = 2**30):
        self.clouds, self.limit = clouds, limit
        self._tables: dict[tuple[int, bool, torch.dtype], tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def find(
        self, x: Tensor, rows: Tensor, on_device: Tensor, k: int, include_self: bool
    ) -> Tensor:
        """:func:`knn` of some of the clouds.

        Args:
            x: ``[B, points, channels]``, those clouds.
            rows: ``[B]`` which ones, on the CPU, so that the host need not wait for the device.
            on_device: the same on the device of ``x``.
            k, include_self: as in :func:`knn`.
        """
        points = x.shape[1]
        small = torch.int16 if points <= 2**15 else torch.int32
        if self.clouds * points * k * small.itemsize > self.limit:
            return knn(x, k, include_self)
        key = (k, include_self, x.dtype)
        if key not in self._tables:
            table = torch.empty(self.clouds, points, k, dtype=small, device=x.device)
            self._tables[key] = table, torch.zeros(self.clouds, dtype=torch.bool)
        table, known = self._tables[key]
        missing = (~known[rows]).nonzero().squeeze(1)
        if len(missing):
            where = upload(missing, x.device)
            table[on_device[where]] = knn(x[where], k, include_self).to(small)
            known[rows[missing]] = True
        return table[on_device].long()


@torch.no_grad()
def knn(x: Tensor, k: int, include_self: bool) -> Tensor:
    """The ``k`` nearest points of every point, in its own cloud, by Euclidean distance.

    Distances come from differences of coordinates where channels are few (exact to rounding); of
    wide features from ``|x|^2 + |y|^2 - 2 x.y`` of centered clouds, whose absolute error is about
    1e-6 of the cloud's squared radius in float32: pairs closer to a tie than that may swap.
    Exact ties (duplicate points) are broken by the order of the points in memory, in no promised
    way, so only there can a neighborhood depend on that order.

    Args:
        x: ``[clouds, points, channels]``; finite.
        k: neighbors of each point.
        include_self: whether a point counts as its own, and then always first, neighbor, as in
            DGCNN's published graph; a duplicate of it is a neighbor like any other either way.

    Returns:
        ``[clouds, points, k]`` int64 indices into the points of the same cloud, nearest first.

    Raises:
        ConfigError: the clouds have fewer than ``k`` points to choose from.
    """
    _, points, _ = x.shape
    candidates = points if include_self else points - 1
    if k > candidates:
        raise ConfigError(
            f"model.k: {k} neighbors were asked for, but a cloud of {points} points offers "
            f"{candidates}; lower k or give the clouds more points."
        )
    x = full_precision(x)
    x = x - x.mean(1, keepdim=True)
    own = -torch.inf if include_self else torch.inf
    nearest = []
    with full_products(x.device):
        for clouds in x.split(max(1, chunk_size(x.device) // points**2)):
            distance = squared_distances(clouds)
            distance.diagonal(dim1=1, dim2=2).fill_(own)
            nearest.append(smallest(distance, k))
    return torch.cat(nearest)


def smallest(values: Tensor, k: int) -> Tensor:
    """Places of the ``k`` smallest of each last row, ascending: ``[..., n]`` to ``[..., k]``.

    The k smallest lie in those k parts of a row whose minima are smallest. On a CPU torch's own
    search of a long row takes nearly twice as long as that of the minima and then of those parts.
    """
    n = values.shape[-1]
    parts = n // PART
    if values.device.type != "cpu" or n < LONG or n % PART or parts < k or 64 * k <= n:
        return values.topk(k, dim=-1, largest=False).indices
    minima = values.unflatten(-1, (PART, parts)).amin(-2)
    chosen = minima.topk(k, dim=-1, largest=False, sorted=False).indices
    places = (chosen.unsqueeze(-2) + torch.arange(0, n, parts).unsqueeze(1)).flatten(-2)
    among = values.gather(-1, places).topk(k, dim=-1, largest=False).indices
    return places.gather(-1, among)


def squared_distances(x: Tensor) -> Tensor:
    """``[B, N, N]`` squared distances within each cloud of ``[B, N, C]``."""
    if x.shape[2] <= 4:
        total = x.new_zeros(())
        for column in x.unbind(2):
            difference = column.unsqueeze(2) - column.unsqueeze(1)
            total = torch.addcmul(total, difference, difference)
        return total
    squares = x.square().sum(2)
    inner = torch.baddbmm(squares.unsqueeze(1), x, x.mT, alpha=-2)
    return inner.add_(squares.unsqueeze(2))


def ordered_by_source(sources: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Edges ordered by source, and where each source's run starts.

    Args:
        sources: ``[targets, k]``; edges are numbered in its order.
        nodes: how many there may be among the sources.
    """
    ordered, edges = sources.flatten().sort(stable=True)
    return edges, torch.searchsorted(ordered, torch.arange(nodes, device=sources.device))


class Graph:
    """The neighbors of every point of a batch of clouds, all nodes numbered through.

    Args:
        neighbors: ``[clouds, points, k]`` indices within each cloud, as :func:`knn` gives them.

    Attributes:
        sources: ``[nodes, k]`` numbers of the nodes that send to each node.
    """

    def __init__(self, neighbors: Tensor):
        self.clouds, self.points, self.k = neighbors.shape
        self.nodes = self.clouds * self.points
        self._kept: dict[Hashable, Any] = {}
        first = torch.arange(0, self.nodes, self.points, device=neighbors.device)
        self.sources = (neighbors + first.view(-1, 1, 1)).flatten(0, 1)

    @cached_property
    def by_source(self) -> tuple[Tensor, Tensor]:
        """Edges (numbered as in ``sources``) ordered by source; where each source's run starts."""
        return ordered_by_source(self.sources, self.nodes)

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make()`` gave for the key; made once for the graph."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @cached_property
    def targets_by_source(self) -> Tensor:
        """The receiving node of every edge, in the order of ``by_source``."""
        return self.by_source[0] // self.k


def neighbor_sum(x: Tensor, graph: Graph, transposed: bool = False) -> Tensor:
    """``y_i = sum_j x_j`` over the neighbors j of i; transposed, over the i that j sends to.

    ``[nodes, channels]`` to ``[nodes, channels]``.
    """
    if transformed(x) or transformed(graph.sources):
        if not transposed:
            return x[graph.sources].sum(1)
        edges = x.repeat_interleave(graph.k, 0)
        return torch.zeros_like(x).index_add(0, graph.sources.flatten(), edges)
    return _NeighborSum.apply(x, graph, transposed)


class _NeighborSum(Function):
    """Linear, so its derivative is the transposed sum, whose derivative is the sum again."""

    @staticmethod
    def forward(ctx, x: Tensor, graph: Graph, transposed: bool) -> Tensor:
        ctx.graph, ctx.transposed = graph, transposed
        if not transposed:
            return F.embedding_bag(graph.sources, x, mode="sum")
        return F.embedding_bag(graph.targets_by_source, x, graph.by_source[1], mode="sum")

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return neighbor_sum(gradient.contiguous(), ctx.graph, not ctx.transposed), None, None


def neighbor_max(x: Tensor, graph: Graph) -> Tensor:
    """``y_i = max_j x_j`` over the neighbors j of i, each channel of ``[nodes, channels]`` alone.

    The gradient goes to one neighbor, the first of those that tie.
    """
    if transformed(x) or transformed(graph.sources):
        return x[graph.sources].max(1).values
    if not differentiated(x):
        return _maxima(x, graph)
    return x.gather(0, _winners(x, graph))


@torch.no_grad()
def _maxima(x: Tensor, graph: Graph) -> Tensor:
    """``[nodes, channels]`` the maxima themselves."""
    maxima = torch.empty_like(x)
    for sources, values, out in _neighbors_of(x, graph, maxima):
        torch.amax(values.view(*sources.shape, -1), 1, out=out)
    return maxima


@torch.no_grad()
def _winners(x: Tensor, graph: Graph) -> Tensor:
    """``[nodes, channels]`` numbers of the nodes that hold the maxima."""
    winners = torch.empty(x.shape, dtype=torch.long, device=x.device)
    for sources, values, out in _neighbors_of(x, graph, winners):
        values = values.view(*sources.shape, -1)
        torch.gather(sources, 1, first_maximum(values, scratch=values), out=out)
    return winners


def _neighbors_of(x: Tensor, graph: Graph, out: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A few nodes' neighbors at a time, what x is there (to be overwritten), and rows of ``out``.

    A part is an eighth of a chunk, since it is read again while it is in the cache.
    """
    nodes = max(1, chunk_size(x.device) // (8 * graph.k * x.shape[1]))
    buffer = x.new_empty(min(nodes, graph.nodes) * graph.k, x.shape[1])
    for sources, rows in zip(graph.sources.split(nodes), out.split(nodes)):
        yield (
            sources,
            torch.index_select(x, 0, sources.flatten(), out=buffer[: sources.numel()]),
            rows,
        )
