"""Lion: the sign of an interpolated momentum (Chen et al. 2023, arXiv 2302.06675, algorithm 2)."""

from collections.abc import Callable

import torch
from torch.optim import Optimizer

from equiscape.optim.adamw import check
from equiscape.settings import NonNegative, Probability


class Lion(Optimizer):
    """Step by the sign of an average of gradients, with decoupled weight decay.

    One buffer a parameter. Each entry moves by ``lr`` in every step, so its learning rate is
    commonly three to ten times smaller than AdamW's.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        betas: weights of the momentum in the step, and in its own running average.
        weight_decay: each step multiplies parameters by ``1 - lr * weight_decay``.
    """

    def __init__(
        self,
        params,
        lr: NonNegative = 1e-4,
        betas: tuple[Probability, Probability] = (0.9, 0.99),
        weight_decay: NonNegative = 0.0,
    ):
        check(lr, weight_decay, betas, eps=0.0)
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """Update every parameter that has a gradient; returns the ``closure``'s loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            grads = [p.grad for p in params]
            for p in params:
                self.state[p].setdefault("momentum", torch.zeros_like(p))
            momenta = [self.state[p]["momentum"] for p in params]
            step, keep = group["betas"]
            directions = torch._foreach_lerp(grads, momenta, step)
            torch._foreach_sign_(directions)
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, directions, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, grads, 1 - keep)
        return loss
