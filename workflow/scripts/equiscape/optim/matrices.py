"""What the optimizers of hidden matrices share: two parts, the scale, polar steps by batches."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from equiscape.optim.adamw import adamw_step, check
from equiscape.optim.frozen import Frozen, adam
from equiscape.optim.newton_schulz import (
    CONVERGENT,
    NS_DTYPES,
    WIDE,
    ns_dtype,
    orthogonalize,
    polar_express,
)
from equiscape.optim.spectrum import powered

ADJUST_LR_FN = ("match_rms_adamw", "original")
TILE = 2**17  # float32 entries of the matrices that a CPU treats at once
POLAR = ("newton-schulz", "polar-express", "convergent", "exact")


class MatrixOptimizer(Optimizer):
    """One update for hidden matrices and AdamW for the rest, as one optimizer.

    A parameter group carries ``algorithm``: the class's own (the default; 2-D parameters only) or
    ``"adamw"``, whose learning rate is ``lr_ratio`` times the other's. It may carry ``blocks``: for
    each of its parameters, how many matrices of equal height its rows are. A subclass defines
    :meth:`update`, which sees each of those as a matrix of its own.

    Args:
        params: parameters or parameter groups.
        defaults: of a parameter group; with ``lr``, ``weight_decay``, ``betas``, ``adamw_eps`` and
            ``lr_ratio``.

    Raises:
        ValueError: a value is out of range, or a parameter is no matrix.
    """

    orthogonalizes = True  # has two parameter groups, see equiscape.optim.groups
    algorithm = "muon"  # the first one's name

    def __init__(self, params, defaults: dict[str, Any]):
        check(defaults["lr"], defaults["weight_decay"], defaults["betas"], defaults["adamw_eps"])
        if not 0 <= defaults["lr_ratio"] < float("inf"):
            raise ValueError(f"lr_ratio {defaults['lr_ratio']} must be zero or positive")
        defaults = {**defaults, "algorithm": self.algorithm, "blocks": None}
        super().__init__(params, defaults)
        for group in self.param_groups:
            if group["algorithm"] == "adamw":
                group["lr"] = group["lr"] * group["lr_ratio"]
                continue
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError(f"a parameter of shape {tuple(p.shape)} is no matrix")

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """Update every parameter that has a gradient; returns the ``closure``'s loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            chosen = [i for i, p in enumerate(group["params"]) if p.grad is not None]
            params = [group["params"][i] for i in chosen]
            if not params:
                continue
            if group["algorithm"] == "adamw":
                adamw_step([self.state[p] for p in params], params, group, group["adamw_eps"])
                continue
            blocks = [group["blocks"][i] for i in chosen] if group["blocks"] else None
            self.update(group, params, blocks)
        return loss

    def update(self, group: dict[str, Any], params: list[Tensor], blocks: list[int] | None) -> None:
        """Update ``params``, matrices with gradients, of which ``blocks`` counts the parts."""
        raise NotImplementedError

    def frozen(self, p: Tensor, group: dict[str, Any]) -> Frozen | None:
        """The linear map of its step, see :mod:`equiscape.optim.frozen`."""
        if group["algorithm"] == "adamw":
            return adam(self.state[p], group, group["betas"], group["adamw_eps"])
        return self.frozen_matrix(p, group)

    def frozen_matrix(self, p: Tensor, group: dict[str, Any]) -> Frozen | None:
        """The same for one of the matrices that are not AdamW's; None where there is none."""
        return None

    def radius(self, p: Tensor, group: dict[str, Any]) -> float | None:
        """Spectral norm of a step of ``p`` by ``lr``, where all its singular values are equal.

        None of what is not stepped along polar factors.
        """
        polar = "polar" in group and group["algorithm"] != "adamw" and not group.get("spectrum")
        if not polar or group.get("variant", "muon") != "muon":
            return None
        if group.get("order", "momentum-first") != "momentum-first":
            return None
        i = next(i for i, own in enumerate(group["params"]) if own is p)
        rows = p.shape[0] // (group["blocks"][i] if group["blocks"] else 1)
        return scale(rows, p.shape[1], group["adjust_lr_fn"])

    def buffers(self, params: list[Tensor], name: str, blocks: list[int] | None) -> list[Tensor]:
        """The states called ``name``, of the parameters' shapes, as matrices; zeros at first."""
        for p in params:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return parts([self.state[p][name] for p in params], blocks)


def parts(tensors: list[Tensor], blocks: list[int] | None) -> list[Tensor]:
    """``tensors`` cut along their rows into the matrices that ``blocks`` counts, as views."""
    if blocks is None:
        return tensors
    return [part for tensor, n in zip(tensors, blocks) for part in tensor.chunk(n)]


def scale(rows: int, columns: int, adjust_lr_fn: str) -> float:
    """The factor between the learning rate and the step of a ``rows x columns`` matrix.

    ``original`` is ``sqrt(max(1, rows / columns))``. ``match_rms_adamw`` is
    ``0.2 sqrt(max(rows, columns))``: the entries of the step then have the root mean square that
    AdamW's steps are observed to have (Liu et al. 2025, arXiv 2502.16982, section 2.2).
    """
    if adjust_lr_fn == "original":
        return max(1, rows / columns) ** 0.5
    return 0.2 * max(rows, columns) ** 0.5


