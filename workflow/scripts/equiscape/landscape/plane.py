"""The loss around an equivariant plane: its curvature within the plane and across it.

On a batch of whole orbits the gradient at a point of the plane lies in the plane, and the Hessian
does not couple the plane to its complement. So a minimum among the equivariant networks is a
stationary point of the perceptron's loss; it is a saddle made by the symmetry where the Hessian is
positive within the plane and has a negative eigenvalue across it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from equiscape.groups.plane import Plane


@dataclass(frozen=True)
class PlaneCurvature:
    """Gradient and Hessian in a basis of a plane and of its orthogonal complement.

    Attributes:
        inside, across: eigenvalues of the two diagonal blocks, ascending.
        coupling: largest singular value of the block between them.
        gradient_inside, gradient_across: norms of the gradient's two parts.
        escape: ``[n]``, the unit vector across the plane along which the loss curves least.
    """

    inside: Tensor
    across: Tensor
    coupling: float
    gradient_inside: float
    gradient_across: float
    escape: Tensor

    def kind(self, tolerance: float = 1e-6) -> str:
        """``minimum``, ``saddle across`` (minimum within the plane only) or ``saddle within``.

        An eigenvalue counts as negative below ``-tolerance`` times the largest.
        """
        largest = torch.cat([self.inside, self.across]).abs().max().item()
        if self.inside[0] < -tolerance * largest:
            return "saddle within"
        if len(self.across) and self.across[0] < -tolerance * largest:
            return "saddle across"
        return "minimum"


def plane_curvature(
    plane: Plane, names: list[str], gradient: Tensor, hessian: Tensor
) -> PlaneCurvature:
    """Split a gradient ``[n]`` and a Hessian ``[n, n]`` along a plane.

    Args:
        plane: in the space of the parameters ``names``, in whose order the vectors are flat.
    """
    basis = plane.basis(names).to(hessian)
    full, _ = torch.linalg.qr(basis, mode="complete")
    rest = full[:, basis.shape[1] :]
    inside = torch.linalg.eigvalsh(basis.mT @ hessian @ basis)
    across, vectors = torch.linalg.eigh(rest.mT @ hessian @ rest)
    block = rest.mT @ hessian @ basis
    return PlaneCurvature(
        inside=inside,
        across=across,
        coupling=torch.linalg.matrix_norm(block, 2).item() if block.numel() else 0.0,
        gradient_inside=(basis.mT @ gradient).norm().item(),
        gradient_across=(rest.mT @ gradient).norm().item(),
        escape=rest @ vectors[:, 0] if len(across) else torch.zeros_like(gradient),
    )
