"""Muon: momentum, orthogonalized by Newton-Schulz; AdamW for what is no hidden matrix.

After Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon), with the scale of Liu et al.
2025 (arXiv 2502.16982, section 2.2), under which one learning rate serves Muon and AdamW alike.
"""

from collections.abc import Callable
from typing import Annotated, Literal, cast

import torch
from torch import Tensor

from equiscape.optim.matrices import MatrixOptimizer, parts, polar_defaults, polar_steps
from equiscape.optim.newton_schulz import COEFFICIENTS
from equiscape.settings import AtLeast, AtMost, Blocks, Matrices, NonNegative, Probability, Side

VARIANTS = ("muon", "normuon", "adamuon")
ORDERS = ("momentum-first", "polar-first")


class Muon(MatrixOptimizer):
    """Muon for hidden matrices and AdamW for the rest, as one optimizer.

    With the gradient G, the momentum M and the singular value decomposition U S V^T::

        M <- momentum M + (1 - momentum) G
        D = momentum M + (1 - momentum) G             (nesterov; otherwise D = M)
        O = U V^T of D
        W <- (1 - lr weight_decay) W - lr scale(W) O

    Weight decay is decoupled in both parts: ``p -= lr * weight_decay * p``. Matrices of one shape,
    or of its transpose, are orthogonalized as one batched product. In float32 those at least 1.5
    times as wide as high are orthogonalized on their Gram matrices, which is faster; see
    :func:`equiscape.optim.newton_schulz.orthogonalize` for what that does to accuracy.

    Args:
        params: parameters or parameter groups.
        lr: learning rate of Muon.
        weight_decay: of both parts.
        momentum: weight of the past in the exponential average of gradients.
        nesterov: orthogonalize the average of gradient and momentum instead of the momentum.
        ns_steps: Newton-Schulz steps.
        ns_coefficients: of its polynomial, where ``polar`` is ``newton-schulz``.
        ns_dtype: of the products: ``float32``, ``bfloat16``, or ``auto``: bfloat16 on GPUs and CPUs
            that multiply it natively, elsewhere float32, which is a hundred times closer to the
            exact result than bfloat16 is. Name one of the two where the cells of a study run on
            different machines.
        polar: how O is found: ``newton-schulz``; ``polar-express``, the best polynomials for
            ``ns_steps`` steps (arXiv 2505.16932); ``convergent``, the polynomial (15, -10, 3) / 8,
            slow but exact in the limit; ``exact``, by eigenvalues.
        adjust_lr_fn: ``match_rms_adamw`` or ``original``, as ``torch.optim.Muon`` calls them, see
            :func:`equiscape.optim.matrices.scale`.
        eps: the smallest norm that a direction is divided by.
        spectrum: a power p: take ``U S^p V^T``, scaled to the Frobenius norm of p = 0, the root of
            the shorter side, so that the spectrum of the step is all that changes: 1 leaves the
            spectrum of D, 0 is the polar factor, negative inverts it. None: O as above.
        order: ``polar-first`` orthogonalizes the gradient and averages the results.
        variant: ``muon``; ``normuon`` (Li et al. 2025, arXiv 2510.05491, algorithm 1) divides each
            row of O by the root of ``v <- beta v + (1 - beta) mean of its squares``; ``adamuon``
            (Si et al. 2025, arXiv 2507.11005, algorithm 1) orthogonalizes the sign of D and divides
            each entry of O by the root of ``v <- beta v + (1 - beta) O^2``. Both then scale to the
            Frobenius norm of an orthogonal matrix.
        variant_beta, variant_eps: of those two.
        lr_ratio: learning rate of the AdamW part by ``lr``.
        betas, adamw_eps: of AdamW.
        min_side, orthogonalize, blocks: which matrices, see :mod:`equiscape.optim.groups`.
    """

    def __init__(
        self,
        params,
        lr: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.0,
        momentum: Probability = 0.95,
        nesterov: bool = True,
        ns_steps: Annotated[int, AtLeast(1), AtMost(99)] = 5,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        ns_dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        polar: Literal["newton-schulz", "polar-express", "convergent", "exact"] = "newton-schulz",
        adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
        eps: NonNegative = 1e-7,
        spectrum: Annotated[float, AtLeast(-10), AtMost(10)] | None = None,
        order: Literal["momentum-first", "polar-first"] = "momentum-first",
        variant: Literal["muon", "normuon", "adamuon"] = "muon",
        variant_beta: Probability = 0.95,
        variant_eps: NonNegative = 1e-8,
        lr_ratio: NonNegative = 1.0,
        betas: tuple[Probability, Probability] = (0.9, 0.999),
        adamw_eps: NonNegative = 1e-8,
        min_side: Side = 8,
        orthogonalize: Matrices | None = None,
        blocks: Blocks | None = None,
    ):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum {momentum} must lie in [0, 1)")
        if spectrum is not None and not -10 <= spectrum <= 10:
            raise ValueError(f"spectrum {spectrum} must be a power from -10 to 10")
        if order not in ORDERS:
            raise ValueError(f"order {order!r} must be one of {', '.join(ORDERS)}")
        if variant not in VARIANTS:
            raise ValueError(f"variant {variant!r} must be one of {', '.join(VARIANTS)}")
        if not 0 <= variant_beta < 1 or variant_eps < 0:
            raise ValueError("variant_beta must lie in [0, 1) and variant_eps not be negative")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            **polar_defaults(ns_steps, ns_coefficients, ns_dtype, polar, adjust_lr_fn, eps),
            "spectrum": spectrum,
            "order": order,
            "variant": variant,
            "variant_beta": variant_beta,
            "variant_eps": variant_eps,
            "lr_ratio": lr_ratio,
            "betas": tuple(betas),
            "adamw_eps": adamw_eps,
        }
        super().__init__(params, defaults)

    def update(self, group: dict, params: list[Tensor], blocks: list[int] | None) -> None:
        """Muon's step for matrices."""
        matrices = parts(params, blocks)
        grads = parts(cast(list[Tensor], [p.grad for p in params]), blocks)
        momenta = self.buffers(params, "momentum_buffer", blocks)
        first = group["order"] == "momentum-first"
        if first:
            torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        direction = self._direction(group, grads, momenta if first else None)
        after = self._after(group, params, blocks, None if first else momenta)
        polar_steps(matrices, direction, group, after)

    @staticmethod
    def _direction(group: dict, grads: list[Tensor], momenta: list[Tensor] | None) -> Callable:
        """The matrix with this number that is to be orthogonalized."""
        chosen: Callable[[int], Tensor]
        if momenta is None:
            chosen = grads.__getitem__
        elif not group["nesterov"]:
            chosen = momenta.__getitem__
        elif grads[0].device.type == "cpu":  # one at a time, so that memory is used again
            chosen = lambda i: torch.lerp(grads[i], momenta[i], group["momentum"])  # noqa: E731
        else:
            chosen = torch._foreach_lerp(grads, momenta, group["momentum"]).__getitem__
        if group["variant"] == "adamuon":
            return lambda i: chosen(i).sign()
        return chosen

    def _after(
        self,
        group: dict,
        params: list[Tensor],
        blocks: list[int] | None,
        momenta: list[Tensor] | None,
    ) -> Callable[[int, Tensor], Tensor] | None:
        """What becomes of a polar factor: averaged where the polar step is first, then scaled."""
        variant = group["variant"]
        if momenta is None and variant == "muon":
            return None
        if variant == "normuon":
            for p in params:
                self.state[p].setdefault("second_moment", p.new_zeros(p.shape[0], 1))
            moments = parts([self.state[p]["second_moment"] for p in params], blocks)
        elif variant == "adamuon":
            moments = self.buffers(params, "second_moment", blocks)

        def after(i: int, step: Tensor) -> Tensor:
            if momenta is not None:
                momenta[i].lerp_(step, 1 - group["momentum"])
                step = step.lerp(momenta[i], group["momentum"]) if group["nesterov"] else momenta[i]
            if variant == "muon":
                return step
            squares = step.square()
            if variant == "normuon":
                squares = squares.mean(dim=1, keepdim=True)
            moments[i].lerp_(squares, 1 - group["variant_beta"])
            step = step / (moments[i].sqrt() + group["variant_eps"])
            return step * (min(step.shape) ** 0.5 / step.norm().clamp(min=group["eps"]))

        return after