def polar_defaults(
    ns_steps: int,
    ns_coefficients: Sequence[float],
    ns_dtype: str,
    polar: str,
    adjust_lr_fn: str,
    eps: float,
) -> dict[str, Any]:
    """The settings of :func:`polar_steps`, checked.

    Raises:
        ValueError: one is out of range.
    """
    if isinstance(ns_steps, bool) or not (isinstance(ns_steps, int) and 1 <= ns_steps < 100):
        raise ValueError(f"ns_steps {ns_steps} must be a whole number from 1 to 99")
    if len(ns_coefficients) != 3:
        raise ValueError(f"ns_coefficients {ns_coefficients} must be three numbers")
    if adjust_lr_fn not in ADJUST_LR_FN:
        raise ValueError(f"adjust_lr_fn {adjust_lr_fn!r} must be one of {', '.join(ADJUST_LR_FN)}")
    if ns_dtype not in NS_DTYPES:
        raise ValueError(f"ns_dtype {ns_dtype!r} must be one of {', '.join(NS_DTYPES)}")
    if polar not in POLAR:
        raise ValueError(f"polar {polar!r} must be one of {', '.join(POLAR)}")
    return {
        "ns_steps": ns_steps,
        "ns_coefficients": tuple(ns_coefficients),
        "ns_dtype": ns_dtype,
        "polar": polar,
        "adjust_lr_fn": adjust_lr_fn,
        "eps": eps,
    }


def polar_factor(stack: Tensor, group: dict[str, Any]) -> Tensor:
    """The polar factors of stacked matrices ``[n, rows, columns]``, by the group's settings."""
    if group.get("spectrum") is not None:
        return powered(stack, group["spectrum"], (min(stack.shape[1:])) ** 0.5)
    if group["polar"] == "exact":
        return powered(stack, 0.0)
    dtype = ns_dtype(group["ns_dtype"], stack.device)
    coefficients = group["ns_coefficients"]
    if group["polar"] == "polar-express":
        coefficients = polar_express(group["ns_steps"])
    elif group["polar"] == "convergent":
        coefficients = CONVERGENT
    wide = max(stack.shape[1:]) >= WIDE * min(stack.shape[1:])
    return orthogonalize(
        stack,
        group["ns_steps"],
        coefficients,
        dtype,
        group["eps"],
        by_gram=dtype == torch.float32 and wide,
    )


def polar_steps(
    params: list[Tensor],
    direction: Callable[[int], Tensor],
    group: dict[str, Any],
    after: Callable[[int, Tensor], Tensor] | None = None,
) -> None:
    """``p -= lr scale polar(direction)`` for each matrix of ``params``.

    Matrices of one shape, or of its transpose, are orthogonalized as one batched product.

    Args:
        params: matrices, views included; changed in place.
        direction: of the matrix with this number.
        group: with ``lr`` and the settings of :func:`polar_defaults`.
        after: what becomes of the polar factor of the matrix with this number.
    """
    for wide, tall in tiled(params, group):
        members = [direction(i) for i in wide] + [direction(i).mT for i in tall]
        stack = torch.stack(members) if len(members) > 1 else members[0].unsqueeze(0)
        del members
        stack = polar_factor(stack, group)
        for chosen, part in ((wide, stack[: len(wide)]), (tall, stack[len(wide) :].mT)):
            if not chosen:
                continue
            rows, columns = params[chosen[0]].shape
            factor = -group["lr"] * scale(rows, columns, group["adjust_lr_fn"])
            if after is not None:
                steps = [after(i, step.to(params[i].dtype)) for i, step in zip(chosen, part)]
                part = torch.stack(steps)
            add([params[i] for i in chosen], part, factor)


def tiled(params: list[Tensor], group: dict[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
    """As :func:`by_shape`, on a CPU in float32 no more at once than its cache holds."""
    for wide, tall in by_shape(params):
        p = params[(wide + tall)[0]]
        at_once = len(wide) + len(tall)
        if p.device.type == "cpu" and ns_dtype(group["ns_dtype"], p.device) == torch.float32:
            at_once = max(1, TILE // p.numel())
        for start in range(0, len(wide) + len(tall), at_once):
            stop = start + at_once
            before = len(wide)
            yield wide[start:stop], tall[max(0, start - before) : max(0, stop - before)]


def add(params: list[Tensor], steps: Tensor, factor: float) -> None:
    """``p += factor * step`` for each row of ``steps``."""
    if steps.device.type == "cpu":  # in one pass each, the conversion from bfloat16 included
        for p, step in zip(params, steps):  # turning a matrix first costs a third of adding it so
            p.add_(step.contiguous(), alpha=factor)
    else:  # contiguous and of one dtype: others foreach updates one by one
        torch._foreach_add_(params, steps.to(params[0].dtype).mul(factor).contiguous().unbind())


def by_shape(params: list[Tensor]) -> Iterator[tuple[list[int], list[int]]]:
    """Positions of the matrices of one pair of sides: the wide or square ones, the tall ones."""
    members: dict = defaultdict(lambda: ([], []))
    for i, p in enumerate(params):
        rows, columns = p.shape
        key = (min(rows, columns), max(rows, columns), p.device, p.dtype)
        members[key][rows > columns].append(i)
    yield from members.values()
