"""Lanczos and power iteration on operators whose spectrum is known."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from equiscape.landscape.lanczos import lanczos, warm_start
from equiscape.landscape.operators import SymmetricOperator
from equiscape.landscape.power import power_iteration


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
        allowed = 2 * result.rounding
        np.testing.assert_allclose(pairs.residuals, residual, rtol=1e-6, atol=allowed)
        assert allowed < 1e-10


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
    assert operator.products == result.iterations


def test_scaled_products_are_counted_by_the_operator_below():
    operator, matrix = operator_of([1.0, 2.0, 3.0])
    t = torch.tensor([1.0, 0.5, 2.0]).double()
    scaled = operator.scaled(t)
    ours = scaled(torch.eye(3).double())
    torch.testing.assert_close(ours, t[:, None] * matrix * t, rtol=1e-14, atol=1e-14)
    assert operator.products == 3


def peaked(n=300, top=1e4):
    """One eigenvalue dominates; the ends of the bulk are what is asked for."""
    rng = np.random.default_rng(3)
    return np.sort(np.r_[top, 1.3, 1.1, 0.9, rng.normal(0, 0.01, n - 5), -0.3])[::-1]


@pytest.mark.parametrize("top", [50.0, 1e4, 1e6])
def test_each_eigenvalue_counts_by_its_own_magnitude_beside_a_dominating_one(top):
    values = peaked(top=top)
    result = lanczos(operator_of(values)[0], leading=4, tolerance=1e-3, generator=generator())
    assert result.leading.converged.all()
    assert result.leading.sign_known.all()
    np.testing.assert_allclose(result.leading.values, values[:4], rtol=1e-5)
    np.testing.assert_allclose(result.trailing.values, values[-1:], rtol=1e-5)
    assert (result.leading.residuals <= 1e-3 * result.leading.values).all()


def test_what_the_precision_hides_has_no_sign():
    """In float32 beside 1e6 a value of 0.3 is rounding: its residual says so."""
    values = peaked(top=1e6)
    operator, _ = operator_of(values, dtype=torch.float32)
    result = lanczos(operator, leading=4, max_iterations=40, generator=generator())
    assert result.leading.sign_known[0]
    assert not result.leading.sign_known[3]
    assert not result.trailing.sign_known[0]
    distance = np.abs(result.leading.values[:, None] - values).min(1)
    assert (distance <= result.leading.residuals).all()


def test_it_goes_on_until_the_smallest_has_shown_itself(monkeypatch):
    """An end that the start vector hardly contains appears steps after all others converged."""
    values = np.r_[np.linspace(0.5, 1, 60), 10.0, -2.0]
    matrix = torch.from_numpy(np.diag(values))
    start = torch.randn(1, 62, generator=generator()).double()
    start[0, -1] *= 1e-4
    monkeypatch.setattr("equiscape.landscape.lanczos.gaussian", lambda *_: start)
    operator = SymmetricOperator(62, lambda v: v @ matrix)
    result = lanczos(operator, leading=1, tolerance=0.2)
    assert result.trailing.values[0] == pytest.approx(-2.0, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-25, 1e-14, 1.0, 1e12, 1e30])
def test_the_scale_of_the_operator_does_not_matter(scale, dtype):
    matrix = operator_of(hessian_like(100))[1].to(dtype) * scale
    operator = SymmetricOperator(100, lambda v: v @ matrix, dtype)
    truth = np.sort(hessian_like(100))[::-1]
    result = lanczos(operator, leading=5, generator=generator())
    np.testing.assert_allclose(result.leading.values / scale, truth[:5], rtol=1e-5)
    assert result.leading.converged.all()
    power = power_iteration(operator, max_iterations=300, generator=generator())
    assert power.converged
    assert power.value / scale == pytest.approx(truth[0], rel=1e-4)
    assert 0 < power.residual <= 1e-3 * power.value


def test_a_zero_operator():
    operator = SymmetricOperator(8, torch.zeros_like)
    assert power_iteration(operator, generator=generator()).value == 0
    assert not lanczos(operator, leading=2, generator=generator()).leading.sign_known.any()


@pytest.mark.parametrize("shift", [0.0, -20.0], ids=["mixed", "negative"])
def test_copies_are_searched_until_their_number_is_stable(shift):
    values = np.r_[[9.0, 9.0, 9.0, 6.0, 6.0, 5.0], np.linspace(-1, 1, 200)] + shift
    operator, matrix = operator_of(values)
    arguments = {"leading": 6, "tolerance": 1e-8, "max_iterations": 80}
    once = lanczos(operator, leading=2, trailing=0, tolerance=1e-3, generator=generator())
    assert once.copies == "one a start vector"
    np.testing.assert_allclose(once.leading.values - shift, [9, 6], rtol=1e-6)
    twice = lanczos(
        operator, leading=2, trailing=0, tolerance=1e-3, copies=True, generator=generator()
    )
    np.testing.assert_allclose(twice.leading.values - shift, [9, 9], rtol=1e-6)
    result = lanczos(operator, **arguments, copies=True, generator=generator())
    assert result.copies == "searched"
    np.testing.assert_allclose(result.leading.values - shift, [9, 9, 9, 6, 6, 5], rtol=1e-8)
    gram = result.leading.vectors @ result.leading.vectors.T
    torch.testing.assert_close(gram, torch.eye(6).double(), rtol=0, atol=1e-7)
    q = result.basis
    torch.testing.assert_close(q @ q.T, torch.eye(len(q)).double(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.projection, q @ matrix @ q.T, atol=1e-9)


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


def from_before(leading, outlier):
    """Cold and warm searches, and the truth, for a matrix near one whose vectors are known."""
    before, matrix = operator_of(hessian_like())
    known = lanczos(before, leading=leading, trailing=0, generator=generator()).leading.vectors
    noise = torch.randn(300, 300, generator=generator(1), dtype=torch.float64)
    new = torch.linalg.eigh(matrix).eigenvectors[:, 150]  # of the bulk
    after = matrix + 0.005 * (noise + noise.T) + outlier * new[:, None] * new
    operator = SymmetricOperator(300, lambda v: v @ after)
    cold, warm = (
        lanczos(operator, leading=leading, trailing=0, generator=generator(2), start=start)
        for start in (None, warm_start(operator, known, generator(3)))
    )
    return cold, warm, torch.linalg.eigvalsh(after).flip(0)[:leading]


@pytest.mark.parametrize("leading", [1, 5])
def test_a_warm_start_finds_the_same_eigenvalues_in_fewer_products(leading):
    cold, warm, true = from_before(leading, outlier=0)
    for found in (cold, warm):
        assert found.leading.converged.all()
        np.testing.assert_allclose(found.leading.values, true, rtol=1e-6)
    assert warm.iterations < cold.iterations


@pytest.mark.parametrize("leading", [1, 5])
def test_a_warm_start_finds_what_was_not_there_before(leading):
    """An eigenvalue above all others, off every eigenvector of before."""
    _, warm, true = from_before(leading, outlier=6000)
    np.testing.assert_allclose(warm.leading.values, true, rtol=1e-6)
    assert true[0] > 5900


def test_an_eigenvector_alone_as_start_is_confirmed_and_others_still_found():
    operator, matrix = operator_of([5.0, 9.0, 1.0, 3.0])
    vectors = torch.linalg.eigh(matrix).eigenvectors.T
    result = lanczos(operator, leading=4, trailing=0, start=vectors[1:2], generator=generator())
    np.testing.assert_allclose(result.leading.values, [9, 5, 3, 1], rtol=1e-12)
