"""A network with its batch norms folded into the weights ahead of them: one form for a function.

In eval mode a batch norm computes ``gamma (w x + b - mu) / sigma + beta``. Scaling w and gamma
against each other, or shifting b against beta, changes the parameters and the Hessian's eigenvalues
but not the function. Such a change is not diagonal, so even a sharpness that is unchanged by every
diagonal rescaling of the parameters sees it. Folding leaves ``w' x + beta'`` with

    w' = gamma w / sigma,   beta' = beta + gamma (b - mu) / sigma,

gamma' = sigma and b' = 0 frozen, mu' = 0: the same for all networks that differ by that gauge.
"""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from equiscape.data.base import Batch
from equiscape.errors import EquiscapeError
from equiscape.landscape import objective
from equiscape.objectives import Classification
from equiscape.symmetries import Continuous, declared
from equiscape.task import Task

SHIFTS = {
    "input shift": False,
    "stream shift": False,
    "table sums": False,
    "norm shift": True,
    "softmax shift": True,
}
"""Families of declared symmetries that add a constant: to all their parameters, or (False) to the
first, while the others take it back."""
ROUNDS = 200


@torch.no_grad()
def folded(task: Task, model: nn.Module, batch: Batch) -> tuple[nn.Module, list[str]]:
    """A copy of ``model`` in eval mode with folded norms, and the parameters that this froze.

    Shifts that the network declares (:data:`SHIFTS` of ``symmetries()``; that of the softmax under
    cross entropy only) are absorbed by the parameters that take them back. What no folding takes
    out are changes of basis that are not diagonal: families ``basis change``, ``constant columns``.

    Args:
        task: that the network belongs to.
        model: the network; it is not changed.
        batch: a few samples, to see which matrix feeds which norm and to check the result.

    Raises:
        EquiscapeError: the folded network is not the same function.
    """
    dtype = next(model.parameters()).dtype
    # in double precision: rounding of single may exchange two neighbors of a graph in feature space
    model, batch = deepcopy(model).eval().double(), objective.cast(batch, torch.float64)
    before = _logits(task, model, batch)
    modules, frozen = dict(model.named_modules()), []
    for norm_name, linear_name in norm_producers(task, model, batch).items():
        norm, linear = modules[norm_name], modules[linear_name]
        sigma = (norm.running_var + norm.eps).sqrt()
        scale = norm.weight / sigma
        linear.weight.mul_(scale[:, None])
        norm.bias.sub_(scale * norm.running_mean)
        if linear.bias is not None:
            norm.bias.add_(scale * linear.bias)
            linear.bias.zero_()
            frozen.append(f"{linear_name}.bias")
        norm.weight.copy_(sigma)
        norm.running_mean.zero_()
        frozen.append(f"{norm_name}.weight")
    frozen += _absorb_shifts(model, isinstance(task.dataset.objective, Classification))
    after = _logits(task, model, batch)
    scale = max(before.abs().max().item(), 1e-30)
    if not (after - before).abs().max().item() <= 1e-6 * scale:
        raise EquiscapeError(
            f"folding the batch norms of task {task.name!r} changes its network's output by "
            f"{(after - before).abs().max().item():.2g}; set analyses.sharpness.folded: false."
        )
    return model.to(dtype), frozen


def _absorb_shifts(model: nn.Module, softmax: bool) -> list[str]:
    """Take out what is added to one parameter and taken back by others, see :data:`SHIFTS`.

    Of each declared shift the element is taken that makes the shifted parameters smallest: a bias
    becomes zero and is frozen, rows of a matrix or a table get the mean zero. Shifts may act on
    each other's parameters, so they take turns until nothing moves.
    """
    chosen = [
        symmetry
        for symmetry in declared(model)
        if isinstance(symmetry, Continuous)
        and symmetry.family in SHIFTS
        and (softmax or symmetry.family != "softmax shift")
    ]
    state = model.state_dict()
    epsilon = torch.finfo(next(model.parameters()).dtype).eps
    for _ in range(ROUNDS):
        moved = 0.0
        for symmetry in chosen:
            coefficients = _smallest(symmetry, state)
            moved = max(moved, coefficients.abs().max().item())
            for name, tensor in symmetry.element(state, coefficients).items():
                state[name].copy_(tensor)
        if moved <= 10 * epsilon:
            break
    firsts = [s.parameters[0] for s in chosen if state[s.parameters[0]].shape == s.shape]
    for name in firsts:
        state[name].zero_()  # all but rounding
    return firsts


@torch.enable_grad()
def _smallest(symmetry: Continuous, state: dict[str, Tensor]) -> Tensor:
    """The coefficients c that make the shifted parameters ``p + L c`` smallest.

    Each channel has a coefficient of its own, so ``L^T L`` is diagonal and two gradients of
    ``|p + L c|^2 / 2`` give it and ``L^T p``.
    """
    names = symmetry.parameters if SHIFTS[symmetry.family] else symmetry.parameters[:1]

    def slope(start: Tensor) -> Tensor:
        c = start.clone().requires_grad_()
        moved = symmetry.element(state, c)
        size: Any = sum(moved[name].square().sum() / 2 for name in names)
        return torch.autograd.grad(size, c)[0]

    zeros = torch.zeros(symmetry.shape, dtype=state[names[0]].dtype, device=state[names[0]].device)
    first = slope(zeros)
    diagonal = slope(torch.ones_like(zeros)) - first
    return torch.where(diagonal > 0.5, -first / diagonal.clamp_min(0.5), 0.0)


@torch.no_grad()
def norm_producers(task: Task, model: nn.Module, batch: Batch) -> dict[str, str]:
    """Name of a batch norm -> name of the linear module whose output it normalizes.

    Found where both are the ``norm`` and the ``linear`` of one module, or where the tensor that a
    forward pass gives to the norm is the one that the linear module returned. A norm of anything
    else (of the data, say) is left out.
    """
    names = {module: name for name, module in model.named_modules()}
    found: dict[str, str] = {}
    for module in names:
        norm, linear = getattr(module, "norm", None), getattr(module, "linear", None)
        if isinstance(norm, _BatchNorm) and isinstance(linear, nn.Linear):
            found[names[norm]] = names[linear]
    outputs: dict[int, tuple[Tensor, str]] = {}

    def remember(module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        outputs[id(output)] = (output, names[module])

    def match(module: nn.Module, inputs: tuple) -> None:
        if inputs and id(inputs[0]) in outputs:
            found.setdefault(names[module], outputs[id(inputs[0])][1])

    hooks = [m.register_forward_hook(remember) for m in names if isinstance(m, nn.Linear)]
    hooks += [m.register_forward_pre_hook(match) for m in names if isinstance(m, _BatchNorm)]
    try:
        task.output(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return _in_order(found, names.values())


def _in_order(found: dict[str, str], order: Iterable[str]) -> dict[str, str]:
    return {name: found[name] for name in order if name in found}


def _logits(task: Task, model: nn.Module, batch: Batch) -> Tensor:
    """Outputs, less their mean over the classes where only differences count."""
    output = task.output(model, batch)
    if isinstance(task.dataset.objective, Classification):
        output = output - output.mean(-1, keepdim=True)
    return output
