"""Muon: momentum, orthogonalised by Newton-Schulz; AdamW for what is no hidden matrix.

After Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon), with the scale of Liu et al.
2025 (arXiv 2502.16982, section 2.2), under which one learning rate serves Muon and AdamW alike.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.optim import Optimizer

from equiscape.optim.adamw import adamw_step, check

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ADJUST_LR = ("match_rms_adamw", "original")
WIDE = 2  # columns by rows from which the Gram matrix's way is faster
NS_DTYPES = ("auto", "float32", "bfloat16")


def orthogonalise(
    matrices: Tensor,
    steps: int = 5,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    dtype: torch.dtype = torch.float32,
    eps: float = 1e-7,
    by_gram: bool = False,
) -> Tensor:
    """Move the singular values of each matrix towards 1 and keep its singular vectors.

    Each step maps a singular value s to ``a s + b s^3 + c s^5``. The coefficients are steep at
    zero rather than convergent: after five steps values end between about 0.7 and 1.2.

    Args:
        matrices: ``[n, rows, columns]``; each is treated by itself.
        steps: number of Newton-Schulz steps.
        coefficients: ``(a, b, c)``.
        dtype: of the products.
        eps: the smallest Frobenius norm that a matrix is divided by.
        by_gram: take the steps on the Gram matrix ``X X^T`` and multiply ``X`` once at the end,
            which is less work for a wide matrix. It squares the condition number: in float32 the
            result is off by up to 1e-4, where bfloat16 is off by 1e-2.

    Returns:
        ``[n, rows, columns]`` in ``dtype``.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    norm = x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    # contiguous: products of bfloat16 with a transposed result are slower by orders of magnitude
    x = x.to(dtype).contiguous() / norm.to(dtype)
    x = (_steps_on_gram if by_gram else _steps)(x, steps, coefficients)
    return x.mT if tall else x


def _steps(x: Tensor, steps: int, coefficients: tuple[float, float, float]) -> Tensor:
    """``x <- (a + b A + c A^2) x`` with ``A = x x^T``, over and over."""
    a, b, c = coefficients
    # two buffers of each size serve all steps
    spare = torch.empty_like(x)
    gram = x.new_empty(x.shape[0], x.shape[1], x.shape[1])
    polynomial = torch.empty_like(gram)
    for _ in range(steps):
        torch.bmm(x, x.mT, out=gram)
        torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=polynomial)
        torch.baddbmm(x, polynomial, x, beta=a, out=spare)
        x, spare = spare, x
    return x


def _steps_on_gram(x: Tensor, steps: int, coefficients: tuple[float, float, float]) -> Tensor:
    """The same product: all factors are polynomials of the first Gram matrix, so they commute."""
    a, b, c = coefficients
    gram = torch.bmm(x, x.mT)
    product = x.new_empty(0)
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = torch.bmm(factor, product) if step else factor
        if step + 1 < steps:
            gram = torch.bmm(torch.bmm(factor, gram), factor)
    return torch.bmm(product, x)


def scale(rows: int, columns: int, adjust_lr: str) -> float:
    """The factor between the learning rate and the step of a ``rows x columns`` matrix.

    ``original`` is ``sqrt(max(1, rows / columns))``. ``match_rms_adamw`` is
    ``0.2 sqrt(max(rows, columns))``: the entries of the step then have the root mean square that
    AdamW's steps are observed to have.
    """
    if adjust_lr == "original":
        return max(1.0, rows / columns) ** 0.5
    return 0.2 * max(rows, columns) ** 0.5


