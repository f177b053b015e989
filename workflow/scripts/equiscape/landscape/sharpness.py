"""Sharpness that a change of parameters without a change of the function cannot fake.

Operators and estimates at a :class:`~equiscape.landscape.objective.TrainingLoss`; what each is
unchanged by stands beside it, and holds for folded networks (:mod:`equiscape.landscape.folding`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.operators import SymmetricOperator
from equiscape.landscape.trace import mean_interval, rademacher


def log_hessian(operator: SymmetricOperator, theta: Tensor, gradient: Tensor) -> SymmetricOperator:
    """``K = Theta H Theta + diag(theta g)``, the Hessian with respect to ``log |theta|``.

    Unchanged by every diagonal rescaling; generators of rescalings are exact null vectors of it,
    at a minimum or not.
    """
    diagonal = theta * gradient

    def apply(vectors: Tensor) -> Tensor:
        return theta * operator(theta * vectors) + diagonal * vectors

    return replace(operator, apply=apply, products=0)


def row_norms(objective: TrainingLoss) -> Tensor:
    """``[n]``: for each entry of a matrix the norm of its row, for each other its magnitude.

    ``T H T`` with this T is the filter-wise sharpness: unchanged by scaling rows, not columns.
    """
    parts = []
    for parameter in objective.parameters:
        value = parameter.detach()
        if value.dim() < 2:
            parts.append(value.abs().flatten())
        else:
            norms = value.flatten(1).norm(dim=1, keepdim=True)
            parts.append(norms.expand_as(value.flatten(1)).flatten())
    return torch.cat(parts)


def fisher_rao(gauss_newton: SymmetricOperator, theta: Tensor) -> float:
    """``theta^T G theta``: the mean over samples of the output's curvature along ``J theta``.

    For cross entropy ``mean (J theta)^T (diag p - p p^T) (J theta)`` (Liang et al. 2019). Unchanged
    by every linear change of the parameters that leaves the function as it is. One product.
    """
    return (theta.double() @ gauss_newton(theta[None])[0].double()).item()


@dataclass(frozen=True)
class Estimate:
    """A mean over random probes.

    Attributes:
        value: the mean.
        standard_error: of it.
    """

    value: float
    standard_error: float


def relative_flatness(
    objective: TrainingLoss, probes: int, generator: torch.Generator | None = None
) -> dict[str, Estimate]:
    """``kappa_l = sum_(s, s') <w_s, w_s'> tr H_ss'`` of every matrix (Petzka et al. 2021).

    Tables of embeddings are left out: a row is looked up, not multiplied by.

    ``kappa = E <W Z, H [W Z]>`` with Z of independent signs, input size squared. All matrices are
    probed by one product: their Z are independent, so what one adds to another's has mean zero.
    Unchanged by scaling rows, and by scaling a layer against another, not by scaling its inputs.

    Returns:
        Name of a matrix to its estimate.
    """
    modules = {n: objective.model.get_submodule(n.rpartition(".")[0]) for n in objective.names}
    names = [
        name
        for name, parameter in zip(objective.names, objective.parameters, strict=True)
        if parameter.dim() == 2 and not isinstance(modules[name], nn.Embedding)
    ]
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(probes):
        parts = {}
        for name, parameter in zip(objective.names, objective.parameters, strict=True):
            value = parameter.detach()
            if name not in samples:
                parts[name] = torch.zeros_like(value).flatten()
                continue
            side = replace(objective.operator, size=value.shape[1])
            parts[name] = (value @ rademacher(side, value.shape[1], generator)).flatten()
        direction = torch.cat(list(parts.values()))
        image = objective.operator(direction[None])[0]
        images = dict(zip(objective.names, objective.split_vector(image), strict=True))
        for name in names:
            samples[name].append((parts[name].double() @ images[name].flatten().double()).item())
    return {name: Estimate(*mean_interval(values)[:2]) for name, values in samples.items()}


@dataclass(frozen=True)
class Directional:
    """Curvature along a direction D of unit length.

    Attributes:
        whole: ``<D, H D> / |D|^2``.
        within: the part from D's blocks each with itself, ``sum_l <D_l, H D_l> / |D|^2``, NaN
            where it was not asked for.
    """

    whole: float
    within: float

    @property
    def across(self) -> float:
        """What the blocks add to each other."""
        return self.whole - self.within


def directional(objective: TrainingLoss, direction: Tensor, within: bool = True) -> Directional:
    """Normalized directional sharpness of ``direction [n]``, within and across layers.

    A layer is what one module holds, weight and bias together. One product for each layer that
    the direction moves; without ``within`` (then NaN) one product in all.
    """
    size = (direction.double() @ direction.double()).item()
    parts = objective.split_vector(direction)
    modules = [name.rpartition(".")[0] for name in objective.names]
    blocks = [direction]
    if within:
        blocks = [
            objective.flatten(
                [p if m == module else None for p, m in zip(parts, modules, strict=True)]
            )
            for module in dict.fromkeys(modules)
        ]
    moving = torch.stack([block for block in blocks if block.any()])
    images = objective.operator(moving).double()
    whole = (direction.double() @ images.sum(0)).item()
    each = (moving.double() * images).sum().item() if within else math.nan
    return Directional(whole / size, each / size)


def restricted(
    objective: TrainingLoss, names: Sequence[str]
) -> tuple[SymmetricOperator, list[tuple[int, int]], Tensor]:
    """H over the parameters ``names`` alone, their shapes, and the places ``[m]`` they take."""
    chosen: list[Tensor] = []
    shapes: list[tuple[int, int]] = []
    start = 0
    for name, parameter in zip(objective.names, objective.parameters, strict=True):
        if name in names:
            chosen.append(torch.arange(start, start + parameter.numel()))
            rows, columns = parameter.shape
            shapes.append((rows, columns))
        start += parameter.numel()
    places = torch.cat(chosen).to(objective.device)

    def apply(vectors: Tensor) -> Tensor:
        whole = vectors.new_zeros(len(vectors), objective.size)
        whole[:, places] = vectors
        return objective.operator(whole)[:, places]

    operator = replace(objective.operator, size=len(places), apply=apply, products=0)
    return operator, shapes, places
