"""Identities that parameter symmetries force on gradient and Hessian, and what is conserved.

If the loss is unchanged by the flow of X(theta), then (Yang & Ziyin, arXiv 2512.21447)

    <g, X> = 0,    H X = -(DX)^T g,    X^T H X = -<(DX)^T g, X>.

For linear generators X_c = A_c theta with A_c symmetric, ``theta^T A_c theta`` is conserved by
gradient flow: how far it lies from zero says how unbalanced a layer is, and how it moves along a
training says what an optimizer does that gradient flow does not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, lsqr
from torch import Tensor, nn

from equiscape.landscape.objective import TrainingLoss
from equiscape.symmetries import Continuous, Permutation, Symmetry


class ModeLoss(TrainingLoss):
    """A training loss in train or eval mode, dropout off in both.

    In train mode batch norms use the statistics of their chunk, so the loss depends on
    ``batch_size``; the running statistics of the copied network move and do not matter.
    """

    def __init__(self, *arguments, training: bool, **keywords):
        super().__init__(*arguments, **keywords)
        self.training = training
        if training:
            self.model.train()
            for module in self.model.modules():
                if "Dropout" in type(module).__name__:
                    module.eval()

    def _edges_fit(self) -> bool:
        # judged from one sample, which has no batch statistics
        return not self.training and super()._edges_fit()


@dataclass(frozen=True)
class Identity:
    """How well a family of symmetries keeps its identities at a point.

    Attributes:
        family: of the symmetries.
        mode: in which the loss was taken.
        dimension: of the span of their generators.
        first: ``|<g, X>| / sum |g_i X_i|``, relative to the cancellation that it takes.
        second: ``|H X + (DX)^T g|`` over the larger of both norms; where ``(DX)^T g`` is zero, over
            ``|X| |lambda_1|``.
        rayleigh: ``X^T H X / |X|^2`` as measured.
        predicted: the same from the gradient alone.
    """

    family: str
    mode: str
    dimension: int
    first: float
    second: float
    rayleigh: float
    predicted: float


def applicable(symmetries: Sequence[Symmetry], training: bool, loss: str) -> list[Continuous]:
    """The continuous symmetries of the loss named ``loss`` that hold in this mode."""
    return [
        s
        for s in symmetries
        if isinstance(s, Continuous)
        and s.holds(training)
        and (s.invariant == "output" or loss == "cross entropy")
    ]


def state_of(objective: TrainingLoss, gradient: bool = False) -> dict[str, Tensor]:
    """Parameters and buffers of an objective's network by name; parameters as leaves if wanted."""
    model: nn.Module = objective.model
    state = {name: buffer.detach() for name, buffer in model.named_buffers()}
    for name, parameter in model.named_parameters():
        state[name] = parameter.detach().clone().requires_grad_(gradient)
    return state


def identity(
    objective: TrainingLoss,
    gradient: Tensor,
    family: Sequence[Continuous],
    mode: str,
    largest: float,
    generator: torch.Generator,
) -> Identity:
    """One random combination of a whole family, at the cost of one Hessian product.

    Args:
        objective: the loss, at the point.
        gradient: ``[n]``, of the objective.
        family: symmetries of one family that hold in the objective's mode.
        mode: its name.
        largest: magnitude of the Hessian's largest eigenvalue, the scale of a product.
        generator: of the combination.
    """
    state = state_of(objective, gradient=True)
    parts = dict(zip(objective.names, objective.split_vector(gradient), strict=True))
    field: dict[str, Tensor] = {}
    for symmetry in family:
        coefficients = torch.randn(symmetry.shape, generator=generator, dtype=torch.float64)
        coefficients = coefficients.to(gradient)
        for name, tensor in symmetry.generator(state, coefficients).items():
            field[name] = field[name] + tensor if name in field else tensor
    product: Any = sum((tensor * parts[name]).sum() for name, tensor in field.items())
    leaves = [state[name] for name in objective.names]
    turned_parts: list[Tensor | None]
    if product.requires_grad:
        turned_parts = list(torch.autograd.grad(product, leaves, allow_unused=True))
    else:  # a constant field, such as a shift of biases
        turned_parts = [None] * len(leaves)
    turned = objective.flatten(turned_parts)
    x = objective.flatten([field.get(name) for name in objective.names])
    curved = objective.operator(x[None])[0]
    terms = gradient.double() * x.double()
    size = x.double().square().sum().item()
    scale = max(curved.norm().item(), turned.norm().item())
    if turned.norm() == 0:
        scale = abs(largest) * size**0.5
    return Identity(
        family=family[0].family,
        mode=mode,
        dimension=sum(s.dimension for s in family),
        first=ratio(abs(terms.sum().item()), terms.abs().sum().item()),
        second=ratio((curved + turned).norm().item(), scale),
        rayleigh=(x.double() @ curved.double()).item() / size,
        predicted=-(x.double() @ turned.double()).item() / size,
    )


