"""GINE (Hu et al. 2020): message passing on molecular graphs with typed atoms and bonds.

The defaults are the network tuned for Peptides-func by Toenshoff et al. (2023): 490,966 parameters
with the vocabularies of that data set.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from equiscape.ops.chunks import node_counts
from equiscape.settings import NonNegativeInt, PositiveInt, Probability

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


class CategoricalEncoder(nn.Module):
    """The sum of one learned vector for each categorical feature.

    Args:
        categories: number of values of each feature.
        channels: width of the vectors.
    """

    def __init__(self, categories: Sequence[int], channels: int):
        super().__init__()
        self.table = nn.Embedding(sum(categories), channels)
        nn.init.xavier_uniform_(self.table.weight)
        starts = torch.tensor([0, *categories[:-1]]).cumsum(0)
        self.register_buffer("starts", starts, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """``[N, F]`` integers to ``[N, channels]``."""
        rows = features.long() + self.starts
        return sum(self.table(column) for column in rows.unbind(1))


class WalkEncoder(nn.Module):
    """Return probabilities of random walks (Dwivedi et al. 2022), normalised and projected."""

    def __init__(self, steps: int, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(steps)
        self.project = nn.Linear(steps, channels)

    def forward(self, walks: Tensor) -> Tensor:
        """``[N, steps]`` to ``[N, channels]``."""
        return self.project(self.norm(walks))


class GINELayer(nn.Module):
    """``h_i + act(MLP(h_i + sum_j ReLU(h_j + e_ij)))``, with dropout before the addition."""

    def __init__(self, hidden: int, activation: str, dropout: float, norm: bool, residual: bool):
        super().__init__()
        from torch_geometric.nn import GINEConv  # seconds to import: only where it is used

        self.convolution = GINEConv(
            nn.Sequential(
                nn.Linear(hidden, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, hidden)
            )
        )
        self.norm = nn.BatchNorm1d(hidden) if norm else nn.Identity()
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.residual = residual

    def forward(self, h: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        """``h [N, d]``, ``edge_index [2, E]``, ``e [E, d]`` to the new ``h``."""
        update = self.dropout(self.activation(self.norm(self.convolution(h, edge_index, e))))
        return h + update if self.residual else update


class Readout(nn.Module):
    """The mean or the sum over the nodes of each graph."""

    def __init__(self, name: str):
        super().__init__()
        self.mean = name == "mean"

    def forward(self, h: Tensor, graph: Tensor, size: int) -> Tensor:
        """``[N, d]`` to ``[size, d]``."""
        total = h.new_zeros(size, h.shape[1]).index_add(0, graph, h)
        if not self.mean:
            return total
        return total / node_counts(graph, size).clamp(min=1).unsqueeze(1)


class GINE(nn.Module):
    """A graph classifier or regressor.

    Args:
        num_outputs: labels or targets.
        node_categories, edge_categories: number of values of each feature of nodes and edges.
        walk_steps: random-walk encodings of each node; 0 for none.
        hidden: channels.
        layers: of message passing.
        walk_channels: channels that encode the random walks, of the ``hidden`` ones.
        activation: ``"gelu"`` or ``"relu"``.
        dropout: after every layer.
        norm: batch norm in every layer.
        residual: add every layer's input to its output.
        readout: ``"mean"`` or ``"sum"`` over the nodes.
        head: widths of the hidden layers after the readout.
    """

    CONSTRAINTS = (
        (
            "walk_steps == 0 or walk_channels < hidden",
            "walk_channels must be below hidden, {hidden}",
        ),
    )
    BATCH_STATISTICS = "norm or walk_steps > 0"

    def __init__(
        self,
        *,
        num_outputs: PositiveInt,
        node_categories: Sequence[PositiveInt],
        edge_categories: Sequence[PositiveInt],
        walk_steps: NonNegativeInt = 0,
        hidden: PositiveInt = 160,
        layers: PositiveInt = 8,
        walk_channels: PositiveInt = 28,
        activation: Literal["gelu", "relu"] = "gelu",
        dropout: Probability = 0.1,
        norm: bool = False,
        residual: bool = True,
        readout: Literal["mean", "sum"] = "mean",
        head: Sequence[PositiveInt] = (160, 160),
    ):
        super().__init__()
        encoded = walk_channels if walk_steps else 0
        self.nodes = CategoricalEncoder(node_categories, hidden - encoded)
        self.walks = WalkEncoder(walk_steps, encoded) if walk_steps else None
        self.edges = CategoricalEncoder(edge_categories, hidden)
        self.layers = nn.ModuleList(
            GINELayer(hidden, activation, dropout, norm, residual) for _ in range(layers)
        )
        self.pool = Readout(readout)
        widths = (hidden, *head)
        self.head = nn.Sequential()
        for before, after in pairwise(widths):
            self.head.append(nn.Linear(before, after))
            self.head.append(ACTIVATIONS[activation]())
        self.output = nn.Linear(widths[-1], num_outputs)
        self.non_hidden = ("nodes", "walks", "edges", "output")

    def representations(self) -> dict[str, nn.Module]:
        """The features ``[N, d]`` after each layer, then pooled as ``[size, d]``."""
        return {f"layers.{i}": layer for i, layer in enumerate(self.layers)} | {"pool": self.pool}

    def forward(
        self,
        features: Tensor,
        edge_index: Tensor,
        edge_features: Tensor,
        walks: Tensor | None,
        graph: Tensor,
        size: int,
    ) -> Tensor:
        """Logits or predictions ``[size, num_outputs]``.

        Args:
            features: ``[N, F]`` categorical features of all nodes of the batch.
            edge_index: ``[2, E]`` sources and targets of the directed edges.
            edge_features: ``[E, G]`` categorical features.
            walks: ``[N, walk_steps]`` random-walk encodings, or None.
            graph: ``[N]`` graph of every node.
            size: number of graphs.
        """
        h = self.nodes(features)
        if self.walks is not None:
            h = torch.cat([h, self.walks(walks)], dim=1)
        e = self.edges(edge_features)
        for layer in self.layers:
            h = layer(h, edge_index, e)
        return self.output(self.head(self.pool(h, graph, size)))
