"""What the point-cloud networks share: norms folded into weights, pooling, head, checks."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscape import symmetries as sym
from equiscape.ops.chunks import chunk_size, first_maximum, transformed
from equiscape.ops.moments import moments
from equiscape.ops.precision import full_products


class FoldedNorm(nn.BatchNorm1d):
    """Batch norm of ``W x`` as another weight and a bias, without ever holding ``W x``.

    Over rows x with mean m and covariance S, the rows ``W x`` have mean ``W m`` and variance
    ``diag(W S W^T)``. So batch statistics cost a product of narrow inputs instead of passes over
    wide outputs, and gradients through them are exact. Parameters and running statistics are those
    of ``nn.BatchNorm1d`` applied to the rows ``W x``.
    """

    def forward(
        self, weight: Tensor, moments: tuple[Tensor, Tensor] | None, count: int
    ) -> tuple[Tensor, Tensor]:
        """The ``weight [C', C]`` and ``bias [C']`` of ``norm(W x)``.

        Args:
            weight: ``W [C', C]``.
            moments: mean ``[C]`` and (biased) covariance ``[C, C]`` of the rows in training mode.
            count: of the rows; running variances are unbiased.
        """
        if self.training:
            center, covariance = moments
            with full_products(weight.device):
                mean = weight @ center
                variance = ((weight @ covariance) * weight).sum(1).clamp_min(0.0)
            self._track(mean.detach(), variance.detach() * (count / max(1, count - 1)))
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return scale.unsqueeze(1) * weight, self.bias - scale * mean

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
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

    def fold(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of ``norm(W x)`` for the points ``x [..., channels_in]``."""
        rows = x.flatten(0, -2)
        statistics = moments(rows) if self.norm.training else None
        return self.norm(self.linear.weight, statistics, len(rows))

    def forward(self, x: Tensor) -> Tensor:
        """``[clouds, points, channels_in]`` to ``[clouds, points, channels_out]``."""
        rows = F.linear(x.flatten(0, -2), *self.fold(x))  # flat: in place on a view costs copies
        if self.slope:
            rows = F.leaky_relu(rows, self.slope, inplace=True)
        else:  # which a leaky one of slope 0 is not: it makes NaN of -inf
            rows = F.relu(rows, inplace=True)
        return rows.view(*x.shape[:-1], -1)


def max_points(x: Tensor) -> Tensor:
    """``[B, N, C]`` to ``[B, C]``: the maximum over the points; of ties the first counts."""
    if transformed(x):
        return x.max(1).values
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
            norm = f"{prefix}.hidden.{place}" if isinstance(follower, nn.BatchNorm1d) else None
            homogeneous = isinstance(
                self.hidden[place + (norm is not None)], (nn.ReLU, nn.LeakyReLU)
            )
            found += neuron_symmetries(
                name, sym.columns(reader, 0), size, biased, norm, follower, homogeneous
            )
        return found


def neuron_symmetries(
    linear: str,
    readers: Sequence[sym.Tie],
    size: int,
    biased: bool,
    norm: str | None,
    module: nn.Module | None,
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
    if norm is None:
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
