"""Exact k nearest neighbours in batches of clouds, and reductions over them.

The reductions never hold a value for every edge: a sum over neighbours is a product with the sparse
adjacency matrix, a maximum is a selection of winners found in chunks. Both can be differentiated
any number of times.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, is_legacy_batchedtensor
from torch.autograd import Function

from equiscape.errors import ConfigError


def transformed(x: Tensor) -> bool:
    """Whether a ``torch.func`` transform, ``is_grads_batched`` or ``torch.compile`` works on x.

    They compose with plain tensor operations only, so whoever has a faster way takes those then.
    """
    return (
        torch.compiler.is_compiling()
        or is_functorch_wrapped_tensor(x)
        or is_legacy_batchedtensor(x)
    )


def chunk_size(device: torch.device) -> int:
    """Values that a temporary of a chunk may hold: what stays in a CPU's cache, more on a GPU."""
    return 2**20 if device.type == "cpu" else 2**26


@contextmanager
def matmul_precision(level: str, device: torch.device) -> Iterator[None]:
    """Within the block, float32 products on CUDA at torch's precision ``level``."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(level)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def full_products(device: torch.device) -> Iterator[None]:
    """Within the block, products of float32 are of float32: neither of bfloat16 nor of TF32.

    For differences of large terms, such as squared distances and variances. Compiled code takes
    TF32 as the training step does, since that switch cannot be thrown within a graph.
    """
    with torch.autocast(device.type, enabled=False):
        if torch.compiler.is_compiling():
            yield
            return
        with matmul_precision("highest", device):
            yield


# What :func:`knn` asks in place of a search, by the identity of its tensor.
_answers: dict[int, Callable[[Tensor, int, bool], Tensor]] = {}


@contextmanager
def reuse_neighbours(clouds: Iterable[Tensor]) -> Iterator[None]:
    """Within the block, search the neighbours of each of these tensors once, however often asked.

    For several passes over the same clouds. A tensor is known by its identity, not by its values:
    it must not change within the block.
    """
    clouds = list(clouds)  # held, so that no other tensor gets the id of one of them
    rows = torch.arange(max(map(len, clouds), default=0))
    for x in clouds:
        _answers[id(x)] = NeighbourTables(len(x)).answer(
            rows[: len(x)], rows[: len(x)].to(x.device)
        )
    try:
        yield
    finally:
        for x in clouds:
            _answers.pop(id(x), None)


class NeighbourTables:
    """The neighbours of clouds that never change, searched once for each cloud.

    Args:
        clouds: how many there are.
        limit: bytes of the largest table; above it neighbours are searched each time.
    """

    def __init__(self, clouds: int, limit: int = 2**30):
        self.clouds, self.limit = clouds, limit
        self._tables: dict[tuple[int, bool, torch.dtype], tuple[Tensor, Tensor]] = {}

    @contextmanager
    def serving(self, x: Tensor, rows: Tensor, on_device: Tensor) -> Iterator[None]:
        """Within the block, :func:`knn` of ``x`` is read from the tables.

        Args:
            x: ``[B, points, channels]``, some of the clouds.
            rows: ``[B]`` which ones, on the CPU, so that the host need not wait for the device.
            on_device: the same on the device of ``x``.
        """
        before = _answers.get(id(x))
        _answers[id(x)] = self.answer(rows, on_device)
        try:
            yield
        finally:
            del _answers[id(x)]
            if before is not None:
                _answers[id(x)] = before

    def answer(self, rows: Tensor, on_device: Tensor) -> Callable[[Tensor, int, bool], Tensor]:
        """What :func:`knn` asks in place of a search."""

        def find(x: Tensor, k: int, include_self: bool) -> Tensor:
            points = x.shape[1]
            small = torch.int16 if points <= 2**15 else torch.int32
            if self.clouds * points * k * small.itemsize > self.limit:
                return _search(x, k, include_self)
            key = (k, include_self, x.dtype)
            if key not in self._tables:
                table = torch.empty(self.clouds, points, k, dtype=small, device=x.device)
                self._tables[key] = table, torch.zeros(self.clouds, dtype=torch.bool)
            table, known = self._tables[key]
            missing = (~known[rows]).nonzero().squeeze(1)
            if len(missing):
                where = missing.to(x.device)
                table[on_device[where]] = _search(x[where], k, include_self).to(small)
                known[rows[missing]] = True
            return table[on_device].long()

        return find


@torch.no_grad()
def knn(x: Tensor, k: int, include_self: bool) -> Tensor:
    """The ``k`` nearest points of every point, in its own cloud, by Euclidean distance.

    Distances come from differences of coordinates where channels are few (exact to rounding); of
    wide features from ``|x|^2 + |y|^2 - 2 x.y`` of centred clouds, whose absolute error is about
    1e-6 of the cloud's squared radius in float32: pairs closer to a tie than that may swap.
    Exact ties (duplicate points) are broken by the order of the points in memory, in no promised
    way, so only there can a neighbourhood depend on that order.

    Args:
        x: ``[clouds, points, channels]``; finite.
        k: neighbours of each point.
        include_self: whether a point counts as its own, and then always first, neighbour, as in
            DGCNN's published graph; a duplicate of it is a neighbour like any other either way.

    Returns:
        ``[clouds, points, k]`` int64 indices into the points of the same cloud, nearest first.

    Raises:
        ConfigError: the clouds have fewer than ``k`` points to choose from.
    """
    answer = _search if torch.compiler.is_compiling() else _answers.get(id(x), _search)
    return answer(x, k, include_self)


def _search(x: Tensor, k: int, include_self: bool) -> Tensor:
    _, points, _ = x.shape
    candidates = points if include_self else points - 1
    if k > candidates:
        raise ConfigError(
            f"model.k: {k} neighbours were asked for, but a cloud of {points} points offers "
            f"{candidates}; lower k or give the clouds more points."
        )
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    x = x - x.mean(1, keepdim=True)
    own = -torch.inf if include_self else torch.inf
    nearest = []
    with full_products(x.device):
        for clouds in x.split(max(1, chunk_size(x.device) // points**2)):
            distance = squared_distances(clouds)
            distance.diagonal(dim1=1, dim2=2).fill_(own)
            nearest.append(distance.topk(k, dim=2, largest=False).indices)
    return torch.cat(nearest)


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
    """The neighbours of every point of a batch of clouds, all nodes numbered through.

    Args:
        neighbours: ``[clouds, points, k]`` indices within each cloud, as :func:`knn` gives them.

    Attributes:
        sources: ``[nodes, k]`` numbers of the nodes that send to each node.
    """

    def __init__(self, neighbours: Tensor):
        self.clouds, self.points, self.k = neighbours.shape
        self.nodes = self.clouds * self.points
        self._kept: dict[Hashable, Any] = {}
        first = torch.arange(0, self.nodes, self.points, device=neighbours.device)
        self.sources = (neighbours + first.view(-1, 1, 1)).flatten(0, 1)

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


def neighbour_sum(x: Tensor, graph: Graph, transposed: bool = False) -> Tensor:
    """``y_i = sum_j x_j`` over the neighbours j of i; transposed, over the i that j sends to.

    ``[nodes, channels]`` to ``[nodes, channels]``.
    """
    if transformed(x) or transformed(graph.sources):
        if not transposed:
            return x[graph.sources].sum(1)
        edges = x.repeat_interleave(graph.k, 0)
        return torch.zeros_like(x).index_add(0, graph.sources.flatten(), edges)
    return _NeighbourSum.apply(x, graph, transposed)


class _NeighbourSum(Function):
    """Linear, so its derivative is the transposed sum, whose derivative is the sum again."""

    @staticmethod
    def forward(ctx, x: Tensor, graph: Graph, transposed: bool) -> Tensor:
        ctx.graph, ctx.transposed = graph, transposed
        if not transposed:
            return F.embedding_bag(graph.sources, x, mode="sum")
        return F.embedding_bag(graph.targets_by_source, x, graph.by_source[1], mode="sum")

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return neighbour_sum(gradient.contiguous(), ctx.graph, not ctx.transposed), None, None


def neighbour_max(x: Tensor, graph: Graph) -> Tensor:
    """``y_i = max_j x_j`` over the neighbours j of i, each channel of ``[nodes, channels]`` alone.

    The gradient goes to one neighbour, the first of those that tie.
    """
    if transformed(x) or transformed(graph.sources):
        return x[graph.sources].max(1).values
    return x.gather(0, _winners(x, graph))


@torch.no_grad()
def _winners(x: Tensor, graph: Graph) -> Tensor:
    """``[nodes, channels]`` numbers of the nodes that hold the maxima."""
    winners = torch.empty(x.shape, dtype=torch.long, device=x.device)
    nodes = max(1, chunk_size(x.device) // (graph.k * x.shape[1]))
    buffer = x.new_empty(min(nodes, graph.nodes) * graph.k, x.shape[1])
    for sources, out in zip(graph.sources.split(nodes), winners.split(nodes)):
        values = torch.index_select(x, 0, sources.flatten(), out=buffer[: sources.numel()])
        values = values.view(*sources.shape, -1)
        torch.gather(sources, 1, first_maximum(values, scratch=values), out=out)
    return winners


def first_maximum(values: Tensor, scratch: Tensor) -> Tensor:
    """``values.max(1).indices`` of ``[a, b, c]``.

    On a CPU three vectorised passes are twice as fast as the one of torch that tracks indices; they
    overwrite ``scratch``, which is of the same shape and may be ``values`` itself.
    """
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.max(1).indices
    count = values.shape[1]
    rank = torch.arange(count, 0, -1, dtype=values.dtype).view(1, -1, 1)
    torch.eq(values, values.amax(1, keepdim=True), out=scratch)
    best = scratch.mul_(rank).amax(1)
    return (count - best).long().clamp_(max=count - 1)  # NaN equals nothing: any slot will do
