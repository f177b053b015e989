"""AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) by torch's one-kernel update."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from equiscape.optim.frozen import Frozen, adam
from equiscape.settings import NonNegative, Probability


def adamw_step(
    states: list[dict[str, Tensor]], params: list[Tensor], group: dict[str, Any], eps: float
) -> None:
    """Update ``params`` in place from their gradients; empty ``states`` are filled with zeros.

    The steps are counted in a tensor on each parameter's own device, so nothing waits for a GPU.
    """
    for state, p in zip(states, params):
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            state["exp_avg"] = torch.zeros_like(p)
            state["exp_avg_sq"] = torch.zeros_like(p)
    adamw(
        params,
        cast(list[Tensor], [p.grad for p in params]),
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=eps,
        maximize=False,
    )


class AdamW(Optimizer):
    """As ``torch.optim.AdamW(fused=True)``, without its import of torch's compiler (2 s a job).

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        betas: of the running averages of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: each step multiplies parameters by ``1 - lr * weight_decay``.
    """

    def __init__(
        self,
        params,
        lr: NonNegative = 1e-3,
        betas: tuple[Probability, Probability] = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.0,
    ):
        check(lr, weight_decay, betas, eps)
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """Update every parameter that has a gradient; returns the ``closure``'s loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                adamw_step([self.state[p] for p in params], params, group, group["eps"])
        return loss

    def frozen(self, p: Tensor, group: dict[str, Any]) -> Frozen | None:
        """The linear map of its step, see :mod:`equiscape.optim.frozen`."""
        return adam(self.state[p], group, group["betas"], group["eps"])


def check(
    lr: float, weight_decay: float, betas: tuple[Probability, Probability], eps: float
) -> None:
    """Refuse values outside their range with a ValueError."""
    if lr < 0 or weight_decay < 0:
        raise ValueError(f"lr {lr} and weight decay {weight_decay} must not be negative")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas {tuple(betas)} must be two numbers in [0, 1)")
    if eps < 0:
        raise ValueError(f"eps {eps} must not be negative")
