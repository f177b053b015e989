"""PolarAdamW: the polar step on Adam's preconditioned direction (Zhang 2026, arXiv 2605.07067)."""

from typing import Annotated, Literal, cast

from torch import Tensor

from equiscape.optim.adamw import check
from equiscape.optim.matrices import MatrixOptimizer, parts, polar_defaults, polar_steps
from equiscape.optim.newton_schulz import COEFFICIENTS
from equiscape.settings import AtLeast, AtMost, Blocks, Matrices, NonNegative, Probability, Side


class PolarAdamW(MatrixOptimizer):
    """PolarAdamW for hidden matrices and AdamW for the rest.

    With the gradient G of a matrix W (^ is Adam's correction of bias)::

        M <- beta1 M + (1 - beta1) G,   V <- beta2 V + (1 - beta2) G^2
        D = M^ / (sqrt(V^) + eps)
        W <- (1 - lr weight_decay) W - lr scale(W) polar(D)

    The step has Muon's spectrum, but not its equivariance: ``polar(Q G R) = Q polar(G) R`` for
    rotations Q and R, whereas dividing by sqrt(V) depends on the basis. So it tells the two apart.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        weight_decay: decoupled.
        matrix_betas, matrix_eps: beta1, beta2 and eps.
        ns_steps, ns_coefficients, ns_dtype, polar, adjust_lr_fn, eps: as Muon's.
        lr_ratio: learning rate of the AdamW part by ``lr``.
        betas, adamw_eps: of the AdamW part.
        min_side, orthogonalize, blocks: which matrices, see :mod:`equiscape.optim.groups`.
    """

    algorithm = "polar-adamw"

    def __init__(
        self,
        params,
        lr: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.0,
        matrix_betas: tuple[Probability, Probability] = (0.9, 0.999),
        matrix_eps: NonNegative = 1e-8,
        ns_steps: Annotated[int, AtLeast(1), AtMost(99)] = 5,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        ns_dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        polar: Literal["newton-schulz", "polar-express", "convergent", "exact"] = "newton-schulz",
        adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
        eps: NonNegative = 1e-7,
        lr_ratio: NonNegative = 1.0,
        betas: tuple[Probability, Probability] = (0.9, 0.999),
        adamw_eps: NonNegative = 1e-8,
        min_side: Side = 8,
        orthogonalize: Matrices | None = None,
        blocks: Blocks | None = None,
    ):
        check(lr, weight_decay, matrix_betas, matrix_eps)
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "matrix_betas": tuple(matrix_betas),
            "matrix_eps": matrix_eps,
            **polar_defaults(ns_steps, ns_coefficients, ns_dtype, polar, adjust_lr_fn, eps),
            "lr_ratio": lr_ratio,
            "betas": tuple(betas),
            "adamw_eps": adamw_eps,
        }
        super().__init__(params, defaults)

    def update(self, group: dict, params: list[Tensor], blocks: list[int] | None) -> None:
        """PolarAdamW's step for matrices."""
        beta1, beta2 = group["matrix_betas"]
        averages = self.buffers(params, "exp_avg", None)
        squares = self.buffers(params, "exp_avg_sq", None)
        directions = []
        for p, average, square in zip(params, averages, squares):
            step = self.state[p]["step"] = self.state[p].get("step", 0) + 1
            gradient = cast(Tensor, p.grad)
            average.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            root = (square / (1 - beta2**step)).sqrt_().add_(group["matrix_eps"])
            directions.append(average / root / (1 - beta1**step))
            p.mul_(1 - group["lr"] * group["weight_decay"])
        directions = parts(directions, blocks)
        polar_steps(parts(params, blocks), directions.__getitem__, group)
