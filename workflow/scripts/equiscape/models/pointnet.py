"""PointNet (Qi et al. 2017): shared layers on every point, then a maximum over the points."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscape import symmetries as sym
from equiscape.models.blocks import Head, PointLayer, neuron_symmetries
from equiscape.ops.chunks import chunk_size, differentiated, first_maximum, transformed
from equiscape.settings import AtLeast, PositiveInt, Probability, Width


class PooledLayer(PointLayer):
    """``max_i relu(norm(W x_i))`` over the points i.

    ReLU grows with its argument, so it can follow the maximum; and of all points only those that
    win a channel matter, in the gradient too. So the widest layer of the network is never held:
    its winners are found cloud by cloud, then their products alone are computed.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[clouds, points, channels_in]`` to ``[clouds, channels_out]``."""
        x, weight, added = self.fold(x, relative=True)
        if transformed(x) or transformed(weight):
            return torch.relu(F.linear(x, weight).max(1).values + added)
        if not differentiated(x, weight):
            values = [F.linear(part, weight).amax(1) for part in x.split(self._clouds(x, weight))]
            return torch.relu(torch.cat(values) + added)
        winners = self._winners(x, weight)  # numbered through all clouds
        rows = x.flatten(0, 1).index_select(0, winners.flatten()).view(*winners.shape, -1)
        return torch.relu((rows * weight).sum(-1) + added)

    @staticmethod
    def _clouds(x: Tensor, weight: Tensor) -> int:
        """Clouds that are worked through at a time."""
        return max(1, chunk_size(x.device) // (x.shape[1] * len(weight)))

    @classmethod
    @torch.no_grad()
    def _winners(cls, x: Tensor, weight: Tensor) -> Tensor:
        clouds, points, _ = x.shape
        slots = []
        for chunk in x.split(cls._clouds(x, weight)):
            values = F.linear(chunk, weight)
            slots.append(first_maximum(values, scratch=values))
        return torch.cat(slots) + torch.arange(
            0, clouds * points, points, device=x.device
        ).unsqueeze(1)


class PointNet(nn.Module):
    """The variant without T-Nets that is used beside DGCNN (696,168 parameters at 40 outputs).

    Args:
        num_outputs: classes.
        normals: whether a point comes with its unit normal, as the data say.
        channels: widths of the layers shared by all points.
        head: widths of the classifier's hidden layers.
        dropout: in the classifier.
    """

    CONSTRAINTS = (
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
        channels: Annotated[Sequence[Width], AtLeast(1)] = (64, 64, 64, 128, 1024),
        head: Sequence[Width] = (512,),
        dropout: Probability = 0.5,
    ):
        super().__init__()
        *narrow, wide = (6 if normals else 3, *channels)
        self.layers = nn.ModuleList(PointLayer(a, b) for a, b in pairwise(narrow))
        self.layers.append(PooledLayer(narrow[-1], wide))
        self.head = Head(
            (wide, *head),
            num_outputs,
            activation=nn.ReLU(),
            dropout=dropout,
            bias=[False] * len(head),
        )
        self.non_hidden = ("layers.0", "head.output")

    def representations(self) -> dict[str, nn.Module]:
        """Every layer but the last as ``[B, N, C]``; the last pooled, as ``[B, C]``."""
        *layers, pool = self.layers
        return {f"layers.{i}": layer for i, layer in enumerate(layers)} | {"pool": pool}

    def symmetries(self) -> tuple[sym.Symmetry, ...]:
        """Every layer's neurons, norms and the softmax; complete: 2 sum C flat directions.

        C runs over all layers, the head's hidden ones included; the softmax adds its own.
        """
        names = [f"layers.{i}" for i in range(len(self.layers))]
        readers = [f"{name}.linear" for name in names[1:]] + [f"head.{self.head.first()}"]
        found = self.head.symmetries()
        layers: list[Any] = list(self.layers)
        for name, layer, reader in zip(names, layers, readers):
            found += neuron_symmetries(
                f"{name}.linear",
                sym.columns(reader, 0),
                layer.linear.out_features,
                False,
                f"{name}.norm",
                layer.norm,
                homogeneous=True,
            )
        return tuple(found)

    def forward(self, points: Tensor) -> Tensor:
        """``[clouds, points, 3]`` coordinates, or 6 with normals, to ``[clouds, num_outputs]``."""
        x = points
        for layer in self.layers:
            x = layer(x)
        return self.head(x)
