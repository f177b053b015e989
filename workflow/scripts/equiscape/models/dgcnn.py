"""DGCNN (Wang et al. 2019): edge convolutions on graphs that are rebuilt in feature space."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscape.models.blocks import (
    FoldedNorm,
    Head,
    MaxMeanPool,
    PointLayer,
    fraction,
    full_precision,
    whole,
    wholes,
)
from equiscape.models.neighbours import Graph, knn, neighbour_max, neighbour_sum

SLOPE = 0.2  # of every LeakyReLU


class EdgeConv(nn.Module):
    """``x_i' = max_j leaky_relu(norm(W [x_j - x_i, x_i]))`` over the neighbours j of i.

    With W = [A, B] the product is ``A x_j + (B - A) x_i``: one product a node instead of one an
    edge. Folding the norm into W leaves a maximum of ``A' x_j`` alone, for the rest does not depend
    on j and a leaky ReLU grows with its argument. So nothing is held for every edge.
    """

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.linear = nn.Linear(2 * channels_in, channels_out, bias=False)
        self.norm = FoldedNorm(channels_out)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """``[B, N, channels_in]`` and ``[B, N, k]`` to ``[B, N, channels_out]``."""
        graph, nodes = Graph(neighbours), x.flatten(0, 1)
        difference, own = self.linear.weight.chunk(2, dim=1)
        weight = torch.cat([difference, own - difference], dim=1)  # on [x_j, x_i]
        statistics = edge_moments(nodes, graph) if self.norm.training else None
        weight, bias = self.norm(weight, statistics, graph.nodes * graph.k)
        other, own = weight.chunk(2, dim=1)
        y = neighbour_max(F.linear(nodes, other), graph) + F.linear(nodes, own, bias)
        return F.leaky_relu(y, SLOPE, inplace=True).view(*x.shape[:2], -1)


def edge_moments(x: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
    """Mean ``[2 C]`` and biased covariance ``[2 C, 2 C]`` of ``[x_j, x_i]`` over all edges.

    A node counts as x_i once for each of its k neighbours and as x_j once for each node that it is
    a neighbour of, so sums over edges are weighted sums over the nodes ``x [nodes, C]``.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = full_precision(x)
        center = x.mean(0)
        x = x - center
        degree = neighbour_sum(torch.ones_like(x[:, :1]), graph, transposed=True)
        edges = graph.nodes * graph.k
        sent = (degree * x).sum(0) / edges
        others = x.mT @ (degree * x) / edges - torch.outer(sent, sent)
        mixed = neighbour_sum(x, graph).mT @ x / edges  # the mean of x_i is zero
        own = x.mT @ x / graph.nodes
        covariance = torch.cat(
            [torch.cat([others, mixed], dim=1), torch.cat([mixed.mT, own], dim=1)]
        )
        return torch.cat([center + sent, center]), covariance


class DGCNN(nn.Module):
    """The published classifier (1,809,576 parameters at 40 outputs).

    Args:
        num_outputs: classes.
        channels: widths of the edge convolutions; all are concatenated before the embedding.
        k: nearest neighbours of a point, itself included, in the space of each layer's input.
        embedding: width of the layer that is pooled.
        head: widths of the classifier's hidden layers.
        dropout: in the classifier.
    """

    def __init__(
        self,
        *,
        num_outputs: int,
        channels: Sequence[int] = (64, 64, 128, 256),
        k: int = 20,
        embedding: int = 1024,
        head: Sequence[int] = (512, 256),
        dropout: float = 0.5,
    ):
        super().__init__()
        channels = wholes("channels", channels, at_least=1)
        head = wholes("head", head)
        self.k = whole("k", k)
        self.edges = nn.ModuleList(EdgeConv(a, b) for a, b in pairwise((3, *channels)))
        self.embedding = PointLayer(sum(channels), whole("embedding", embedding), SLOPE)
        self.pool = MaxMeanPool()
        self.head = Head(
            (2 * embedding, *head),
            whole("num_outputs", num_outputs),
            activation=nn.LeakyReLU(SLOPE),
            dropout=fraction("dropout", dropout),
            bias=[i > 0 for i in range(len(head))],  # as published: the first has none
        )
        self.boundary = ("edges.0", "head.output")

    def representations(self) -> dict[str, nn.Module]:
        """Every edge convolution as ``[B, N, C]``; the embedding pooled, as ``[B, 2 C]``."""
        return {f"edges.{i}": edge for i, edge in enumerate(self.edges)} | {"pool": self.pool}

    def forward(self, points: Tensor) -> Tensor:
        """``[clouds, points, 3]`` coordinates to ``[clouds, num_outputs]`` logits."""
        x, outputs = points, []
        for edge in self.edges:
            x = edge(x, knn(x, self.k, include_self=True))
            outputs.append(x)
        return self.head(self.pool(self.embedding(torch.cat(outputs, dim=-1))))
