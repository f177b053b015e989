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

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from equiscape.data.base import Batch
from equiscape.errors import EquiscapeError
from equiscape.objectives import Classification
from equiscape.task import Task


@torch.no_grad()
def folded(task: Task, model: nn.Module, batch: Batch) -> tuple[nn.Module, list[str]]:
    """A copy of ``model`` in eval mode with folded norms, and the parameters that this froze.

    Shifts of a residual stream that the network declares (``symmetries()``, family
    ``stream shift``) are absorbed by the biases that read it. Under cross entropy the mean over the
    classes is taken from ``head.output`` too, for a constant added to all logits changes nothing.

    Args:
        task: that the network belongs to.
        model: the network; it is not changed.
        batch: a few samples, to see which matrix feeds which norm and to check the result.

    Raises:
        EquiscapeError: the folded network is not the same function.
    """
    model = deepcopy(model).eval()
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
    frozen += _absorb_shifts(model)
    if isinstance(task.dataset.objective, Classification):
        output = modules.get("head.output")
        if isinstance(output, nn.Linear):
            output.weight.sub_(output.weight.mean(0, keepdim=True))
            if output.bias is not None:
                output.bias.sub_(output.bias.mean())
    after = _logits(task, model, batch)
    scale = max(before.abs().max().item(), 1e-30)
    if not (after - before).abs().max().item() <= 1e-3 * scale:
        raise EquiscapeError(
            f"folding the batch norms of task {task.name!r} changes its network's output by "
            f"{(after - before).abs().max().item():.2g}; set analyses.sharpness.folded: false."
        )
    return model, frozen


def _absorb_shifts(model: nn.Module) -> list[str]:
    """Move every bias that only shifts a residual stream into the biases that read the stream."""
    declared = getattr(model, "symmetries", None)
    frozen = []
    for symmetry in declared() if declared else ():
        if symmetry.family != "stream shift":
            continue
        state, bias = model.state_dict(), symmetry.parameters[0]
        if state[bias].shape != symmetry.shape or not symmetry.holds(training=False):
            continue
        changed = symmetry.element(state, -state[bias])
        for name, tensor in changed.items():
            state[name].copy_(tensor)
        frozen.append(bias)
    return frozen


@torch.no_grad()
def norm_producers(task: Task, model: nn.Module, batch: Batch) -> dict[str, str]:
    """Name of a batch norm -> name of the linear module whose output it normalises.

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
