"""What the point-cloud networks share: batch norm over points, the classifier head, checks."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from equiscape.errors import ConfigError


def whole(name: str, value: object) -> int:
    """``value`` if it is a positive whole number.

    Raises:
        ConfigError: it is not; the message names the setting.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"model.{name}: {value!r} is not a positive whole number.")
    return value


def wholes(name: str, values: object, at_least: int = 0) -> tuple[int, ...]:
    """``values`` as a tuple of at least so many positive whole numbers, or a ConfigError."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) < at_least:
        raise ConfigError(
            f"model.{name}: {values!r} is not a list of {at_least} or more positive whole numbers."
        )
    return tuple(whole(name, value) for value in values)


def fraction(name: str, value: object) -> float:
    """``value`` if it is in [0, 1), or a ConfigError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ConfigError(f"model.{name}: {value!r} is not a fraction of at least 0 and below 1.")
    return float(value)


class PointNorm(nn.BatchNorm1d):
    """Batch norm of the last axis over all the others, without moving any data."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[..., channels]``."""
        return super().forward(x.flatten(0, -2)).view_as(x)


class MaxMeanPool(nn.Module):
    """The maximum and the mean over the points, side by side."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, C]`` to ``[B, 2 C]``."""
        return torch.cat([x.max(1).values, x.mean(1)], dim=1)


class Head(nn.Module):
    """Hidden layers with norm, activation and dropout, then the linear ``output``.

    Args:
        widths: of the input and of every hidden layer.
        num_outputs: width of the output.
        activation: a module that every hidden layer shares.
        dropout: fraction dropped after each hidden layer.
        norm: whether a batch norm follows each hidden matrix.
        bias: of each hidden matrix; all have one by default.
    """

    def __init__(
        self,
        widths: Sequence[int],
        num_outputs: int,
        activation: nn.Module,
        dropout: float,
        norm: bool = True,
        bias: Sequence[bool] | None = None,
    ):
        super().__init__()
        bias = bias or [True] * (len(widths) - 1)
        layers: list[nn.Module] = []
        for (wide, narrow), with_bias in zip(pairwise(widths), bias):
            layers.append(nn.Linear(wide, narrow, bias=with_bias))
            layers += [nn.BatchNorm1d(narrow)] if norm else []
            layers += [activation, nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(widths[-1], num_outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        """``[size, widths[0]]`` to ``[size, num_outputs]``."""
        return self.output(self.hidden(pooled))
