"""DGCNN (Wang et al. 2019): edge convolutions on graphs that are rebuilt in feature space."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscape import symmetries as sym
from equiscape.models.blocks import (
    FoldedNorm,
    Head,
    MaxMeanPool,
    PointLayer,
    activate,
    add_to_clouds,
    neuron_symmetries,
)
from equiscape.ops.moments import centered, edge_moments
from equiscape.ops.neighbors import Graph, knn, neighbor_max
from equiscape.settings import AtLeast, PositiveInt, Probability, Width

SLOPE = 0.2  # of every LeakyReLU


class EdgeConv(nn.Module):
    """``x_i' = max_j leaky_relu(norm(W [x_j - x_i, x_i]))`` over the neighbors j of i.

    With W = [A, B] the product is ``A u_j + (B - A) u_i + B c``, where u are the points relative to
    the center c of their cloud: one product a node instead of one an edge. Folding the norm into W
    leaves a maximum of ``A' u_j`` alone, for the rest does not depend on j and a leaky ReLU grows
    with its argument. So nothing is held for every edge.
    """

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.linear = nn.Linear(2 * channels_in, channels_out, bias=False)
        self.norm = FoldedNorm(channels_out)

    def forward(self, x: Tensor, neighbors: Tensor) -> Tensor:
        """``[B, N, channels_in]`` and ``[B, N, k]`` to ``[B, N, channels_out]``."""
        graph = Graph(neighbors)
        x, centers = centered(x)
        nodes = x.flatten(0, 1)
        statistics = edge_moments(nodes, centers, graph) if self.norm.training else None
        weight, added = self.norm(self.linear.weight, statistics)
        difference, receiver = weight.chunk(2, dim=1)
        if statistics is None:
            added = F.linear(centers, receiver, added[0])
        largest = neighbor_max(F.linear(nodes, difference), graph).view(*x.shape[:2], -1)
        y = largest + F.linear(x, receiver - difference)
        return activate(add_to_clouds(y, added), SLOPE)


class DGCNN(nn.Module):
    """The published classifier (1,809,576 parameters at 40 outputs).

    Args:
        num_outputs: classes.
        normals: whether a point comes with its unit normal, as the data say; the first neighbors
            are those in space all the same.
        channels: widths of the edge convolutions; all are concatenated before the embedding.
        k: nearest neighbors of a point, itself included, in the space of each layer's input.
        embedding: width of the layer that is pooled.
        head: widths of the classifier's hidden layers.
        dropout: in the classifier.
    """

    CONSTRAINTS = (
        ("k <= points", "k must be at most {points}, the points of a cloud"),
        (
            "batch_size > 1",
            "batch norm over clouds needs training.batch_size above 1",
        ),
        (
            "micro_batch is None or micro_batch >= batch_size",
            "batch norm admits no training.micro_batch below training.batch_size",
        ),
    )

    def __init__(
        self,
        *,
        num_outputs: PositiveInt,
        normals: bool = False,
        channels: Annotated[Sequence[Width], AtLeast(1)] = (64, 64, 128, 256),
        k: PositiveInt = 20,
        embedding: Width = 1024,
        head: Sequence[Width] = (512, 256),
        dropout: Probability = 0.5,
    ):
        super().__init__()
        self.k = k
        self.edges = nn.ModuleList(
            EdgeConv(a, b) for a, b in pairwise((6 if normals else 3, *channels))
        )
        self.embedding = PointLayer(sum(channels), embedding, SLOPE)
        self.pool = MaxMeanPool()
        self.head = Head(
            (2 * embedding, *head),
            num_outputs,
            activation=nn.LeakyReLU(SLOPE),
            dropout=dropout,
            bias=[i > 0 for i in range(len(head))],  # as published: the first has none
        )
        self.non_hidden = ("edges.0", "head.output")

    def representations(self) -> dict[str, nn.Module]:
        """Every edge convolution as ``[B, N, C]``; the embedding pooled, as ``[B, 2 C]``."""
        return {f"edges.{i}": edge for i, edge in enumerate(self.edges)} | {"pool": self.pool}

    def symmetries(self) -> tuple[sym.Symmetry, ...]:
        """Every layer's neurons, norms and the softmax.

        Complete: 2 sum C flat directions, C over all layers, and one for each biased linear layer
        before a norm; the softmax adds its own. Scaling one channel of an edge convolution changes
        the neighbors that the next one finds, so only one factor for all its channels is finite.
        """
        found = self.head.symmetries()
        edges: list[Any] = list(self.edges)
        channels = [edge.linear.out_features for edge in edges]
        offset = 0
        for i, (edge, width) in enumerate(zip(edges, channels)):
            readers = sym.columns("embedding.linear", offset)
            if i + 1 < len(channels):
                readers += sym.columns(f"edges.{i + 1}.linear", 0, width)
            found += neuron_symmetries(
                f"edges.{i}.linear",
                readers,
                width,
                False,
                f"edges.{i}.norm",
                edge.norm,
                homogeneous=True,
                uniform=i + 1 < len(channels),
            )
            offset += width
        width = self.embedding.linear.out_features
        found += neuron_symmetries(
            "embedding.linear",
            sym.columns(f"head.{self.head.first()}", 0, width),
            width,
            False,
            "embedding.norm",
            self.embedding.norm,
            homogeneous=True,
        )
        return tuple(found)

    @property
    def neighborhood(self) -> tuple[int, bool]:
        """Neighbors of each input point, and whether the point itself is one of them."""
        return self.k, True

    def forward(self, points: Tensor, neighbors: Tensor | None = None) -> Tensor:
        """Logits ``[clouds, num_outputs]``.

        Args:
            points: ``[clouds, points, 3]`` coordinates, or 6 with normals.
            neighbors: ``[clouds, points, k]`` of the input points; searched if None.
        """
        x, outputs, near = points, [], points[..., :3]
        for edge in self.edges:
            if neighbors is None:
                neighbors = knn(near, self.k, include_self=True)
            x, neighbors = edge(x, neighbors), None
            outputs.append(near := x)
        return self.head(self.pool(self.embedding(torch.cat(outputs, dim=-1))))
