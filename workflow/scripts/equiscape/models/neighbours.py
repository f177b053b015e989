"""Exact k nearest neighbours in batches of clouds, and the gathering of what they hold."""

import torch
from torch import Tensor

from equiscape.errors import ConfigError

CHUNK = 2**24  # distances held at once: 64 MiB in float32


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
        ``[clouds, points, k]`` int64 indices into the points of the same cloud.

    Raises:
        ConfigError: the clouds have fewer than ``k`` points to choose from.
    """
    clouds, points, _ = x.shape
    candidates = points if include_self else points - 1
    if k > candidates:
        raise ConfigError(
            f"model.k: {k} neighbours were asked for, but a cloud of {points} points offers "
            f"{candidates}; lower k or give the clouds more points."
        )
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    x = x - x.mean(1, keepdim=True)
    nearest = x.new_empty(clouds, points, k, dtype=torch.long)
    own = -torch.inf if include_self else torch.inf
    step = max(1, CHUNK // (points * points))
    for start in range(0, clouds, step):
        chunk = x[start : start + step]
        distance = squared_distances(chunk)
        distance.diagonal(dim1=1, dim2=2).fill_(own)
        nearest[start : start + step] = distance.topk(k, dim=2, largest=False).indices
    return nearest


def squared_distances(x: Tensor) -> Tensor:
    """``[B, N, N]`` squared distances within each cloud of ``[B, N, C]``."""
    if x.shape[2] <= 4:
        columns = x.unbind(2)
        first = columns[0].unsqueeze(2) - columns[0].unsqueeze(1)
        total = first.square_()
        for column in columns[1:]:
            total += (column.unsqueeze(2) - column.unsqueeze(1)).square_()
        return total
    squares = x.square().sum(2)
    inner = torch.baddbmm(squares.unsqueeze(1), x, x.mT, alpha=-2)
    return inner.add_(squares.unsqueeze(2))


def gather(x: Tensor, neighbours: Tensor) -> Tensor:
    """``[B, N, k, C]`` features of the neighbours ``[B, N, k]`` from ``[B, N, C]``."""
    clouds, points, channels = x.shape
    offset = torch.arange(0, clouds * points, points, device=x.device).view(-1, 1, 1)
    flat = x.flatten(0, 1).index_select(0, (neighbours + offset).flatten())
    return flat.view(*neighbours.shape, channels)
