"""EGNN (Satorras, Hoogeboom, Welling 2021) as a classifier of point clouds.

The paper has no classifier of shapes, so what surrounds its layers is this project's choice: the
input feature is the distance to the cloud's centroid, the graph joins every point to its k
nearest in the input, and the features are max- and mean-pooled into an MLP. All of it depends on
distances alone, so the logits are invariant under rotations, reflections and translations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equiscape.models.blocks import Head, MaxMeanPool, fraction, whole, wholes
from equiscape.models.neighbours import gather, knn


class EGNNLayer(nn.Module):
    """Equations 3 to 6 of the paper, over the neighbours j of every point i::

        m_ij = phi_e(h_i, h_j, |x_i - x_j|^2)
        x_i  = x_i + mean_j (x_i - x_j) phi_x(m_ij)
        h_i  = h_i + phi_h(h_i, sum_j m_ij)

    29,120 parameters at 64 channels. With ``moves=False`` there is no phi_x and x stays: so is the
    last layer of a network with an invariant head, which would never give phi_x a gradient.
    """

    def __init__(self, hidden: int, moves: bool = True):
        super().__init__()
        self.phi_e = nn.Sequential(
            nn.Linear(2 * hidden + 1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.phi_h = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )
        self.phi_x = None
        if moves:
            self.phi_x = nn.Sequential(
                nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1, bias=False)
            )
            nn.init.xavier_uniform_(self.phi_x[2].weight, gain=0.001)

    def forward(self, h: Tensor, x: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor]:
        """``h [B, N, H]``, ``x [B, N, 3]``, ``neighbours [B, N, k]`` to the new h and x."""
        difference = x.unsqueeze(2) - gather(x, neighbours)
        squared = difference.square().sum(-1, keepdim=True)
        own = h.unsqueeze(2).expand(-1, -1, neighbours.shape[2], -1)
        messages = self.phi_e(torch.cat([own, gather(h, neighbours), squared], dim=-1))
        if self.phi_x is not None:
            x = x + (difference * self.phi_x(messages)).mean(2)
        h = h + self.phi_h(torch.cat([h, messages.sum(2)], dim=-1))
        return h, x


class EGNN(nn.Module):
    """An E(3)-invariant classifier.

    Args:
        num_outputs: classes.
        hidden: channels of h and of every message.
        layers: of message passing.
        k: nearest neighbours of a point in the input cloud, itself excluded.
        head: widths of the classifier's hidden layers.
        dropout: in the classifier.
    """

    def __init__(
        self,
        *,
        num_outputs: int,
        hidden: int = 64,
        layers: int = 4,
        k: int = 16,
        head: Sequence[int] = (256,),
        dropout: float = 0.0,
    ):
        super().__init__()
        hidden, layers = whole("hidden", hidden), whole("layers", layers)
        self.k = whole("k", k)
        self.embedding = nn.Linear(1, hidden)
        self.layers = nn.ModuleList(EGNNLayer(hidden, moves=i < layers - 1) for i in range(layers))
        self.pool = MaxMeanPool()
        self.head = Head(
            (2 * hidden, *wholes("head", head)),
            whole("num_outputs", num_outputs),
            activation=nn.SiLU(),
            dropout=fraction("dropout", dropout),
            norm=False,
        )
        self.boundary = ("embedding", "head.output")

    def representations(self) -> dict[str, nn.Module]:
        """The features h after each layer as ``[B, N, H]``, then pooled as ``[B, 2 H]``."""
        return {f"layers.{i}": layer for i, layer in enumerate(self.layers)} | {"pool": self.pool}

    def embed(self, points: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The final features ``[B, N, H]`` and the coordinates ``[B, N, 3]`` after each layer."""
        neighbours = knn(points, self.k, include_self=False)
        x, trajectory = points, []
        h = self.embedding((x - x.mean(1, keepdim=True)).norm(dim=-1, keepdim=True))
        for layer in self.layers:
            h, x = layer(h, x, neighbours)
            trajectory.append(x)
        return h, trajectory

    def forward(self, points: Tensor) -> Tensor:
        """``[clouds, points, 3]`` coordinates to ``[clouds, num_outputs]`` logits."""
        h, _ = self.embed(points)
        return self.head(self.pool(h))
