"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv 2409.11321)."""

from typing import cast

from torch import Tensor

from equiscape.optim.adamw import check
from equiscape.optim.frozen import Frozen, average, threshold
from equiscape.optim.kronecker import rotate, rotate_back, soap_direction, stacked
from equiscape.optim.matrices import MatrixOptimizer
from equiscape.settings import Blocks, Matrices, NonNegative, PositiveInt, Probability, Side


class SOAP(MatrixOptimizer):
    """SOAP for hidden matrices and AdamW for the rest.

    With the gradient G of a matrix W (algorithm 3 of the paper; ^ is Adam's correction of bias)::

        L <- factor_beta L + (1 - factor_beta) G G^T,   R likewise of G^T G
        every `every` steps:  Q_L <- QR(L Q_L),  Q_R <- QR(R Q_R)    (at first: eigenvectors)
        M <- beta1 M + (1 - beta1) G
        V <- beta2 V + (1 - beta2) (Q_L^T G Q_R)^2
        W <- (1 - lr weight_decay) W - lr Q_L [Q_L^T M^ Q_R / (sqrt(V^) + eps)] Q_R^T

    The first gradient gives the bases and is stepped along; the authors' code only does the former.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        weight_decay: decoupled.
        matrix_betas: beta1 and beta2 of Adam in the eigenbasis.
        factor_beta: of L and R.
        every: steps between two updates of the eigenbases.
        max_side: a longer side is not rotated.
        matrix_eps: added to the denominator.
        lr_ratio: learning rate of the AdamW part by ``lr``.
        betas, adamw_eps: of the AdamW part.
        min_side, orthogonalize, blocks: which matrices, see :mod:`equiscape.optim.groups`.
    """

    algorithm = "soap"

    def __init__(
        self,
        params,
        lr: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.0,
        matrix_betas: tuple[Probability, Probability] = (0.95, 0.95),
        factor_beta: Probability = 0.95,
        every: PositiveInt = 10,
        max_side: PositiveInt = 2048,
        matrix_eps: NonNegative = 1e-8,
        lr_ratio: NonNegative = 1.0,
        betas: tuple[Probability, Probability] = (0.9, 0.999),
        adamw_eps: NonNegative = 1e-8,
        min_side: Side = 8,
        orthogonalize: Matrices | None = None,
        blocks: Blocks | None = None,
    ):
        check(lr, weight_decay, matrix_betas, matrix_eps)
        check_factors(factor_beta, every)
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "matrix_betas": tuple(matrix_betas),
            "factor_beta": factor_beta,
            "every": every,
            "max_side": max_side,
            "matrix_eps": matrix_eps,
            "lr_ratio": lr_ratio,
            "betas": tuple(betas),
            "adamw_eps": adamw_eps,
        }
        super().__init__(params, defaults)

    def update(self, group: dict, params: list[Tensor], blocks: list[int] | None) -> None:
        """SOAP's step for matrices."""
        for p, count in zip(params, blocks or [1] * len(params)):
            direction = soap_direction(
                self.state[p], stacked(p, cast(Tensor, p.grad), count), group
            )
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(direction.view_as(p), alpha=-group["lr"])

    def frozen_matrix(self, p: Tensor, group: dict) -> Frozen | None:
        """The linear map of its step: the eigenbases held as they are, too."""
        state = self.state[p]
        if "exp_avg_sq" not in state:
            return None
        beta1, beta2 = group["matrix_betas"]
        root = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt() + group["matrix_eps"]
        factor = root.mul(1 - beta1 ** state["step"]).rsqrt()

        def apply(v: Tensor) -> Tensor:
            turned = rotate(state, v.reshape(factor.shape))
            return rotate_back(state, factor * turned).reshape(v.shape)

        return Frozen(apply, threshold(group["lr"], average(beta1), group["weight_decay"]))


def check_factors(factor_beta: float, every: int) -> None:
    """Refuse values of the factors' settings that are out of range with a ValueError."""
    if not 0 <= factor_beta < 1:
        raise ValueError(f"factor_beta {factor_beta} must lie in [0, 1)")
    if every < 1:
        raise ValueError(f"every {every} must be a positive whole number")
