"""Batch statistics of linear maps, from the moments of their inputs."""

import torch
from torch import Tensor

from equiscape.ops.neighbors import Graph, neighbor_sum
from equiscape.ops.precision import full_precision, full_products


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[C]`` and biased covariance ``[C, C]`` of ``[count, C]``, in full precision."""
    with full_products(rows.device):
        rows = full_precision(rows)
        mean = rows.mean(0)
        centered = rows - mean
        return mean, centered.mT @ centered / len(rows)


def edge_moments(x: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
    """Mean ``[2 C]`` and biased covariance ``[2 C, 2 C]`` of ``[x_j, x_i]`` over all edges.

    A node counts as x_i once for each of its k neighbors and as x_j once for each node that it is
    a neighbor of, so sums over edges are weighted sums over the nodes ``x [nodes, C]``.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = full_precision(x)
        center = x.mean(0)
        x = x - center
        degree = neighbor_sum(torch.ones_like(x[:, :1]), graph, transposed=True)
        edges = graph.nodes * graph.k
        sent = (degree * x).sum(0) / edges
        senders = x.mT @ (degree * x) / edges - torch.outer(sent, sent)
        mixed = neighbor_sum(x, graph).mT @ x / edges  # the mean of x_i is zero
        receivers = x.mT @ x / graph.nodes
        covariance = torch.cat(
            [torch.cat([senders, mixed], dim=1), torch.cat([mixed.mT, receivers], dim=1)]
        )
        return torch.cat([center + sent, center]), covariance
