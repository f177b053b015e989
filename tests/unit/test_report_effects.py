"""Effects and the laws of their errors: against scipy, by hand, and by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from equiscape.report import statistics
from equiscape.report.effects import mean_difference, spread_ratio


def test_one_task_is_welch():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 5), rng.normal(1, 3, 7)
    effect = mean_difference([(a, b)])
    test = stats.ttest_ind(b, a, equal_var=False)
    ends = test.confidence_interval(0.95)
    found = effect.interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert effect.p_none() == pytest.approx(test.pvalue)
    more = stats.ttest_ind(b - 2, a, equal_var=False, alternative="less")
    assert effect.p_at_least(2) == pytest.approx(more.pvalue)
    assert effect.p_at_most(-1) == pytest.approx(
        stats.ttest_ind(b + 1, a, equal_var=False, alternative="greater").pvalue
    )
    assert effect.p_outside(-6, 6) == pytest.approx(statistics.equivalence(a, b, 6))


def test_an_estimate_inside_its_range_is_never_refuted():
    effect = mean_difference([([0.0, 1, 2, 3], [1.0, 2, 3, 4])])
    assert effect.p_inside(0.5, 2) == 1
    far = effect.p_inside(6, 8)
    assert far == pytest.approx(2 * effect.p_at_least(6))
    assert far < 0.01


def test_intervals_over_tasks_cover_with_unequal_spreads():
    """Two tasks, 4 + 4 seeds: deviations 1 and 2 against 3 and .5; the true mean gain is 1."""
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(1500):
        tasks = [
            (rng.normal(0, 1, 4), rng.normal(0.5, 2, 4)),
            (rng.normal(9, 3, 4), rng.normal(10.5, 0.5, 4)),
        ]
        found = mean_difference(tasks).interval()
        inside.append(found.low <= 1 <= found.high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.025)


def test_a_slope_weighs_the_tasks():
    tasks = [([0.0, 2], [1.0, 3]), ([0.0, 2], [5.0, 7])]
    effect = mean_difference(tasks, [-1, 1])
    assert effect.value == 4
    assert effect.law.scale == pytest.approx(2.0)  # four means of variance one
    assert effect.law.freedom == pytest.approx(4)


@pytest.mark.parametrize("tasks", [1, 2])
def test_intervals_of_ratios_of_deviations_cover(tasks):
    rng = np.random.default_rng(2)
    inside = []
    for _ in range(600):
        pairs = [(rng.normal(0, 1, 5), rng.normal(0, 2, 5)) for _ in range(tasks)]
        found = spread_ratio(pairs).interval()
        inside.append(found.low <= math.log(2) <= found.high)
    assert np.mean(inside) == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / 600))


def test_one_ratio_of_deviations_is_the_f_test():
    a, b = np.array([0.0, 1, 2, 4]), np.array([0.0, 5, 9, 20, 3])
    effect = spread_ratio([(a, b)])
    f = b.var(ddof=1) / a.var(ddof=1)
    assert effect.value == pytest.approx(math.log(f) / 2)
    assert effect.p_none() == pytest.approx(2 * min(stats.f.sf(f, 4, 3), stats.f.cdf(f, 4, 3)))


def test_detectable_difference_by_simulation():
    """The spread seen is the true one here, so t tests find that effect in 80 % of studies."""
    unit = np.array([-1.5, -0.5, 0.5, 1.5])
    sample = unit / unit.std(ddof=1)
    least = mean_difference([(sample, sample)]).detectable()
    assert least == pytest.approx(statistics.detectable(4))
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, (20_000, 4)), rng.normal(least, 1, (20_000, 4))
    assert (stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.012)


def test_detectable_ratio_of_deviations_by_simulation():
    rng = np.random.default_rng(4)
    effect = spread_ratio([(rng.normal(0, 1, 6), rng.normal(0, 1, 6))])
    ratio = math.exp(effect.detectable())
    a, b = rng.normal(0, 1, (20_000, 6)), rng.normal(0, ratio, (20_000, 6))
    f = b.var(axis=1, ddof=1) / a.var(axis=1, ddof=1)
    found = 2 * np.minimum(stats.f.cdf(f, 5, 5), stats.f.sf(f, 5, 5)) < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.012)


def test_no_law_without_a_spread():
    for pairs in ([([1.0], [2.0])], [([1.0, 1.0], [2.0, 2.0])]):
        effect = mean_difference(pairs)
        assert effect.value == 1
        assert math.isnan(effect.interval().low)
        assert math.isnan(effect.detectable())
    assert math.isnan(spread_ratio([([1.0, 1.0], [1.0, 2.0])]).value)


def test_relabeling_stays_within_tasks():
    """Two tasks of two seeds: of 6 x 6 relabelings two are as far out as the one seen."""
    tasks = [([0.0, 1], [2.0, 3]), ([10.0, 11], [12.0, 13])]
    test = statistics.stratified_test(tasks)
    assert test.p == test.floor == pytest.approx(2 / 36)
    alone = statistics.stratified_test(tasks[:1])
    assert alone.p == statistics.unpaired_test(*tasks[0]).p == pytest.approx(2 / 6)


def test_drawn_relabelings_agree_with_all_of_them(monkeypatch):
    rng = np.random.default_rng(5)
    tasks = [(rng.normal(0, 1, 4), rng.normal(0.7, 1, 4)) for _ in range(2)]
    exact = statistics.stratified_test(tasks)
    monkeypatch.setattr(statistics, "EXACT_LIMIT", 4000)
    drawn = statistics.stratified_test(tasks)
    assert drawn.name == "unpaired, sampled permutation within tasks"
    assert drawn.p == pytest.approx(exact.p, abs=4 * math.sqrt(exact.p / 4000))
