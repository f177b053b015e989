"""Polar factors by products: Newton-Schulz polynomials in the forms that cost least.

An odd polynomial of a matrix X = U S V^T acts on its singular values alone, ``p(X) = U p(S) V^T``,
so a composition of a few of them that maps (0, 1] close to 1 gives the polar factor U V^T.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

Triple = tuple[float, float, float]

COEFFICIENTS: Triple = (3.4445, -4.7750, 2.0315)
CONVERGENT: Triple = (15 / 8, -10 / 8, 3 / 8)
NS_DTYPES = ("auto", "float32", "bfloat16")
WIDE = 1.5  # columns by rows from which the Gram matrix's way is faster
RESTART = 3  # steps on one Gram matrix before it is formed again
STRIPS_FROM = 384  # rows from which products known to be symmetric are made by strips
LONG = 1024  # terms of a sum from which that pays in bfloat16 too
STRIP = 128  # rows of a strip


def orthogonalize(
    matrices: Tensor,
    steps: int = 5,
    coefficients: Triple | Sequence[Triple] = COEFFICIENTS,
    dtype: torch.dtype = torch.float32,
    eps: float = 1e-7,
    by_gram: bool = False,
    restart: int = RESTART,
) -> Tensor:
    """Move the singular values of each matrix towards 1 and keep its singular vectors.

    Each step maps a singular value s to ``a s + b s^3 + c s^5``. The default coefficients (Jordan
    et al. 2024) are steep at zero rather than convergent: after five steps values end between about
    0.7 and 1.2.

    Args:
        matrices: ``[n, rows, columns]``; each is treated by itself.
        steps: number of Newton-Schulz steps.
        coefficients: ``(a, b, c)`` of every step, or one such triple a step, whose last one serves
            all further steps.
        dtype: of the products.
        eps: the smallest Frobenius norm that a matrix is divided by.
        by_gram: take the steps on the Gram matrix ``X X^T`` and multiply ``X`` by the product of
            their factors, which is less work for a wide matrix. It squares the condition number.
            In float32, with one Gram matrix for all five steps, a matrix of condition 1e6 ends off
            by up to 2.5e-4 (entries of the result; 7e-6 by the plain form); formed again after
            three steps (``restart``) it ends as near as by the plain form. bfloat16 is off by 1e-2
            in either form, so float32 is where this pays, for matrices that are ``WIDE``.
        restart: steps on one Gram matrix before it is formed again from the product so far.

    Returns:
        ``[n, rows, columns]`` in ``dtype``.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    norm = x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    # contiguous: products of bfloat16 with a transposed result are slower by orders of magnitude
    x = x.to(dtype).contiguous() / norm.to(dtype)
    triples = each_step(coefficients, steps)
    if by_gram:
        for start in range(0, steps, restart):
            x = _steps_on_gram(x, triples[start : start + restart])
    else:
        x = _steps(x, triples)
    return x.mT if tall else x


def each_step(coefficients: Triple | Sequence[Triple], steps: int) -> list[Triple]:
    """One triple a step: the one that serves all, or the listed ones and then the last again."""
    given: Any = coefficients
    if not isinstance(given[0], Sequence):
        return [tuple(given)] * steps
    listed: list[Triple] = [tuple(triple) for triple in given]
    return [listed[min(step, len(listed) - 1)] for step in range(steps)]


def _steps(x: Tensor, triples: list[Triple]) -> Tensor:
    """``x <- (a + b A + c A^2) x`` with ``A = x x^T``, over and over."""
    # two buffers of each size serve all steps
    spare = torch.empty_like(x)
    gram, polynomial = _squares(x, 2)
    for a, b, c in triples:
        symmetric(x, x.mT, gram)
        symmetric(gram, gram, polynomial, gram, b, c)
        torch.baddbmm(x, polynomial, x, beta=a, out=spare)
        x, spare = spare, x
    return x


