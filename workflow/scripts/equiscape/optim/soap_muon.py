"""SOAP and Muon in one: the polar step on SOAP's direction (after arXiv 2607.02499)."""

from typing import Annotated, Literal, cast

from torch import Tensor

from equiscape.optim.adamw import check
from equiscape.optim.kronecker import soap_direction, stacked
from equiscape.optim.matrices import MatrixOptimizer, parts, polar_defaults, polar_steps
from equiscape.optim.newton_schulz import COEFFICIENTS
from equiscape.optim.soap import check_factors
from equiscape.settings import (
    AtLeast,
    AtMost,
    Blocks,
    Matrices,
    NonNegative,
    PositiveInt,
    Probability,
    Side,
)


class SOAPMuon(MatrixOptimizer):
    """A hybrid of SOAP and Muon for hidden matrices and AdamW for the rest.

    With SOAP's direction for a matrix W (see :class:`equiscape.optim.soap.SOAP`)::

        D = Q_L [Q_L^T M^ Q_R / (sqrt(V^) + eps)] Q_R^T
        W <- (1 - lr weight_decay) W - lr scale(W) polar(D)

    Since ``polar(Q_L N Q_R^T) = Q_L polar(N) Q_R^T``, this is Muon's step on Adam's direction in
    the eigenbasis, where PolarAdamW's is in the basis of the weights. It follows the idea of the
    paper named above, whose text was not at hand: these equations are our reading of it.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        weight_decay: decoupled.
        matrix_betas, factor_beta, every, max_side, matrix_eps: as SOAP's.
        ns_steps, ns_coefficients, ns_dtype, polar, adjust_lr_fn, eps: as Muon's.
        lr_ratio: learning rate of the AdamW part by ``lr``.
        betas, adamw_eps: of the AdamW part.
        min_side, orthogonalize, blocks: which matrices, see :mod:`equiscape.optim.groups`.
    """

    algorithm = "soap-muon"

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
        check_factors(factor_beta, every)
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "matrix_betas": tuple(matrix_betas),
            "factor_beta": factor_beta,
            "every": every,
            "max_side": max_side,
            "matrix_eps": matrix_eps,
            **polar_defaults(ns_steps, ns_coefficients, ns_dtype, polar, adjust_lr_fn, eps),
            "lr_ratio": lr_ratio,
            "betas": tuple(betas),
            "adamw_eps": adamw_eps,
        }
        super().__init__(params, defaults)

    def update(self, group: dict, params: list[Tensor], blocks: list[int] | None) -> None:
        """The hybrid's step for matrices."""
        directions = []
        for p, count in zip(params, blocks or [1] * len(params)):
            direction = soap_direction(
                self.state[p], stacked(p, cast(Tensor, p.grad), count), group
            )
            directions.append(direction.view_as(p))
            p.mul_(1 - group["lr"] * group["weight_decay"])
        directions = parts(directions, blocks)
        polar_steps(parts(params, blocks), directions.__getitem__, group)