class Muon(Optimizer):
    """Muon for hidden matrices and AdamW for the rest, as one optimizer with one learning rate.

    A parameter group carries ``algorithm``: ``"muon"`` (the default; 2-D parameters only) or
    ``"adamw"``. Weight decay is decoupled in both: ``p -= lr * weight_decay * p``.

    Matrices of one shape, or of its transpose, are orthogonalised as one batched product.

    Args:
        params: parameters or parameter groups.
        lr: learning rate of both algorithms.
        weight_decay: of both algorithms.
        momentum: weight of the past in the exponential average of gradients.
        nesterov: orthogonalise the average of gradient and momentum instead of the momentum.
        ns_steps: Newton-Schulz steps.
        ns_coefficients: of its polynomial.
        ns_dtype: of the Newton-Schulz products: ``float32``, ``bfloat16``, or ``auto``: bfloat16
            on GPUs and CPUs that multiply it natively; elsewhere float32 in its fastest form,
            which is a hundred times closer to the exact result than bfloat16 is. Name one of the
            two where the cells of a study run on unlike machines.
        adjust_lr: ``match_rms_adamw`` or ``original``, see :func:`scale`.
        eps: the smallest norm that a momentum is divided by.
        betas, adamw_eps: of AdamW.
    """

    orthogonalises = True

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        ns_dtype: str = "auto",
        adjust_lr: str = "match_rms_adamw",
        eps: float = 1e-7,
        betas: tuple[float, float] = (0.9, 0.999),
        adamw_eps: float = 1e-8,
    ):
        check(lr, weight_decay, betas, adamw_eps)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum {momentum} must lie in [0, 1)")
        if not (isinstance(ns_steps, int) and 1 <= ns_steps < 100):
            raise ValueError(f"ns_steps {ns_steps} must be a whole number from 1 to 99")
        if len(ns_coefficients) != 3:
            raise ValueError(f"ns_coefficients {ns_coefficients} must be three numbers")
        if adjust_lr not in ADJUST_LR:
            raise ValueError(f"adjust_lr {adjust_lr!r} must be one of {', '.join(ADJUST_LR)}")
        if ns_dtype not in NS_DTYPES:
            raise ValueError(f"ns_dtype {ns_dtype!r} must be one of {', '.join(NS_DTYPES)}")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_steps": ns_steps,
            "ns_coefficients": tuple(ns_coefficients),
            "ns_dtype": ns_dtype,
            "adjust_lr": adjust_lr,
            "eps": eps,
            "betas": tuple(betas),
            "adamw_eps": adamw_eps,
            "algorithm": "muon",
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            for p in group["params"]:
                if group["algorithm"] == "muon" and p.ndim != 2:
                    raise ValueError(f"a parameter of shape {tuple(p.shape)} is no matrix")

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
            if group["algorithm"] == "muon":
                self._muon(group, params, [p.grad for p in params])
            else:
                adamw_step([self.state[p] for p in params], params, group, group["adamw_eps"])
        return loss

    def _muon(self, group: dict, params: list[Tensor], grads: list[Tensor]) -> None:
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        updates = momenta
        if group["nesterov"]:
            updates = torch._foreach_lerp(grads, momenta, group["momentum"])
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        for wide, tall in _by_shape(params):
            members = [updates[i] for i in wide] + [updates[i].mT for i in tall]
            stack = torch.stack(members) if len(members) > 1 else members[0].unsqueeze(0)
            dtype = _ns_dtype(group["ns_dtype"], stack.device)
            stack = orthogonalise(
                stack,
                group["ns_steps"],
                group["ns_coefficients"],
                dtype,
                group["eps"],
                by_gram=group["ns_dtype"] == "auto"
                and dtype == torch.float32
                and stack.shape[2] >= WIDE * stack.shape[1],
            )
            for chosen, part in ((wide, stack[: len(wide)]), (tall, stack[len(wide) :].mT)):
                if chosen:
                    factor = -group["lr"] * scale(*params[chosen[0]].shape, group["adjust_lr"])
                    _add([params[i] for i in chosen], part, factor)


def _add(params: list[Tensor], steps: Tensor, factor: float) -> None:
    """``p += factor * step`` for each row of ``steps``."""
    if steps.device.type == "cpu":  # in one pass each, the conversion from bfloat16 included
        for p, step in zip(params, steps):
            p.add_(step, alpha=factor)
    else:  # contiguous and of one dtype: others foreach updates one by one
        torch._foreach_add_(params, steps.to(params[0].dtype).mul(factor).contiguous().unbind())


def _by_shape(params: list[Tensor]) -> list[tuple[list[int], list[int]]]:
    """Positions of the matrices of one pair of sides: the wide or square ones, the tall ones."""
    members: dict = defaultdict(lambda: ([], []))
    for i, p in enumerate(params):
        rows, columns = p.shape
        key = (min(rows, columns), max(rows, columns), p.device, p.dtype)
        members[key][rows > columns].append(i)
    return list(members.values())


@lru_cache
def _ns_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of the products: ``auto`` is bfloat16 where the device multiplies it natively.

    Measured: there twice to four times as fast as float32, elsewhere slower.
    """
    if name == "auto":
        if device.type == "cuda":
            native = torch.cuda.get_device_capability(device)[0] >= 8
        else:
            # torch has no public question for it; where a release lacks these, float32 is right too
            questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
            native = device.type == "cpu" and any(
                getattr(torch.cpu, question, bool)() for question in questions
            )
        name = "bfloat16" if native else "float32"
    return getattr(torch, name)
