"""Powers of a spectrum: U S^p V^T, whose limit p = 0 is the polar factor U V^T."""

import torch
from torch import Tensor

TOLERANCE = 1e-6  # singular values below this part of the largest are rounding of float32


def powered(matrices: Tensor, power: float, norm: float | None = None) -> Tensor:
    """``U S^power V^T`` of each matrix ``U S V^T``.

    By the eigenvalues of the smaller Gram matrix in float64, which are good to 1e-8 of the largest
    singular value: a fraction of the time of a singular value decomposition. Singular values below
    ``TOLERANCE`` of the largest, whose vectors are arbitrary, become zero.

    Args:
        matrices: ``[n, rows, columns]``.
        power: of the singular values; 0 makes them all 1, 1 leaves them.
        norm: scale each result to this Frobenius norm; None leaves its own, which at power 0 is
            the root of the rank. A matrix of zeros stays one.

    Returns:
        ``[n, rows, columns]`` in the dtype of ``matrices``.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT.double() if tall else matrices.double()
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-300)
    if power != 1:
        squares, u = torch.linalg.eigh(x @ x.mT)
        s = squares.clamp(min=0).sqrt()
        kept = s > TOLERANCE * s[:, -1:]
        factors = torch.where(kept, torch.where(kept, s, 1.0) ** (power - 1), 0.0)
        x = (u * factors.unsqueeze(1)) @ (u.mT @ x)
    if norm is not None:
        length = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        x = x * (norm / length.clamp(min=1e-300))
    x = x.to(matrices.dtype)
    return x.mT if tall else x
