"""A symmetric linear map that is known by its products only."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class SymmetricOperator:
    """A symmetric linear map on ``R^size``.

    Attributes:
        size: n.
        apply: maps ``[k, n]``, k vectors as rows, to the k products ``[k, n]``.
        dtype, device: of the vectors.
        products: how many vectors it has been applied to.
    """

    size: int
    apply: Callable[[Tensor], Tensor]
    dtype: torch.dtype = torch.float64
    device: torch.device | str = "cpu"
    products: int = 0

    def __call__(self, vectors: Tensor) -> Tensor:
        """The products of ``vectors [k, n]``, as rows."""
        self.products += vectors.shape[0]
        return self.apply(vectors)

    def scaled(self, scale: Tensor) -> "SymmetricOperator":
        """``T A T`` with the diagonal T = ``scale [n]``; its products count as this operator's."""
        return replace(self, apply=lambda vectors: scale * self(scale * vectors), products=0)

    def off(self, directions: Tensor, value: float = 0.0) -> "SymmetricOperator":
        """``(I - P) A (I - P) + value P``, P onto the orthonormal rows ``directions [k, n]``."""

        def apply(vectors: Tensor) -> Tensor:
            inside = (vectors @ directions.T) @ directions
            images = self(vectors - inside)
            return images - (images @ directions.T) @ directions + value * inside

        return replace(self, apply=apply, products=0)
