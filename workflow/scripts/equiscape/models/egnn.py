"""EGNN (Satorras, Hoogeboom, Welling 2021) as a classifier of point clouds.

The paper has no classifier of shapes, so what surrounds its layers is this project's choice: the
input feature is the distance to the cloud's centroid, the graph joins every point to its k
nearest in the input, and the features are max- and mean-pooled into an MLP. All of it depends on
distances alone, so the logits are invariant under rotations, reflections and translations.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscape import symmetries as sym
from equiscape.models.blocks import Head, MaxMeanPool
from equiscape.ops.messages import message_sums
from equiscape.ops.neighbors import Graph, knn
from equiscape.settings import Depth, PositiveInt, Probability, Width


class EGNNLayer(nn.Module):
    """Equations 3 to 6 of the paper, over the neighbors j of every point i::

        m_ij = phi_e(h_i, h_j, |x_i - x_j|^2)
        x_i  = x_i + mean_j (x_i - x_j) phi_x(m_ij)
        h_i  = h_i + phi_h(h_i, sum_j m_ij)

    29,120 parameters at 64 channels. With ``coordinate_update=False`` there is no phi_x and x
    stays: so is the last layer of a network with an invariant head, which would never give phi_x a
    gradient.
    """

    def __init__(self, hidden: int, coordinate_update: bool = True):
        super().__init__()
        self.phi_e = nn.Sequential(
            nn.Linear(2 * hidden + 1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.phi_h = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )
        self.phi_x = None
        if coordinate_update:
            self.phi_x = nn.Sequential(
                nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1, bias=False)
            )
            nn.init.xavier_uniform_(cast(nn.Linear, self.phi_x[2]).weight, gain=0.001)

    def forward(
        self, h: Tensor, x: Tensor, graph: Graph, keep_edges: bool = False
    ) -> tuple[Tensor, Tensor]:
        """``h [B, N, H]`` and ``x [B, N, 3]`` to the new h and x."""
        hidden, nodes, coordinates = h.shape[2], h.flatten(0, 1), x.flatten(0, 1)
        first: Any = self.phi_e[0]
        second: Any = self.phi_e[2]
        # the first layer's product once a node, not once an edge
        receiver, sender, distance = first.weight.split([hidden, hidden, 1], dim=1)
        phi_x = () if self.phi_x is None else tuple(self.phi_x.parameters())
        messages, *coordinate_update = message_sums(
            graph,
            F.linear(nodes, receiver, first.bias),
            F.linear(nodes, sender),
            coordinates,
            distance.squeeze(1),
            second.weight,
            second.bias,
            *phi_x,
            keep_edges=keep_edges,
        )
        if coordinate_update:
            x = x + coordinate_update[0].view_as(x)
        return h + self.phi_h(torch.cat([nodes, messages], dim=1)).view_as(h), x


class EGNN(nn.Module):
    """An E(3)-invariant classifier.

    Args:
        num_outputs: classes.
        hidden: channels of h and of every message.
        layers: of message passing.
        k: nearest neighbors of a point in the input cloud, itself excluded.
        head: widths of the classifier's hidden layers.
        dropout: in the classifier.
    """

    CONSTRAINTS = (("k < points", "k must be below {points}, the points of a cloud"),)

    def __init__(
        self,
        *,
        num_outputs: PositiveInt,
        hidden: Width = 64,
        layers: Depth = 4,
        k: PositiveInt = 16,
        head: Sequence[Width] = (256,),
        dropout: Probability = 0.0,
    ):
        super().__init__()
        self.k = k
        self.embedding = nn.Linear(1, hidden)
        self.layers = nn.ModuleList(
            EGNNLayer(hidden, coordinate_update=i < layers - 1) for i in range(layers)
        )
        self.pool = MaxMeanPool()
        self.head = Head(
            (2 * hidden, *head),
            num_outputs,
            activation=nn.SiLU(),
            dropout=dropout,
            norm=False,
        )
        self.non_hidden = ("embedding", "head.output")

    def representations(self) -> dict[str, nn.Module]:
        """The features h after each layer as ``[B, N, H]``, then pooled as ``[B, 2 H]``."""
        return {f"layers.{i}": layer for i, layer in enumerate(self.layers)} | {"pool": self.pool}

    def symmetries(self) -> tuple[sym.Symmetry, ...]:
        """The stream's scale, shifts and permutation, every layer's neurons, and the softmax.

        Complete: H + (L + 1) H + 3 H (H - 1) flat directions; the softmax adds its own. The stream
        h is linear but for the maximum of the pooling, so each channel has a positive scale, and
        each bias that feeds the stream is taken back by the biases that read it later. The first
        layer sees h as a function of one number, so 3 H (H - 1) directions of its columns are
        constants.
        """
        hidden, layers = self.embedding.out_features, range(len(self.layers))
        pooled = f"head.{self.head.first()}"
        writers = ["embedding", *(f"layers.{i}.phi_h.2" for i in layers)]
        reads = [
            [
                *((tie, f"layers.{i}.phi_e.0.bias") for tie in self._edge_columns(i)),
                (sym.Tie(f"layers.{i}.phi_h.0.weight", 1), f"layers.{i}.phi_h.0.bias"),
            ]
            for i in layers
        ]
        reads.append([(tie, f"{pooled}.bias") for tie in sym.columns(pooled, 0, hidden)])
        up = [tie for name in writers for tie in sym.rows(name)]
        down = [tie for read in reads for tie, _ in read]
        found = [
            *self.head.symmetries(),
            sym.scale("stream scale", "stream scale", hidden, up, down),
            sym.permutation("stream", hidden, [*up, *down]),
        ]
        for i, name in enumerate(writers):
            later = [pair for read in reads[i:] for pair in read]
            raised = [(sym.Tie(f"{name}.bias"), 1.0)]
            found.append(sym.shift(f"{name} shift", "stream shift", hidden, raised, later))
        for tie, bias in reads[0]:
            found.append(_constant_columns(tie, bias, hidden))
        for i, layer in enumerate(self.layers):
            name = f"layers.{i}"
            messages = sym.columns(f"{name}.phi_h.0", hidden)
            if layer.phi_x is not None:
                messages += sym.columns(f"{name}.phi_x.0", 0)
                found.append(_neurons(f"{name}.phi_x", hidden))
            found += [
                _neurons(f"{name}.phi_e", hidden),
                sym.permutation(
                    f"{name} messages", hidden, [*sym.rows(f"{name}.phi_e.2"), *messages]
                ),
                _neurons(f"{name}.phi_h", hidden),
            ]
        return tuple(found)

    def _edge_columns(self, layer: int) -> list[sym.Tie]:
        """Where phi_e reads the features of the receiver and of the sender."""
        return sym.columns(f"layers.{layer}.phi_e.0", 0, self.embedding.out_features)

    @property
    def neighborhood(self) -> tuple[int, bool]:
        """Neighbors of each input point, and whether the point itself is one of them."""
        return self.k, False

    def embed(
        self, points: Tensor, neighbors: Tensor | None = None, keep_edges: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """The final features ``[B, N, H]`` and the coordinates ``[B, N, 3]`` after each layer."""
        if neighbors is None:
            neighbors = knn(points, self.k, include_self=False)
        graph = Graph(neighbors)  # fixed: one for all layers
        x, trajectory = points, []
        h = self.embedding((x - x.mean(1, keepdim=True)).norm(dim=-1, keepdim=True))
        for layer in self.layers:
            h, x = layer(h, x, graph, keep_edges)
            trajectory.append(x)
        return h, trajectory

    def forward(
        self, points: Tensor, neighbors: Tensor | None = None, keep_edges: bool = False
    ) -> Tensor:
        """Logits ``[clouds, num_outputs]``.

        Args:
            points: ``[clouds, points, 3]`` coordinates.
            neighbors: ``[clouds, points, k]``; searched if None.
            keep_edges: see :func:`equiscape.ops.messages.message_sums`.
        """
        h, _ = self.embed(points, neighbors, keep_edges)
        return self.head(self.pool(h))


def _neurons(name: str, size: int) -> sym.Permutation:
    """The hidden neurons of a perceptron of two layers."""
    return sym.permutation(
        f"{name} neurons", size, [*sym.rows(f"{name}.0"), *sym.columns(f"{name}.2", 0)]
    )


def _constant_columns(tie: sym.Tie, bias: str, hidden: int) -> sym.Continuous:
    """Changes of the first layer's columns that act on the embedding as constants.

    The features there are ``e s + b`` for one number s a point: whatever is orthogonal to e on the
    side of the input reads b alone, which the bias takes back. Coefficients ``[H, H]`` are
    projected.
    """

    def element(state: sym.State, coefficients: Tensor) -> dict[str, Tensor]:
        e, b = state["embedding.weight"][:, 0], state["embedding.bias"]
        change = coefficients - torch.outer(coefficients @ e, e) / (e @ e)
        weight = state[tie.parameter]
        return {
            tie.parameter: tie.put(weight, tie.take(weight, hidden) + change),
            bias: state[bias] - change @ b,
        }

    return sym.Continuous(
        f"{tie.parameter} columns from {tie.start}",
        "constant columns",
        (tie.parameter, bias),
        shape=(hidden, hidden),
        dimension=hidden * (hidden - 1),
        element=element,
    )
