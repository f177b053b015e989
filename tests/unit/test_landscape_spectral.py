"""Sharpness under a bound on the spectral norm: cases with a closed form."""

import pytest
import torch
from test_landscape_lanczos import generator

from equiscape.landscape.operators import SymmetricOperator
from equiscape.landscape.spectral import polar, spectral_sharpness

ARGUMENTS = {"tolerance": 1e-14, "max_iterations": 400, "starts": 4}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def rank_one(vector):
    return SymmetricOperator(len(vector), lambda v: (v @ vector)[:, None] * vector)


def nuclear(matrix):
    return torch.linalg.matrix_norm(matrix, "nuc").item()


def test_polar():
    matrix = normal(5, 3)
    unitary, norm = polar(matrix)
    torch.testing.assert_close(unitary.T @ unitary, torch.eye(3).double())
    assert norm == pytest.approx(nuclear(matrix))
    assert (unitary * matrix).sum().item() == pytest.approx(norm)


def test_an_operator_of_rank_one():
    """``vec A vec A^T``: ``(r |A|_nuclear)^2``."""
    a = normal(6, 4)
    found = spectral_sharpness(
        rank_one(a.flatten()), [(6, 4)], [1.7], **ARGUMENTS, generator=generator()
    )
    assert found.value == pytest.approx((1.7 * nuclear(a)) ** 2, rel=1e-12)
    assert found.converged
    assert found.gap < 1e-9


def test_two_matrices():
    a, b = normal(6, 4), normal(3, 5, seed=1)
    vector = torch.cat([a.flatten(), b.flatten()])
    found = spectral_sharpness(
        rank_one(vector), [(6, 4), (3, 5)], [1.7, 0.4], **ARGUMENTS, generator=generator()
    )
    truth = (1.7 * nuclear(a) + 0.4 * nuclear(b)) ** 2
    assert found.value == pytest.approx(truth, rel=1e-12)


def test_a_multiple_of_the_identity():
    found = spectral_sharpness(
        SymmetricOperator(24, lambda v: 3 * v), [(6, 4)], [2.0], **ARGUMENTS, generator=generator()
    )
    assert found.value == pytest.approx(3 * 4 * 4, rel=1e-12)


def kronecker(p, q, shape):
    """D -> P D Q."""
    return SymmetricOperator(
        shape[0] * shape[1], lambda v: (p @ v.view(-1, *shape) @ q).reshape(len(v), -1)
    )


def definite(n, seed):
    a = normal(n, n, seed=seed)
    return a @ a.T


def test_a_kronecker_product():
    """P, Q positive: ``r^2 sum lambda_i(P) lambda_i(Q)``, both sorted."""
    p, q = definite(5, 1), definite(4, 2)
    found = spectral_sharpness(
        kronecker(p, q, (5, 4)), [(5, 4)], [1.3], **ARGUMENTS, generator=generator()
    )
    ends = [torch.linalg.eigvalsh(m).flip(0)[:4] for m in (p, q)]
    assert found.value == pytest.approx(1.69 * (ends[0] * ends[1]).sum().item(), rel=1e-9)


@pytest.mark.parametrize(("top", "truth"), [("one", 1.2), ("two", 2.2)])
def test_equal_spectra_differ_by_the_rank_of_the_top_direction(top, truth):
    """Eigenvalues {.1, .1, .1, 1.1} on 2 x 2 matrices: what Muon sees is not the spectrum."""
    matrix = torch.zeros(2, 2).double()
    matrix[0, 0] = 1
    if top == "two":
        matrix = torch.eye(2).double() / 2**0.5
    vector = matrix.flatten()
    operator = SymmetricOperator(4, lambda v: 0.1 * v + (v @ vector)[:, None] * vector)
    found = spectral_sharpness(operator, [(2, 2)], [1.0], **ARGUMENTS, generator=generator())
    assert found.value == pytest.approx(truth, rel=1e-12)


def test_the_value_never_falls_where_curvature_is_negative():
    """Half of the spectrum is negative: the shift grows until every step rises."""
    a = normal(20, 20, seed=5)
    matrix = a + a.T
    operator = SymmetricOperator(20, lambda v: v @ matrix)
    short = spectral_sharpness(
        operator, [(5, 4)], [1.0], starts=3, tolerance=0, max_iterations=10, generator=generator()
    )
    long = spectral_sharpness(
        operator, [(5, 4)], [1.0], starts=3, tolerance=1e-9, max_iterations=900,
        generator=generator(),
    )  # fmt: skip
    assert all(b >= a for a, b in zip(short.starts, long.starts, strict=True))
    assert long.converged
    assert long.value == max(long.starts)
    assert not short.converged
    # random search finds nothing above the best
    trials = torch.stack([polar(normal(5, 4, seed=s))[0].flatten() for s in range(2000)])
    assert ((trials @ matrix) * trials).sum(1).max() <= long.value + 1e-9


def test_orthogonal_changes_of_basis_change_nothing():
    p, q = definite(4, 1), definite(4, 2)
    u, v = (torch.linalg.qr(normal(4, 4, seed=s)).Q for s in (3, 4))
    turned = kronecker(u @ p @ u.T, v.T @ q @ v, (4, 4))
    values = [
        spectral_sharpness(op, [(4, 4)], [1.0], **ARGUMENTS, generator=generator()).value
        for op in (kronecker(p, q, (4, 4)), turned)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_products_are_counted_and_the_gradient_is_the_first_start():
    a = normal(6, 4)
    operator = rank_one(a.flatten())
    found = spectral_sharpness(
        operator, [(6, 4)], [1.0], gradient=a.flatten(), starts=1, max_iterations=9
    )
    assert found.products == operator.products <= 9
    assert found.starts[0] == pytest.approx(nuclear(a) ** 2)
