"""Lanczos and power iteration on operators whose spectrum is known."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from equiscape.landscape.lanczos import lanczos, power_iteration
from equiscape.landscape.objective import SymmetricOperator


def operator_of(values, seed=0, dtype=torch.float64):
    """A random symmetric matrix with the given eigenvalues, and its operator."""
    values = torch.tensor(np.array(values))
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(
        torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)
    )
    matrix = ((q * values) @ q.T).to(dtype)
    return SymmetricOperator(len(values), lambda v: v @ matrix, dtype), matrix


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def hessian_like(n=300):
    """A bulk around zero, outliers above and a negative end, as of a trained network."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0, 0.1, n - 14), 2.0 ** np.arange(1, 13), [-3.0, -1.5]])


def test_both_ends_with_residuals_that_bound_the_error():
    values = np.sort(hessian_like())[::-1]
    operator, matrix = operator_of(values)
    result = lanczos(operator, leading=10, trailing=2, tolerance=1e-9, generator=generator())
    assert result.leading.converged.all()
    assert result.trailing.converged.all()
    np.testing.assert_allclose(result.leading.values, values[:10], rtol=1e-12)
    np.testing.assert_allclose(result.trailing.values, values[-2:], atol=1e-10)
    for pairs in (result.leading, result.trailing):
        theta = torch.from_numpy(pairs.values.copy())[:, None]
        residual = (pairs.vectors @ matrix - theta * pairs.vectors).norm(dim=1)
        np.testing.assert_allclose(pairs.residuals, residual, rtol=1e-6, atol=1e-12)


def test_agrees_with_arpack():
    operator, matrix = operator_of(hessian_like())
    ours = lanczos(operator, leading=10, tolerance=1e-10, max_iterations=200, generator=generator())
    n = operator.size
    linear = scipy.sparse.linalg.LinearOperator((n, n), matvec=lambda v: matrix.numpy() @ v)
    theirs = scipy.sparse.linalg.eigsh(linear, k=10, which="LA", return_eigenvectors=False)
    np.testing.assert_allclose(ours.leading.values, np.sort(theirs)[::-1], rtol=1e-9)


def test_every_eigenvalue_lies_within_its_residual_before_convergence():
    values = hessian_like()
    operator, _ = operator_of(values)
    result = lanczos(
        operator, leading=10, tolerance=1e-12, max_iterations=14, generator=generator()
    )
    assert not result.leading.converged.all()
    distance = np.abs(result.leading.values[:, None] - values).min(1)
    assert (distance <= result.leading.residuals + 1e-9).all()


def test_the_basis_stays_orthonormal_and_the_projection_is_exact():
    operator, matrix = operator_of(hessian_like())
    result = lanczos(
        operator, leading=10, tolerance=1e-12, max_iterations=120, generator=generator()
    )
    q = result.basis
    torch.testing.assert_close(q @ q.T, torch.eye(len(q)).double(), rtol=0, atol=1e-13)
    np.testing.assert_allclose(result.projection, q @ matrix @ q.T, atol=1e-9)


def test_float32_reaches_float32():
    values = np.sort(hessian_like())[::-1]
    operator, _ = operator_of(values, dtype=torch.float32)
    result = lanczos(operator, leading=5, tolerance=1e-4, generator=generator())
    assert result.leading.converged.all()
    np.testing.assert_allclose(result.leading.values, values[:5], rtol=1e-5)
    q = result.basis.double()
    assert (q @ q.T - torch.eye(len(q))).abs().max() < 1e-5


def test_a_negative_definite_operator():
    values = -np.arange(1.0, 41.0)
    result = lanczos(
        operator_of(values)[0], leading=3, trailing=1, tolerance=1e-9, generator=generator()
    )
    np.testing.assert_allclose(result.leading.values, [-1, -2, -3], rtol=1e-9)
    np.testing.assert_allclose(result.trailing.values, [-40], rtol=1e-9)


def test_a_block_finds_the_copies_of_a_multiple_eigenvalue():
    values = np.concatenate([[5.0, 5.0, 5.0, 2.0], np.linspace(-1, 1, 60)])
    result = lanczos(
        operator_of(values)[0],
        leading=4,
        tolerance=1e-8,
        max_iterations=64,
        block=3,
        generator=generator(),
    )
    np.testing.assert_allclose(result.leading.values, [5, 5, 5, 2], rtol=1e-8)
    gram = result.leading.vectors @ result.leading.vectors.T
    torch.testing.assert_close(gram, torch.eye(4).double(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("value", [3.0, 0.0, -2.0])
def test_a_multiple_of_the_identity_goes_on_after_the_krylov_space_is_exhausted(value):
    operator = SymmetricOperator(20, lambda v: value * v)
    result = lanczos(operator, leading=4, trailing=1, tolerance=1e-9, generator=generator())
    np.testing.assert_allclose(result.leading.values, [value] * 4, atol=1e-12)
    np.testing.assert_allclose(result.trailing.values, [value], atol=1e-12)
    assert result.leading.converged.all()


def test_a_rank_one_operator():
    u = torch.nn.functional.normalize(torch.ones(30, dtype=torch.float64), dim=0)
    operator = SymmetricOperator(30, lambda v: 7 * (v @ u)[:, None] * u)
    result = lanczos(operator, leading=3, tolerance=1e-9, generator=generator())
    np.testing.assert_allclose(result.leading.values, [7, 0, 0], atol=1e-12)


def test_asking_for_more_eigenvalues_than_there_are():
    result = lanczos(operator_of([4.0, -1.0, 2.0])[0], leading=10, generator=generator())
    np.testing.assert_allclose(result.leading.values, [4, 2, -1], atol=1e-12)
    assert result.leading.converged.all()


def test_the_same_seed_gives_the_same_result():
    operator, _ = operator_of(hessian_like())
    first, again = (lanczos(operator, leading=3, generator=generator(5)) for _ in range(2))
    assert np.array_equal(first.leading.values, again.leading.values)


def test_products_are_counted():
    operator, _ = operator_of(hessian_like())
    result = lanczos(operator, leading=4, trailing=1, generator=generator())
    assert operator.products == result.iterations + 5


def test_scaled_products_are_counted_by_the_operator_below():
    operator, matrix = operator_of([1.0, 2.0, 3.0])
    t = torch.tensor([1.0, 0.5, 2.0]).double()
    scaled = operator.scaled(t)
    ours = scaled(torch.eye(3).double())
    torch.testing.assert_close(ours, t[:, None] * matrix * t, rtol=1e-14, atol=1e-14)
    assert operator.products == 3


def test_power_iteration_finds_the_largest_magnitude():
    operator, _ = operator_of(np.concatenate([[-9.0], np.linspace(-2, 4, 50)]))
    result = power_iteration(operator, tolerance=1e-8, max_iterations=500, generator=generator())
    assert result.converged
    assert result.value == pytest.approx(-9.0, rel=1e-9)
    assert operator.products == result.iterations
    opposite = power_iteration(
        operator, tolerance=1e-8, max_iterations=2000, shift=result.value, generator=generator()
    )
    assert opposite.converged
    assert opposite.value == pytest.approx(4.0, rel=1e-9)


def test_power_iteration_says_when_it_has_not_converged():
    """Two eigenvalues of equal magnitude and opposite sign: it never settles."""
    operator, _ = operator_of(np.concatenate([[5.0, -5.0], np.linspace(-1, 1, 20)]))
    result = power_iteration(operator, max_iterations=200, generator=generator())
    assert not result.converged
    assert result.residual > 0.1
