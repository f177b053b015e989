"""What the point-cloud networks share: norms folded into weights, pooling, head, checks."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscape import symmetries as sym
from equiscape.ops.chunks import chunk_size, differentiated, first_maximum, transformed
from equiscape.ops.moments import FEW, Moments, centered, moments


class FoldedNorm(nn.BatchNorm1d):
    """Batch norm of ``W x`` as another weight and a bias, without ever holding ``W x``.

    Over rows x with mean m and covariance S, the rows ``W x`` have mean ``W m`` and variance
    ``diag(W S W^T)``. So batch statistics cost a product of narrow inputs instead of passes over
    wide outputs, and gradients through them are exact. Parameters and running statistics are those
    of ``nn.BatchNorm1d`` applied to the rows ``W x``.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    # It takes a weight where a batch norm takes rows.
    def forward(  # type: ignore[override]
        self, weight: Tensor, moments: Moments | None
    ) -> tuple[Tensor, Tensor]:
        """The folded ``weight [C', C]`` and what is added.

        Args:
            weight: ``W [C', C]``.
            moments: of the rows, in training mode. Then ``[places, C']`` is added, and the weight
                acts on the rows relative to those places: with the centers of clouds, a distant
                cloud costs no digits. In eval mode ``[1, C']`` is added.
        """
        if not self.training:
            scale = self.weight * torch.rsqrt(self.running_var + self.eps)
            return scale.unsqueeze(1) * weight, (self.bias - scale * self.running_mean)[None]
        rows: Any = moments  # never None in training mode
        mean, variance = rows.linear(weight)
        origin = weight.detach().double() @ rows.origin.detach()
        self._track(origin + mean.detach(), variance, rows)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return scale.unsqueeze(1) * weight, rows.shared(weight, scale) + self.bias

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, moments: Moments) -> None:
        """Update the running statistics; running variances are unbiased."""
        variance = variance * (moments.count / max(1, moments.count - 1))
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


