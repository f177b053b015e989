"""Tests and intervals against scipy, against the floors worked out by hand, and by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from equiscape.report import statistics


@pytest.mark.parametrize(("n", "paired", "unpaired"), [
    (4, 2 / 16, 2 / 70), (5, 2 / 32, 2 / 252), (6, 2 / 64, 2 / 924),
])  # fmt: skip
def test_no_p_value_falls_below_its_floor(n, paired, unpaired):
    a, b = np.arange(n, dtype=float), 1000 + np.arange(n) ** 1.5
    flips, splits = statistics.paired_test(b - a), statistics.unpaired_test(a, b)
    assert flips.floor == flips.p == pytest.approx(paired)
    assert splits.floor == splits.p == pytest.approx(unpaired)


def test_unequal_sides_have_a_floor_of_one_split():
    test = statistics.unpaired_test([1, 2, 3], [10, 11])
    assert test.floor == pytest.approx(1 / 10)
    assert test.p >= test.floor


def test_permutation_tests_agree_with_scipy():
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.normal(0, 1, 4), rng.normal(0.8, 1, 4)

        def gap(x, y, axis):
            return np.mean(y, axis=axis) - np.mean(x, axis=axis)

        ours = statistics.unpaired_test(a, b).p
        theirs = stats.permutation_test((a, b), gap, vectorized=True, n_resamples=np.inf).pvalue
        assert ours == pytest.approx(theirs)
        ours = statistics.paired_test(b - a).p
        theirs = stats.permutation_test(
            (b - a,), np.mean, permutation_type="samples", n_resamples=np.inf
        ).pvalue
        assert ours == pytest.approx(theirs)


def test_no_difference_has_p_one():
    assert statistics.paired_test([0, 0, 0, 0]).p == 1
    assert statistics.unpaired_test([1, 1, 1], [1, 1, 1]).p == 1


def test_welch_against_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 4), rng.normal(2, 3, 6)
    ours = statistics.welch(a, b)
    theirs = stats.ttest_ind(b, a, equal_var=False).confidence_interval()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert ours.value == pytest.approx(b.mean() - a.mean())
    # by hand: Welch-Satterthwaite
    va, vb = a.var(ddof=1) / 4, b.var(ddof=1) / 6
    freedom = (va + vb) ** 2 / (va**2 / 3 + vb**2 / 5)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(va + vb)
    assert ours.high - ours.value == pytest.approx(half)


def test_the_published_gain_of_dgcnn_on_corrupted_clouds():
    """+2.58 [.03, 5.13] from 75.26 +- 1.63 and 77.84 +- .27 over four seeds."""

    def sample(mean, deviation):
        unit = np.array([-1.5, -0.5, 0.5, 1.5])
        return mean + deviation * unit / unit.std(ddof=1)

    gain = statistics.welch(sample(75.26, 1.63), sample(77.84, 0.27))
    assert (gain.value, gain.low, gain.high) == pytest.approx((2.58, 0.03, 5.13), abs=0.01)


def test_welch_intervals_cover_at_four_seeds_a_side():
    rng = np.random.default_rng(2)
    a, b = rng.normal(0, 1, (4000, 4)), rng.normal(0, 2, (4000, 4))
    inside = [(e := statistics.welch(x, y)).low <= 0 <= e.high for x, y in zip(a[:1500], b[:1500])]
    # 0.95 within four standard errors of the simulation
    assert np.mean(inside) == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / 1500))


def test_log_ratio_intervals_cover():
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(1500):
        a, b = np.exp(rng.normal(0, 0.5, 4)), np.exp(rng.normal(math.log(3), 0.5, 4))
        found = statistics.ratio(a, b)
        inside.append(found.low <= 3 <= found.high)
    assert np.mean(inside) == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / 1500))


def test_propagated_ratio_errors_cover():
    rng = np.random.default_rng(4)
    inside = []
    for _ in range(2000):
        a, b = rng.normal(100, 4), rng.normal(300, 9)
        found = statistics.ratio_of_measured(a, 4, b, 9)
        inside.append(found.low <= 3 <= found.high)
    assert np.mean(inside) == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / 2000))


def test_no_ratio_to_what_may_be_zero():
    assert math.isnan(statistics.ratio_of_measured(1.0, 0.6, 5.0, 0.1).value)
    assert math.isnan(statistics.ratio([1, -1], [2, 3]).value)


def test_holm():
    assert statistics.holm([0.01, 0.02, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert statistics.holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    adjusted = statistics.holm([0.5, math.nan, 0.9])
    assert adjusted[0] == 1
    assert math.isnan(adjusted[1])
    assert statistics.holm([]) == []


def test_holm_at_four_seeds_lets_one_of_two_tests_pass():
    floor = 2 / 70
    assert statistics.holm([floor])[0] < 0.05
    assert min(statistics.holm([floor, floor])) > 0.05


@pytest.mark.parametrize(("n", "unpaired", "paired"), [
    (4, 2.39, 2.13), (5, 2.03, 1.69), (6, 1.80, 1.44), (8, 1.51, 1.16), (10, 1.33, 1.00),
])  # fmt: skip
def test_detectable_effects(n, unpaired, paired):
    assert statistics.detectable(n) == pytest.approx(unpaired, abs=0.01)
    assert statistics.detectable(n, paired=True) == pytest.approx(paired, abs=0.01)


def test_detectable_effect_by_simulation():
    rng = np.random.default_rng(5)
    effect = statistics.detectable(4)
    a, b = rng.normal(0, 1, (20_000, 4)), rng.normal(effect, 1, (20_000, 4))
    assert (stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.012)


def test_equivalence():
    rng = np.random.default_rng(6)
    a, b = rng.normal(0, 1, 18), rng.normal(0, 1, 18)
    ours = statistics.equivalence(a, b, 1.0)
    difference = statistics.welch(a, b, 0.90)  # TOST at 5 % is a 90 % interval inside the bounds
    assert (ours < 0.05) == (difference.low > -1 and difference.high < 1)
    assert statistics.equivalence(a, b + 5, 1.0) > 0.99
    assert math.isnan(statistics.equivalence([1], [2], 1.0))


def test_equivalence_has_the_stated_power():
    """18 seeds an arm find a true zero within one standard deviation in about 80 % of studies."""
    rng = np.random.default_rng(7)
    found = [
        statistics.equivalence(rng.normal(0, 1, 18), rng.normal(0, 1, 18), 1.0) < 0.05
        for _ in range(600)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(("n", "low", "high"), [(2, 0.446, 31.9), (4, 0.566, 3.73)])
def test_range_of_a_standard_deviation(n, low, high):
    assert statistics.deviation_range(n) == pytest.approx((low, high), rel=0.002)


def test_correlation_and_signs():
    assert statistics.correlation([1, 2, 3], [2, 4, 6.1]) == pytest.approx(1, abs=1e-3)
    assert math.isnan(statistics.correlation([1, 2], [2, 4]))
    assert statistics.sign_chance(5, 5) == pytest.approx(2 / 32)


def test_one_seed_has_an_estimate_without_an_interval():
    found = statistics.welch([1.0], [3.0])
    assert found.value == 2
    assert math.isnan(found.low)
    assert math.isnan(statistics.unpaired_test([1.0], [3.0]).p)
