"""Batch statistics of linear maps, from the moments of their inputs.

A sum over all points of all clouds loses digits where clouds lie far apart or far from the origin.
So moments are taken about each cloud's center; what the centers add is kept apart.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from equiscape.ops.neighbors import Graph, neighbor_sum
from equiscape.ops.precision import full_precision, full_products

FEW = 6  # channels that may be coordinates and normals: neither normalized nor near the origin


@dataclass(frozen=True)
class Moments:
    """First and second moments of rows that come in clouds of equal size.

    What belongs to clouds is few numbers, which differ by much: it is float64.

    Attributes:
        origin: ``[C]`` what the other moments are relative to.
        offset: ``[C]`` mean of the rows, relative to the origin.
        groups: ``[clouds, C]`` means of the clouds, relative to that of all rows.
        places: ``[clouds, C]`` what a cloud's rows are given relative to, less the mean of all.
        within: ``[C, C]`` (biased) covariance of the rows within their clouds.
        count: of the rows.
    """

    origin: Tensor
    offset: Tensor
    groups: Tensor
    places: Tensor
    within: Tensor
    count: int

    def linear(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[C']``, relative to that of the origin, and variance ``[C']`` of ``W x``.

        Both terms of the variance are sums of squares, so neither cancels the other.
        """
        with full_products(weight.device):
            within = ((weight @ self.within) * weight).sum(1).clamp_min(0.0)
            weight = weight.double()
            between = (self.groups @ weight.mT).square().mean(0)
            return (weight @ self.offset).to(within), between.to(within) + within

    def absolute(self) -> "Moments":
        """For rows that are given as they are: one place for all clouds, less the mean of all."""
        return replace(self, places=-self.origin.unsqueeze(0))

    def shared(self, weight: Tensor, scale: Tensor) -> Tensor:
        """``scale W p`` of every cloud's place p, ``[clouds, C']``."""
        with full_products(weight.device):
            return scale * (self.places @ weight.double().mT).to(scale)


def centered(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x [clouds, points, C]`` relative to the center of its cloud; ``centers [clouds, C]``."""
    with full_products(x.device):
        x = full_precision(x)
        centers = x.mean(1, keepdim=True)
        return x - centers, centers.squeeze(1)


def moments(u: Tensor, centers: Tensor) -> Moments:
    """The moments of points, from what :func:`centered` gives of them."""
    with full_products(u.device):
        rows = u.flatten(0, 1)
        centers = centers.double()
        origin = centers.mean(0)
        within = rows.mT @ rows / len(rows)
        groups = centers - origin
        return Moments(origin, torch.zeros_like(origin), groups, groups, within, len(rows))


def edge_moments(u: Tensor, centers: Tensor, graph: Graph) -> Moments:
    """The moments of ``[x_j - x_i, x_i]`` over all edges from j to i, in full precision.

    A node counts as x_i once for each of its k neighbors and as x_j once for each node that it is
    a neighbor of, so sums over edges are weighted sums over the nodes. Of few channels, which are
    coordinates, differences to a node's neighbors are summed first: they are small, and so are the
    rounding errors of their products. Of features that would cost more than it gains.

    Args:
        u: ``[nodes, C]`` the nodes x, relative to the center of their cloud.
        centers: ``[clouds, C]``.
        graph: the neighbors of every node.
    """
    with torch.autocast(u.device.type, enabled=False):
        edges = graph.nodes * graph.k
        centers = centers.double()
        origin = centers.mean(0)
        degree = neighbor_sum(torch.ones_like(u[:, :1]), graph, transposed=True)
        received = neighbor_sum(u, graph) - graph.k * u  # sum over j of x_j - x_i
        step = received.view(graph.clouds, -1, u.shape[1]).sum(1) * (graph.clouds / edges)
        offset = step.double().mean(0)
        mixed = received.mT @ u / edges  # the mean of u is zero
        receivers = u.mT @ u / graph.nodes
        if u.shape[1] <= FEW:
            sent = degree * u - neighbor_sum(u, graph, transposed=True)  # the same over i, of j
            differences = sent.mT @ u / edges - mixed
        else:
            differences = (degree * u).mT @ u / edges - receivers - mixed - mixed.mT
        differences = differences - step.mT @ step / graph.clouds
        within = torch.cat(
            [torch.cat([differences, mixed], dim=1), torch.cat([mixed.mT, receivers], dim=1)]
        )
        zero, centers = torch.zeros_like(origin), centers - origin
        return Moments(
            torch.cat([zero, origin]),
            torch.cat([offset, zero]),
            torch.cat([step - offset, centers], dim=1),
            torch.cat([-offset.expand_as(centers), centers], dim=1),
            within,
            edges,
        )
