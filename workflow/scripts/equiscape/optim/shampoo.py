"""Shampoo: roots of Kronecker factors as preconditioners (Gupta et al. 2018, arXiv 1802.09568)."""

from typing import Literal, cast

import torch
from torch import Tensor

from equiscape.optim.adamw import check
from equiscape.optim.frozen import Frozen, average, threshold
from equiscape.optim.kronecker import SIDES, accumulate, inverse_root, stacked
from equiscape.optim.matrices import MatrixOptimizer
from equiscape.optim.soap import check_factors
from equiscape.settings import (
    Blocks,
    Matrices,
    NonNegative,
    Positive,
    PositiveInt,
    Probability,
    Side,
)

FACTORS = ("average", "sum")
GRAFTS = ("adam", "none")


class Shampoo(MatrixOptimizer):
    """Shampoo for hidden matrices and AdamW for the rest.

    With the gradient G of a matrix W (^ is the correction of an average's bias, as Adam's)::

        L <- factor_beta L + (1 - factor_beta) G G^T,   R likewise of G^T G
        every `every` steps:  P_L = (L^ + eps I)^(-1/root),  P_R = (R^ + eps I)^(-1/root)
        M <- beta1 M + (1 - beta1) G
        D = P_L M^ P_R
        D <- D |A| / |D|,  A = M^ / (sqrt(V^) + eps)   (graft: adam)
        W <- (1 - lr weight_decay) W - lr D

    The paper's algorithm 1 is ``factors: sum``, ``graft: none``, ``beta1`` 0 and ``every`` 1: there
    L and R are sums, to which eps I is added once. Averages and the length of Adam's step, under
    which a learning rate of Adam's serves, are those of Anil et al. 2020 (arXiv 2002.09018) and Shi
    et al. 2023 (arXiv 2309.06497).

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        weight_decay: decoupled.
        matrix_betas: beta1 of M, beta2 of the grafted Adam's V.
        factor_beta: of L and R.
        factors: ``average`` or ``sum``.
        root: 4 is the paper's for matrices; 2 is the square root of one factor each.
        graft: ``adam``, or ``none`` for the length of D itself.
        every: steps between two computations of the roots.
        max_side: a longer side has no preconditioner.
        matrix_eps: added to eigenvalues, and to the denominator of A.
        lr_ratio: learning rate of the AdamW part by ``lr``.
        betas, adamw_eps: of the AdamW part.
        min_side, orthogonalize, blocks: which matrices, see :mod:`equiscape.optim.groups`.
    """

    algorithm = "shampoo"

    def __init__(
        self,
        params,
        lr: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.0,
        matrix_betas: tuple[Probability, Probability] = (0.9, 0.999),
        factor_beta: Probability = 0.99,
        factors: Literal["average", "sum"] = "average",
        root: Positive = 4.0,
        graft: Literal["adam", "none"] = "adam",
        every: PositiveInt = 10,
        max_side: PositiveInt = 2048,
        matrix_eps: NonNegative = 1e-10,
        lr_ratio: NonNegative = 1.0,
        betas: tuple[Probability, Probability] = (0.9, 0.999),
        adamw_eps: NonNegative = 1e-8,
        min_side: Side = 8,
        orthogonalize: Matrices | None = None,
        blocks: Blocks | None = None,
    ):
        check(lr, weight_decay, matrix_betas, matrix_eps)
        check_factors(factor_beta, every)
        if not root > 0:
            raise ValueError(f"root {root} must be positive")
        if factors not in FACTORS:
            raise ValueError(f"factors {factors!r} must be one of {', '.join(FACTORS)}")
        if graft not in GRAFTS:
            raise ValueError(f"graft {graft!r} must be one of {', '.join(GRAFTS)}")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "matrix_betas": tuple(matrix_betas),
            "factor_beta": factor_beta,
            "factors": factors,
            "root": root,
            "graft": graft,
            "every": every,
            "max_side": max_side,
            "matrix_eps": matrix_eps,
            "lr_ratio": lr_ratio,
            "betas": tuple(betas),
            "adamw_eps": adamw_eps,
        }
        super().__init__(params, defaults)

    def update(self, group: dict, params: list[Tensor], blocks: list[int] | None) -> None:
        """Shampoo's step for matrices."""
        for p, count in zip(params, blocks or [1] * len(params)):
            direction = self._direction(
                self.state[p], stacked(p, cast(Tensor, p.grad), count), group
            )
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(direction.view_as(p), alpha=-group["lr"])

    @staticmethod
    def _direction(state: dict, g: Tensor, group: dict) -> Tensor:
        beta1, beta2 = group["matrix_betas"]
        step = state["step"] = state.get("step", 0) + 1
        if step == 1:
            state["exp_avg"] = torch.zeros_like(g)
        total = group["factors"] == "sum"
        accumulate(state, g, group["factor_beta"], group["max_side"], total)
        if (step - 1) % group["every"] == 0:
            correction = 1.0 if total else 1 - group["factor_beta"] ** step
            for name in SIDES:
                if name in state:
                    root = inverse_root(
                        state[name] / correction, group["root"], group["matrix_eps"]
                    )
                    state[f"{name}_root"] = root
        state["exp_avg"].lerp_(g, 1 - beta1)
        direction = precondition(state, state["exp_avg"] / (1 - beta1**step))
        if group["graft"] == "none":
            return direction
        if step == 1:
            state["exp_avg_sq"] = torch.zeros_like(g)
        state["exp_avg_sq"].lerp_(g.square(), 1 - beta2)
        return direction * grafted(state, direction, group)

    def frozen_matrix(self, p: Tensor, group: dict) -> Frozen | None:
        """The linear map of its step: roots and grafted length held as they are."""
        state = self.state[p]
        if "exp_avg" not in state:
            return None
        beta1 = group["matrix_betas"][0]
        correction = 1 - beta1 ** state["step"]
        factor: Tensor | float = 1.0
        if group["graft"] != "none":
            factor = grafted(state, precondition(state, state["exp_avg"] / correction), group)
        factor = (factor / correction) ** 0.5
        halves = {
            f"{name}_root": inverse_root(state[f"{name}_root"], -2.0, 0.0)
            for name in SIDES
            if f"{name}_root" in state
        }
        blocks = state["exp_avg"].shape

        def apply(v: Tensor) -> Tensor:
            return (factor * precondition(halves, v.reshape(blocks))).reshape(v.shape)

        return Frozen(apply, threshold(group["lr"], average(beta1), group["weight_decay"]))


def precondition(roots: dict, x: Tensor) -> Tensor:
    """``P_L x P_R`` with the ``left_root`` and ``right_root`` that there are."""
    if "left_root" in roots:
        x = roots["left_root"] @ x
    return x @ roots["right_root"] if "right_root" in roots else x


def grafted(state: dict, direction: Tensor, group: dict) -> Tensor:
    """``[blocks, 1, 1]``: the length of Adam's step by that of ``direction``."""
    beta1, beta2 = group["matrix_betas"]
    mean = state["exp_avg"] / (1 - beta1 ** state["step"])
    root = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt()
    length = (mean / (root + group["matrix_eps"])).norm(dim=(1, 2), keepdim=True)
    return length / direction.norm(dim=(1, 2), keepdim=True).clamp(min=1e-30)
