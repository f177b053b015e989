"""Stochastic gradient descent, as ``torch.optim.SGD`` has it."""

from typing import Any

import torch
from torch import Tensor

from equiscape.optim.frozen import Frozen, heavy_ball, threshold
from equiscape.settings import NonNegative, Probability


class SGD(torch.optim.SGD):
    """With the momentum M, the gradient G and dampening d::

        M <- momentum M + (1 - d) (G + weight_decay W)
        W <- W - lr M               (nesterov: G + weight_decay W + momentum M for M)

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        weight_decay: an L2 penalty, so not decoupled from ``lr`` and momentum.
        momentum: weight of the past.
        dampening: what the gradient loses on its way into the momentum.
        nesterov: step along the gradient and the momentum to come.
    """

    CONSTRAINTS = (
        (
            "not nesterov or (momentum > 0 and dampening == 0)",
            "nesterov needs momentum above 0 and dampening 0",
        ),
    )

    def __init__(
        self,
        params,
        lr: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.0,
        momentum: Probability = 0.0,
        dampening: NonNegative = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )

    def frozen(self, p: Tensor, group: dict[str, Any]) -> Frozen:
        """The linear map of its step, see :mod:`equiscape.optim.frozen`: P is the identity."""
        transfer = heavy_ball(group["momentum"], group["nesterov"])
        if group["momentum"]:
            transfer *= 1 - group["dampening"]
        return Frozen(lambda v: v, threshold(group["lr"], transfer), group["weight_decay"])
