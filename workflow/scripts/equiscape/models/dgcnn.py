"""DGCNN (Wang et al. 2019): edge convolutions on graphs that are rebuilt in feature space."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscape.models.blocks import Head, MaxMeanPool, PointNorm, fraction, whole, wholes
from equiscape.models.neighbours import gather, knn

SLOPE = 0.2  # of every LeakyReLU


class EdgeConv(nn.Module):
    """``x_i' = max_j leaky_relu(norm(W [x_j - x_i, x_i]))`` over the neighbours j of i."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.linear = nn.Linear(2 * channels_in, channels_out, bias=False)
        self.norm = PointNorm(channels_out)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """``[B, N, channels_in]`` and ``[B, N, k]`` to ``[B, N, channels_out]``."""
        own = x.unsqueeze(2).expand(-1, -1, neighbours.shape[2], -1)
        edges = torch.cat([gather(x, neighbours) - own, own], dim=-1)
        return F.leaky_relu(self.norm(self.linear(edges)), SLOPE).max(2).values


class Embedding(nn.Module):
    """``leaky_relu(norm(W x))`` on every point."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.linear = nn.Linear(channels_in, channels_out, bias=False)
        self.norm = PointNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, channels_in]`` to ``[B, N, channels_out]``."""
        return F.leaky_relu(self.norm(self.linear(x)), SLOPE)


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
        self.embedding = Embedding(sum(channels), whole("embedding", embedding))
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
