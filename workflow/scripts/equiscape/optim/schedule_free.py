"""Schedule-free AdamW (Defazio et al. 2024, arXiv 2405.15682, algorithm 1)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from equiscape.optim.adamw import check
from equiscape.optim.frozen import Frozen, threshold
from equiscape.settings import NonNegative, Probability


class ScheduleFreeAdamW(Optimizer):
    """AdamW whose average of iterates stands in for a schedule.

    Of three sequences z takes the steps, x is their average, and gradients are taken at y::

        y = (1 - beta1) z + beta1 x,   g = gradient at y
        v <- beta2 v + (1 - beta2) g^2
        s = lr sqrt(1 - beta2^t)
        z <- z - s (g / (sqrt(v) + eps) + weight_decay y)
        c = s^2 / (sum of all s^2 so far);   x <- (1 - c) x + c z

    The parameters hold y while training. :meth:`eval` puts x there, which is what is to be
    evaluated and kept; :meth:`train` puts y back. The learning rate should be constant after its
    warm-up (``training.schedule``), which the paper's own warm-up is. Running statistics of batch
    norms are those seen at y: the authors advise to recompute them at x where they matter.

    Args:
        params: parameters or parameter groups.
        lr: learning rate; commonly up to ten times AdamW's.
        betas: beta1, which interpolates, and beta2.
        eps: added to the denominator.
        weight_decay: at y, decoupled.
    """

    def __init__(
        self,
        params,
        lr: NonNegative = 2.5e-3,
        betas: tuple[Probability, Probability] = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.0,
    ):
        check(lr, weight_decay, betas, eps)
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "steps": 0, "weights": 0.0, "at_average": False})

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """Update every parameter that has a gradient; returns the ``closure``'s loss, if any.

        Raises:
            RuntimeError: the parameters hold the average.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["at_average"]:
                raise RuntimeError("call train() of the optimizer before its step")
            params = [p for p in group["params"] if p.grad is not None]
            beta1, beta2 = group["betas"]
            group["steps"] += 1
            size = group["lr"] * (1 - beta2 ** group["steps"]) ** 0.5
            group["weights"] += size**2
            share = size**2 / group["weights"] if group["weights"] else 0.0
            for p in params:
                state = self.state[p]
                if not state:
                    state["z"], state["x"] = p.clone(), p.clone()
                    state["exp_avg_sq"] = torch.zeros_like(p)
                v, z, x = state["exp_avg_sq"], state["z"], state["x"]
                v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                z.addcdiv_(p.grad, v.sqrt().add_(group["eps"]), value=-size)
                z.add_(p, alpha=-size * group["weight_decay"])
                x.lerp_(z, share)
                torch.lerp(z, x, beta1, out=p)
        return loss

    @torch.no_grad()
    def eval(self) -> None:
        """Let the parameters hold the average x."""
        self._put(average=True)

    @torch.no_grad()
    def train(self) -> None:
        """Let the parameters hold y again: the same bits as before :meth:`eval`."""
        self._put(average=False)

    def frozen(self, p: Tensor, group: dict[str, Any]) -> Frozen | None:
        """The linear map of its step, see :mod:`equiscape.optim.frozen`, at a fixed average x.

        Then ``y`` moves by ``1 - beta1`` of what z does. Late in a training x moves slowly.
        """
        state = self.state[p]
        if "exp_avg_sq" not in state:
            return None
        beta1, beta2 = group["betas"]
        scale = state["exp_avg_sq"].sqrt().add(group["eps"]).rsqrt()
        size = group["lr"] * (1 - beta2 ** group["steps"]) ** 0.5
        share = 1 - beta1
        limit = threshold(size, share, share * group["weight_decay"])
        return Frozen(lambda v: scale * v, limit)

    def _put(self, average: bool) -> None:
        for group in self.param_groups:
            group["at_average"] = average
            for p in group["params"]:
                if state := self.state.get(p):
                    x, z = state["x"], state["z"]
                    p.copy_(x if average else torch.lerp(z, x, group["betas"][0]))