class PointLayer(nn.Module):
    """``activation(norm(W x))`` on every point.

    Args:
        channels_in: of each point.
        channels_out: of each point.
        slope: of the activation below zero: 0 for ReLU, else a leaky one.
    """

    def __init__(self, channels_in: int, channels_out: int, slope: float = 0.0):
        super().__init__()
        self.linear = nn.Linear(channels_in, channels_out, bias=False)
        self.norm = FoldedNorm(channels_out)
        self.slope = slope

    def fold(self, x: Tensor, relative: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Points, weight and what is added, such that ``norm(W x)`` is their affine map.

        Args:
            x: ``[clouds, points, channels_in]``.
            relative: give the points relative to the centers of their clouds in training mode, so
                ``[clouds, channels_out]`` is added instead of ``[1, channels_out]``.
        """
        if not self.norm.training:
            return x, *self.norm(self.linear.weight, None)
        u, centers = centered(x)
        found = moments(u, centers)
        if relative:
            return u, *self.norm(self.linear.weight, found)
        return x, *self.norm(self.linear.weight, found.absolute())

    def forward(self, x: Tensor) -> Tensor:
        """``[clouds, points, channels_in]`` to ``[clouds, points, channels_out]``."""
        x, weight, added = self.fold(x, relative=self.linear.in_features <= FEW)
        if len(added) == 1:
            rows = F.linear(x.flatten(0, -2), weight, added[0])  # flat: in place on a view copies
            return activate(rows, self.slope).view(*x.shape[:-1], -1)
        return activate(add_to_clouds(F.linear(x, weight), added), self.slope)


def activate(x: Tensor, slope: float) -> Tensor:
    """ReLU, or a leaky one, in place. The one of slope 0 is no ReLU: it makes NaN of -inf."""
    return F.leaky_relu(x, slope, inplace=True) if slope else F.relu(x, inplace=True)


def add_to_clouds(x: Tensor, added: Tensor) -> Tensor:
    """``x [clouds, points, C]``, which may be overwritten, plus ``added [clouds, C]``."""
    added = added.unsqueeze(1)
    if transformed(x) or transformed(added):
        return x + added
    return x.add_(added) if x.dtype == added.dtype else x + added.to(x.dtype)


def max_points(x: Tensor) -> Tensor:
    """``[B, N, C]`` to ``[B, C]``: the maximum over the points; of ties the first counts."""
    if transformed(x):
        return x.max(1).values
    if not differentiated(x):
        return x.amax(1)
    return x.gather(1, _winners(x).unsqueeze(1)).squeeze(1)


@torch.no_grad()
def _winners(x: Tensor) -> Tensor:
    clouds = max(1, chunk_size(x.device) // x[0].numel())
    scratch = torch.empty_like(x[:clouds])
    chunks = x.split(clouds)
    return torch.cat([first_maximum(chunk, scratch[: len(chunk)]) for chunk in chunks])


class MaxMeanPool(nn.Module):
    """The maximum and the mean over the points, side by side."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, C]`` to ``[B, 2 C]``."""
        return torch.cat([max_points(x), x.mean(1)], dim=1)


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

    def first(self) -> str:
        """Name within the head of the layer that reads the pooled features."""
        return "hidden.0" if len(self.hidden) else "output"

    def symmetries(self, prefix: str = "head") -> list[sym.Symmetry]:
        """Of the hidden neurons and the output; ``prefix`` is the head's name in the network."""
        linear = [(f"{prefix}.output", self.output)]
        found: list[sym.Symmetry] = [sym.softmax_shift(f"{prefix}.output", self.output.in_features)]
        modules = list(self.hidden.named_children())
        linear = [
            (f"{prefix}.hidden.{i}", m) for i, m in modules if isinstance(m, nn.Linear)
        ] + linear
        for (name, layer), (reader, _) in pairwise(linear):
            place, biased = int(name.rpartition(".")[2]) + 1, layer.bias is not None
            follower, size = self.hidden[place], layer.out_features
            module = follower if isinstance(follower, nn.BatchNorm1d) else None
            norm = None if module is None else f"{prefix}.hidden.{place}"
            homogeneous = isinstance(
                self.hidden[place + (norm is not None)], (nn.ReLU, nn.LeakyReLU)
            )
            found += neuron_symmetries(
                name, sym.columns(reader, 0), size, biased, norm, module, homogeneous
            )
        return found


def neuron_symmetries(
    linear: str,
    readers: Sequence[sym.Tie],
    size: int,
    biased: bool,
    norm: str | None,
    module: nn.BatchNorm1d | None,
    homogeneous: bool,
    uniform: bool = False,
) -> list[sym.Symmetry]:
    """What a hidden layer ``activation(norm(W x + b))`` leaves free.

    Args:
        linear: name of the linear layer.
        readers: columns of all that reads the layer's output.
        size: neurons.
        biased: whether the linear layer has a bias.
        norm: name of the batch norm, or None; ``module`` is the norm itself.
        homogeneous: whether the activation is ReLU or a leaky one.
        uniform: see :class:`equiscape.symmetries.Continuous`.
    """
    writers = sym.rows(linear, biased=biased)
    found: list[sym.Symmetry] = []
    if norm is None or module is None:
        found.append(sym.permutation(f"{linear} neurons", size, [*writers, *readers]))
        if homogeneous:
            found.append(
                sym.scale(f"{linear} neuron scale", "neuron scale", size, writers, readers)
            )
        return found
    ties = [*writers, *sym.affine(norm), *readers]
    found.append(sym.permutation(f"{linear} neurons", size, ties, sym.running(norm)))
    found += sym.norm_gauges(linear, norm, size, biased, module.eps)
    if homogeneous:
        found.append(
            sym.scale(
                f"{linear} neuron scale",
                "neuron scale",
                size,
                sym.affine(norm),
                readers,
                uniform=uniform,
            )
        )
    return found
