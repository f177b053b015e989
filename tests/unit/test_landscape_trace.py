"""Trace estimates: exact cases, and standard errors that mean what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_landscape_lanczos import generator, hessian_like, operator_of

from equiscape.landscape.lanczos import Krylov, lanczos
from equiscape.landscape.operators import SymmetricOperator
from equiscape.landscape.trace import hutchinson, mean_interval, rademacher


def test_a_diagonal_is_exact_with_one_kind_of_probe():
    diagonal = torch.linspace(-3, 8, 50, dtype=torch.float64)
    operator = SymmetricOperator(50, lambda v: v * diagonal)
    estimate = hutchinson(operator, 5, generator=generator())
    assert estimate.value == pytest.approx(diagonal.sum().item(), rel=1e-14)
    assert estimate.standard_error < 1e-12
    assert operator.products == estimate.probes == 5


def test_probes_are_signs():
    z = rademacher(SymmetricOperator(10_000, None), 3, generator())
    assert z.shape == (3, 10_000)
    assert (z.abs() == 1).all()
    assert z.mean().abs() < 0.02


def test_deflating_the_whole_space_is_exact():
    values = np.linspace(-1, 2, 30)
    operator, _ = operator_of(values)
    krylov = lanczos(operator, leading=30, tolerance=0, max_iterations=30, generator=generator())
    estimate = hutchinson(operator, 4, generator=generator(1), krylov=krylov)
    assert estimate.deflated == 30
    assert estimate.value == pytest.approx(values.sum(), rel=1e-12)
    assert estimate.standard_error < 1e-12


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflated"])
def test_standard_errors_are_calibrated(deflate):
    """Over many seeds, (estimate - trace) / error has mean 0 and the spread of Student's t.

    No eigenvalue dominates here: a sample would be chi-squared with one degree of freedom
    otherwise, and its t statistic skewed at any affordable number of probes.
    """
    values = np.linspace(-1, 3, 150)
    operator, _ = operator_of(values)
    krylov = lanczos(operator, leading=3, generator=generator()) if deflate else None
    scores = []
    for seed in range(400):
        estimate = hutchinson(operator, 20, generator=generator(seed + 10), krylov=krylov)
        scores.append((estimate.value - values.sum()) / estimate.standard_error)
    scores = np.array(scores)
    # Student's t with 19 degrees of freedom: standard deviation sqrt(19/17) = 1.06.
    assert abs(scores.mean()) < 0.2
    assert scores.std() == pytest.approx(1.06, abs=0.15)
    assert np.mean(np.abs(scores) < 2.093) == pytest.approx(0.95, abs=0.035)


def test_the_plain_error_is_what_theory_says():
    """Variance of a sample: 2 (|A|_F^2 - sum A_ii^2)."""
    operator, matrix = operator_of(hessian_like(120))
    variance = 2 * (matrix.square().sum() - matrix.diag().square().sum()).item()
    estimate = hutchinson(operator, 4000, generator=generator(), block=500)
    assert estimate.standard_error == pytest.approx((variance / 4000) ** 0.5, rel=0.05)


def test_deflation_takes_the_outliers_out_of_the_error():
    values = hessian_like(300)
    operator, _ = operator_of(values)
    krylov = lanczos(operator, leading=10, generator=generator())
    plain = hutchinson(operator, 64, generator=generator(1))
    deflated = hutchinson(operator, 64, generator=generator(1), krylov=krylov)
    assert deflated.standard_error < 0.01 * plain.standard_error
    assert deflated.value == pytest.approx(values.sum(), abs=5 * deflated.standard_error)


def test_probes_stop_at_the_asked_precision():
    values = hessian_like(300)
    operator, _ = operator_of(values)
    krylov = lanczos(operator, leading=10, generator=generator())
    estimate = hutchinson(
        operator, 500, generator=generator(1), krylov=krylov, tolerance=0.02, block=4
    )
    assert estimate.probes == 30  # the pilot sample is enough
    assert estimate.standard_error <= 0.02 * abs(estimate.value)
    capped = hutchinson(operator, 10, generator=generator(1), tolerance=1e-9)
    assert capped.probes == 10
    capped = hutchinson(operator, 50, generator=generator(1), tolerance=1e-9)
    assert capped.probes == 50


def many_outliers(n=200):
    """Leading eigenvalues that decay slowly: more of them deflated saves many probes."""
    rng = np.random.default_rng(1)
    return np.r_[100 * 0.85 ** np.arange(40), rng.normal(0, 0.05, n - 40)]


def test_the_space_grows_where_that_saves_probes_and_the_interval_still_covers():
    values = many_outliers()
    operator, _ = operator_of(values)
    spent, inside = {True: [], False: []}, []
    for seed in range(40):
        for plan in (True, False):
            krylov = lanczos(operator, leading=1, trailing=0, generator=generator(seed))
            if not plan:
                krylov = replace(krylov, space=None)
            estimate = hutchinson(
                operator, 5000, generator=generator(seed + 999), krylov=krylov, tolerance=2e-3,
                block=500,
            )  # fmt: skip
            spent[plan].append(estimate.probes + estimate.steps)
            if plan:
                inside.append(estimate.low <= values.sum() <= estimate.high)
                assert estimate.steps > 0
                assert estimate.deflated == krylov.iterations + estimate.steps
    assert np.mean(spent[True]) < 0.5 * np.mean(spent[False])
    assert np.mean(inside) > 0.85


def test_what_a_vector_takes_from_the_rest_is_known():
    operator, matrix = operator_of(hessian_like(60))
    space = Krylov(operator, 20, 1, generator())
    norm = matrix.square().sum().item()
    for _ in range(20):
        space.extend()
        q = space.basis
        rest = matrix - q.T @ (q @ matrix)
        rest = rest - (rest @ q.T) @ q
        norm -= space.drops[-1] * space.unit**2
        assert norm == pytest.approx(rest.square().sum().item(), rel=1e-6, abs=1e-3)


def chi_squared(top, bulk):
    """A spectrum with one dominating eigenvalue: samples are skewed as chi-squared ones are."""
    return np.r_[top, np.linspace(-1, 1.4, 119) * bulk]


@pytest.mark.parametrize("tolerance", [None, 0.02, 0.1], ids=["fixed", "fine", "coarse"])
@pytest.mark.parametrize(
    "values",
    [np.linspace(0.2, 3, 120), chi_squared(10, 1), chi_squared(50, 0.3)],
    ids=["bulk", "outlier", "one dominates"],
)
def test_the_stated_interval_covers(values, tolerance):
    """Over 1,000 estimates the 95 % interval holds the trace 93 to 97 % of the time."""
    operator, _ = operator_of(values, dtype=torch.float64)
    probes = 64 if tolerance is None else 1200
    estimates = [
        hutchinson(operator, probes, generator=generator(s), tolerance=tolerance, block=1200)
        for s in range(1000)
    ]
    inside = [e.low <= values.sum() <= e.high for e in estimates]
    assert 0.93 <= np.mean(inside) <= 0.97
    errors = np.array([(e.value - values.sum()) / e.standard_error for e in estimates])
    assert np.sqrt(np.median(errors**2)) == pytest.approx(0.6745, abs=0.08)


def test_an_interval_of_a_known_sample():
    """Without skewness it is Student's."""
    samples = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    mean, error, low, high = mean_interval(samples)
    assert (mean, error) == (3.0, pytest.approx(np.sqrt(2.5 / 5)))
    assert high - mean == pytest.approx(2.776445 * error, rel=1e-6)
    assert mean - low == pytest.approx(high - mean)
    assert mean_interval(samples * 1e200)[1] == pytest.approx(error * 1e200)