def ratio(part: float, whole: float) -> float:
    """``part / whole``, 0 where both are."""
    return 0.0 if part == 0 else part / whole if whole else float("inf")


def imbalance(state: dict[str, Tensor], symmetry: Continuous) -> Tensor:
    """``[coefficients]``: ``<X_c, theta>`` for each coefficient c, the moment map at a point.

    It is half the derivative of the squared parameter norm along the orbit, so zero where the
    network is balanced. Where the generator is ``A_c theta`` with a symmetric ``A_c``, gradient
    flow conserves it.
    """
    zero = torch.zeros(symmetry.shape, dtype=torch.float64)
    zero = zero.to(next(iter(state.values())).device).requires_grad_()
    base = {n: t.double() if t.is_floating_point() else t for n, t in state.items()}
    changed = symmetry.element(base, zero)
    norm: Any = sum(changed[name].square().sum() for name in symmetry.parameters) / 2
    return torch.autograd.grad(norm, zero)[0].flatten()


def relative_imbalance(state: dict[str, Tensor], symmetry: Continuous) -> tuple[float, float]:
    """Norm of the imbalance, and that norm over the squared norm of the parameters involved."""
    value = imbalance(state, symmetry).norm().item()
    size = sum(state[name].double().square().sum().item() for name in symmetry.parameters)
    return value, ratio(value, size)


class Span:
    """The span of the generators of some symmetries at a point, for projections onto it.

    Args:
        objective: the loss, at the point.
        symmetries: whose generators span it.
    """

    def __init__(self, objective: TrainingLoss, symmetries: Sequence[Continuous]):
        self.objective, self.symmetries = objective, symmetries
        self.state = {
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in state_of(objective).items()
        }
        self.sizes = [int(np.prod(s.shape, dtype=int)) for s in symmetries]
        self.dimension = sum(s.dimension for s in symmetries)

    def fields(self, coefficients: np.ndarray) -> np.ndarray:
        """``[n]``: the combination of generators."""
        field: dict[str, Tensor] = {}
        start = 0
        for symmetry, size in zip(self.symmetries, self.sizes, strict=True):
            part = torch.from_numpy(coefficients[start : start + size]).view(symmetry.shape)
            start += size
            part = part.to(self.objective.device)
            for name, tensor in symmetry.generator(self.state, part).items():
                field[name] = field[name] + tensor if name in field else tensor
        parts = [field.get(name) for name in self.objective.names]
        return self.objective.flatten(parts).double().cpu().numpy()

    def products(self, vector: np.ndarray) -> np.ndarray:
        """``[coefficients]``: inner products of ``vector [n]`` with every generator."""
        parts = self.objective.split_vector(torch.from_numpy(vector).to(self.objective.device))
        by_name = dict(zip(self.objective.names, parts, strict=True))
        found = []
        for symmetry in self.symmetries:
            zero = torch.zeros(symmetry.shape, dtype=torch.float64, device=self.objective.device)
            zero.requires_grad_()
            changed = symmetry.element(self.state, zero)
            total: Any = sum((changed[n] * by_name[n]).sum() for n in symmetry.parameters)
            found.append(torch.autograd.grad(total, zero)[0].flatten().cpu().numpy())
        return np.concatenate(found)

    def share(self, vector: Tensor, tolerance: float = 1e-8, steps: int = 400) -> float:
        """The share of ``|vector|^2`` that lies in the span, by least squares (LSQR)."""
        target = vector.detach().double().cpu().numpy()
        length = float(np.linalg.norm(target))
        if not self.symmetries or length == 0:
            return 0.0
        shape = (self.objective.size, sum(self.sizes))
        operator = LinearOperator(shape, self.fields, self.products, dtype=np.float64)
        found = lsqr(operator, target / length, atol=tolerance, btol=tolerance, iter_lim=steps)
        return float(max(0.0, 1.0 - found[3] ** 2))


def permuted(
    model: nn.Module, permutations: Sequence[Permutation], generator: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state of a network with all its free orders drawn at random, and the orders."""
    state: dict[str, Tensor] = dict(model.state_dict())
    orders = {}
    for p in permutations:
        orders[p.name] = p.draw(generator)
        state = p.act(state, orders[p.name])
    return state, orders


def by_family(symmetries: Sequence[Continuous]) -> Iterator[list[Continuous]]:
    """Symmetries that share a family, family by family."""
    for family in dict.fromkeys(s.family for s in symmetries):
        yield [s for s in symmetries if s.family == family]