def _steps_on_gram(x: Tensor, triples: list[Triple]) -> Tensor:
    """The same product: all factors are polynomials of the first Gram matrix, so they commute.

    With A the Gram matrix and Q = a + b A + c A^2 of a step, the next one's is Q A Q; so each of
    these products is symmetric.
    """
    gram, factor, spare, free = _squares(x, 4)
    symmetric(x, x.mT, gram)
    product: Any = None  # a tensor from the first step on
    for step, (a, b, c) in enumerate(triples):
        symmetric(gram, gram, factor, gram, b, c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        if step + 1 < len(triples):
            symmetric(factor, gram, spare)
            symmetric(spare, factor, gram)
        if product is None:
            product, factor = factor, free
        else:
            symmetric(factor, product, spare)
            product, spare = spare, product
    return torch.bmm(product, x)


def _squares(x: Tensor, count: int) -> list[Tensor]:
    """Buffers for products of ``x`` with its transpose."""
    n, rows, _ = x.shape
    return [x.new_empty(n, rows, rows) for _ in range(count)]


def by_strips(x: Tensor) -> bool:
    """Whether products of ``x`` known to be symmetric are made by strips."""
    worth = x.dtype != torch.bfloat16 or x.shape[2] >= LONG
    return worth and x.shape[1] >= STRIPS_FROM and x.device.type == "cpu"


def symmetric(
    a: Tensor, b: Tensor, out: Tensor, add: Tensor | None = None, beta: float = 0, alpha: float = 1
) -> Tensor:
    """``out = beta add + alpha a b`` of stacked matrices, where that is known to be symmetric.

    Large results are made by strips of rows, each from its diagonal on, and mirrored: for 512 rows
    in four strips 5/8 of the work. In bfloat16 that pays for long sums only, and changes no bit of
    those; in float32 it rounds otherwise.
    """
    rows = a.shape[1]
    if not by_strips(a):
        if add is None:
            return torch.bmm(a, b, out=out)
        return torch.baddbmm(add, a, b, beta=beta, alpha=alpha, out=out)
    for i in range(a.shape[0]):
        for start in range(0, rows, STRIP):
            stop = min(start + STRIP, rows)
            strip = out[i, start:stop, start:]
            left, right = a[i, start:stop], b[i, :, start:]
            if add is None:
                torch.mm(left, right, out=strip)
            else:
                before = add[i, start:stop, start:]
                torch.addmm(before, left, right, beta=beta, alpha=alpha, out=strip)
            if stop < rows:
                out[i, stop:, start:stop].copy_(strip[:, stop - start :].mT)
    return out


@lru_cache
def polar_express(steps: int, lowest: float = 1e-3) -> tuple[Triple, ...]:
    """Polynomials whose composition is nearest to 1 on ``[lowest, 1]``, one a step.

    After Amsel, Persson, Musco & Gower 2025 (arXiv 2505.16932, theorem 3.1): in each step the odd
    polynomial of degree five with the least largest error on the interval that the steps before
    leave, ``[l, u]``; it maps it to ``[1 - e, 1 + e]``, and the next step is made for that. Such a
    polynomial takes its largest error four times with alternating sign (Chebyshev), at both ends
    and at its two extrema inside, which an exchange of Remez's kind finds.

    Args:
        steps: number of polynomials.
        lowest: the smallest singular value, by the largest, that is to be brought to 1.
    """
    import numpy as np

    low, high = lowest, 1.0
    triples: list[Triple] = []
    for _ in range(steps):
        if high - low < 1e-6:  # converged: Newton-Schulz's own limit form
            triples.append(CONVERGENT)
            continue
        points = np.array([low, low + (high - low) / 4, low + 3 * (high - low) / 4, high])
        for _ in range(100):
            signs = np.array([1.0, -1.0, 1.0, -1.0])  # below, above, below, above 1
            system = np.column_stack([points, points**3, points**5, signs])
            a, b, c, _ = np.linalg.solve(system, np.ones(4))
            inner = np.sqrt(sorted(np.roots([5 * c, 3 * b, a]).real))
            moved = np.array([low, *inner, high])
            if np.abs(moved - points).max() < 1e-14 * high:
                break
            points = moved
        values = a * points + b * points**3 + c * points**5
        low, high = values.min(), values.max()
        triples.append((float(a), float(b), float(c)))
    return tuple(triples)


def ns_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of the products: ``auto`` is bfloat16 where the device multiplies it natively.

    Measured: there twice to four times as fast as float32, elsewhere slower.
    """
    return _ns_dtype(name, device)


@lru_cache
def _ns_dtype(name: str, device: torch.device) -> torch.dtype:
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
