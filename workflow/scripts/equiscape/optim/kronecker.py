"""Kronecker factors of a gradient's second moment, ``E[G G^T]`` and ``E[G^T G]``, and their bases.

All functions work on stacked matrices ``[blocks, rows, columns]``.
"""

from typing import Any

import torch
from torch import Tensor

SIDES = ("left", "right")  # G G^T, rows x rows; G^T G, columns x columns


def accumulate(
    state: dict[str, Any], g: Tensor, beta: float, max_side: int, total: bool = False
) -> None:
    """``factor <- beta factor + (1 - beta) G G^T`` for both sides of ``G``; from zero.

    A side longer than ``max_side`` has no factor: it is preconditioned by the identity. With
    ``total`` the products are summed instead.
    """
    for name, x in zip(SIDES, (g, g.mT)):
        if x.shape[1] > max_side:
            continue
        if name not in state:
            state[name] = x.new_zeros(x.shape[0], x.shape[1], x.shape[1])
        if total:
            state[name].baddbmm_(x, x.mT)
        else:
            state[name].baddbmm_(x, x.mT, beta=beta, alpha=1 - beta)


def eigenvectors(factor: Tensor) -> Tensor:
    """Orthonormal eigenvectors as columns, by descending eigenvalue."""
    return torch.linalg.eigh(factor.double()).eigenvectors.flip(-1).to(factor.dtype)


def refresh_bases(state: dict[str, Any]) -> None:
    """Put ``left_basis`` and ``right_basis`` in place, or follow their factors by one step.

    The step is one of orthogonal iteration, ``Q <- QR(factor Q)``: a fraction of the time of an
    eigendecomposition, enough for factors that change slowly (Vyas et al. 2024, algorithm 4).
    """
    for name in SIDES:
        if name not in state:
            continue
        basis = f"{name}_basis"
        if basis not in state:
            state[basis] = eigenvectors(state[name])
        else:
            state[basis] = torch.linalg.qr(state[name] @ state[basis]).Q


def rotate(state: dict[str, Any], x: Tensor) -> Tensor:
    """``Q_L^T x Q_R``."""
    if "left_basis" in state:
        x = state["left_basis"].mT @ x
    return x @ state["right_basis"] if "right_basis" in state else x


def rotate_back(state: dict[str, Any], x: Tensor) -> Tensor:
    """``Q_L x Q_R^T``."""
    if "left_basis" in state:
        x = state["left_basis"] @ x
    return x @ state["right_basis"].mT if "right_basis" in state else x


def inverse_root(factor: Tensor, root: float, eps: float) -> Tensor:
    """``(factor + eps I)^(-1/root)`` by eigenvalues in float64; negative ones are rounding, 0."""
    values, vectors = torch.linalg.eigh(factor.double())
    powers = (values.clamp(min=0) + eps) ** (-1 / root)
    return ((vectors * powers.unsqueeze(1)) @ vectors.mT).to(factor.dtype)


def soap_direction(state: dict[str, Any], g: Tensor, group: dict[str, Any]) -> Tensor:
    """SOAP's direction for the gradient ``g``, see :class:`equiscape.optim.soap.SOAP`."""
    beta1, beta2 = group["matrix_betas"]
    step = state["step"] = state.get("step", 0) + 1
    if step == 1:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(g), torch.zeros_like(g)
    accumulate(state, g, group["factor_beta"], group["max_side"])
    if (step - 1) % group["every"] == 0:
        refresh_bases(state)
    state["exp_avg"].lerp_(g, 1 - beta1)
    state["exp_avg_sq"].lerp_(rotate(state, g).square(), 1 - beta2)
    average = rotate(state, state["exp_avg"]) / (1 - beta1**step)
    root = (state["exp_avg_sq"] / (1 - beta2**step)).sqrt()
    return rotate_back(state, average / (root + group["matrix_eps"]))


def stacked(p: Tensor, tensor: Tensor, count: int) -> Tensor:
    """``tensor``, of the shape of ``p``, as ``[count, rows / count, columns]``."""
    return tensor.reshape(count, p.shape[0] // count, p.shape[1])
