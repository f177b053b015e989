"""PointNet (Qi et al. 2017): shared layers on every point, then a maximum over the points."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from equiscape.models.blocks import Head, PointNorm, fraction, whole, wholes


class PointLayer(nn.Module):
    """``relu(norm(W x))`` on every point."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.linear = nn.Linear(channels_in, channels_out, bias=False)
        self.norm = PointNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """``[clouds, points, channels_in]`` to ``[clouds, points, channels_out]``."""
        return torch.relu(self.norm(self.linear(x)))


class MaxPool(nn.Module):
    """The maximum over the points."""

    def forward(self, x: Tensor) -> Tensor:
        """``[clouds, points, channels]`` to ``[clouds, channels]``."""
        return x.max(1).values


class PointNet(nn.Module):
    """The variant without T-Nets that is used beside DGCNN (696,168 parameters at 40 outputs).

    Args:
        num_outputs: classes.
        channels: widths of the layers shared by all points.
        head: widths of the classifier's hidden layers.
        dropout: in the classifier.
    """

    def __init__(
        self,
        *,
        num_outputs: int,
        channels: Sequence[int] = (64, 64, 64, 128, 1024),
        head: Sequence[int] = (512,),
        dropout: float = 0.5,
    ):
        super().__init__()
        channels = wholes("channels", channels, at_least=1)
        head = wholes("head", head)
        self.layers = nn.ModuleList(PointLayer(a, b) for a, b in pairwise((3, *channels)))
        self.pool = MaxPool()
        self.head = Head(
            (channels[-1], *head),
            whole("num_outputs", num_outputs),
            activation=nn.ReLU(),
            dropout=fraction("dropout", dropout),
            bias=[False] * len(head),
        )
        self.boundary = ("layers.0", "head.output")

    def representations(self) -> dict[str, nn.Module]:
        """Every layer but the last as ``[B, N, C]``; the last pooled, as ``[B, C]``."""
        layers = {f"layers.{i}": layer for i, layer in enumerate(self.layers[:-1])}
        return layers | {"pool": self.pool}

    def forward(self, points: Tensor) -> Tensor:
        """``[clouds, points, 3]`` coordinates to ``[clouds, num_outputs]`` logits."""
        x = points
        for layer in self.layers:
            x = layer(x)
        return self.head(self.pool(x))
