"""Matrices with another spectrum and the same singular vectors: matched stable rank, truncation."""

import torch
from torch import Tensor


def match_stable_rank(matrix: Tensor, rank: float) -> Tensor:
    """The matrix with ``s_i <- min(s_1, c s_i)`` and stable rank ``rank``.

    The largest singular value stays. Where nothing reaches it, ``c = sqrt((rank - 1) / (r - 1))``
    with the rank r at hand, which is the nearest matrix of that stable rank and spectral norm
    (Sanyal et al. 2020, arXiv 1906.04659, section 4).

    Args:
        matrix: ``[rows, columns]``, finite.
        rank: from 1 on; beyond the number of singular values that are not zero, all of those
            become ``s_1``, which is as near as it gets.

    Returns:
        ``[rows, columns]`` in the dtype of ``matrix``; a matrix of zeros stays one.

    Raises:
        ValueError: ``rank`` is below 1 or not finite.
    """
    if not 1 <= rank < float("inf"):
        raise ValueError(f"stable rank {rank} must be 1 or more")
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    if s[0] == 0:
        return matrix.clone()
    relative = s / s[0]
    relative[relative < max(matrix.shape) * torch.finfo(matrix.dtype).eps] = 0.0  # rounding
    squares = relative.square()
    found = torch.ones_like(relative)
    # with the first k values at s_1 the others share what is left of the sum of squares
    for k in range(1, len(s) + 1):
        rest = squares[k:].sum()
        left = rank - k
        if left <= 0 or rest == 0:
            found[k:] = 0.0 if left <= 0 else relative[k:]
            break
        factor = (left / rest).sqrt()
        if factor * relative[k] <= 1:
            found[k:] = factor * relative[k:]
            break
    return ((u * (s[0] * found)) @ vt).to(matrix.dtype)


def truncate(matrix: Tensor, kept: int) -> Tensor:
    """The matrix of its ``kept`` largest singular values, the nearest one of that rank."""
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    return ((u[:, :kept] * s[:kept]) @ vt[:kept]).to(matrix.dtype)
