"""An optimizer's update as a linear map, its second moments held as they are: where it diverges.

On a quadratic loss with Hessian H, an update ``W <- (1 - lr wd) W - lr D`` whose D is a linear
filter of past gradients, divided by a fixed P, has modes ``z^t``; with ``F(z)`` the transfer
function of the filter (its output over its input), it diverges first at ``z = -1``, where

    lr F(-1) lambda(P^-1/2 H P^-1/2) = 2 - lr wd.

The largest eigenvalue that is stable follows (Cohen et al. 2022, arXiv 2207.14484, for Adam). An
optimizer that has such a map defines ``frozen(p, group) -> Frozen | None``; one whose steps are
polar factors defines ``radius(p, group) -> float | None``, the spectral norm of a step by the
learning rate. One that defines neither has no threshold here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


@dataclass(frozen=True)
class Frozen:
    """The linear map of one parameter.

    Attributes:
        root: ``P^-1/2`` on a tensor of the parameter's shape; symmetric.
        threshold: the largest stable eigenvalue of ``P^-1/2 H P^-1/2``; infinite at lr 0.
        penalty: c of an L2 penalty ``c |W|^2 / 2``, which adds c to every eigenvalue of H.
    """

    root: Callable[[Tensor], Tensor]
    threshold: float
    penalty: float = 0.0


def heavy_ball(beta: float, nesterov: bool = False) -> float:
    """``F(-1)`` of ``M <- beta M + G``, of ``G + beta M`` with ``nesterov``."""
    past = beta / (1 + beta)
    return 1 + past if nesterov else 1 / (1 + beta)


def average(beta: float, nesterov: bool = False) -> float:
    """``F(-1)`` of ``M <- beta M + (1 - beta) G``, of ``beta M + (1 - beta) G`` with ``nesterov``.

    At beta .9 the threshold ``2 / (lr F)`` is 38 / lr, as of Adam; at .95 78 / lr, with Nesterov's
    step 26.9 / lr.
    """
    return (1 - beta) * heavy_ball(beta, nesterov)


def threshold(lr: float, transfer: float, decay: float = 0.0) -> float:
    """``(2 - lr decay) / (lr F(-1))``, with ``decay`` the decoupled weight decay."""
    return (2 - lr * decay) / (lr * transfer) if lr > 0 else float("inf")


def adam(state: dict[str, Any], group: dict[str, Any], betas: Any, eps: float) -> Frozen | None:
    """Adam: ``P = (1 - beta1^t) (sqrt(v / (1 - beta2^t)) + eps)``; None ahead of the first step."""
    if "exp_avg_sq" not in state:
        return None
    t = float(state["step"])
    root = (state["exp_avg_sq"] / (1 - betas[1] ** t)).sqrt().add(eps)
    scale = root.mul(1 - betas[0] ** t).rsqrt()
    limit = threshold(group["lr"], average(betas[0]), group["weight_decay"])
    return Frozen(lambda v: scale * v, limit)


def active(optimizer: Optimizer) -> Any:
    """The optimizer that takes the next step: a part of one that switches, or itself."""
    return getattr(optimizer, "active", optimizer)


def frozen_maps(optimizer: Optimizer) -> dict[Tensor, Frozen]:
    """The linear map of every parameter that has one."""
    return _of_each(optimizer, "frozen")


def radii(optimizer: Optimizer) -> dict[Tensor, tuple[float, int]]:
    """Of every matrix with polar steps the spectral norm of a step by the learning rate.

    With it the number of matrices of equal height that its rows are.
    """
    blocks: dict[Tensor, int] = {}
    for group in active(optimizer).param_groups:
        counts = group.get("blocks") or [1] * len(group["params"])
        blocks |= dict(zip(group["params"], counts))
    return {p: (radius, blocks[p]) for p, radius in _of_each(optimizer, "radius").items()}


def _of_each(optimizer: Optimizer, method: str) -> dict[Tensor, Any]:
    chosen = active(optimizer)
    if not hasattr(chosen, method):
        return {}
    found = {}
    for group in chosen.param_groups:
        for p in group["params"]:
            value = getattr(chosen, method)(p, group)
            if value is not None:
                found[p] = value
    return found
