"""Tests and intervals for the few seeds that a study can afford.

Conventions: ``a`` is the baseline's sample, ``b`` the other optimizer's; estimates are of b against
a. Intervals are Welch's t intervals, which cover 95 % at four seeds a side (a bootstrap: 80 %).
Tests permute exactly, so a p-value has a floor that the number of seeds sets; it is reported beside
the p-value, and nothing smaller is ever printed. All functions take any sequences of numbers.
"""

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # its parts, stats above all, are imported where they are first used

Values = Sequence[float] | np.ndarray
CONFIDENCE = 0.95
EXACT_LIMIT = 200_000
"""More relabelings than these are sampled instead of enumerated."""
ROUNDING = 1e-9
POWER = 0.8
"""With which what is called detectable is found."""


@dataclass(frozen=True)
class Estimate:
    """An estimate with its confidence interval; NaN ends where there is none."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Test:
    """A p-value, the smallest that the test can give, and the test's name."""

    p: float
    floor: float
    name: str


def welch(a: Values, b: Values, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of b minus mean of a with Welch's t interval (unequal variances).

    The ends are NaN where a side has fewer than two values, or neither has any spread.
    """
    a, b = _finite(a), _finite(b)
    if not len(a) or not len(b):
        return Estimate(math.nan, math.nan, math.nan)
    value = float(b.mean() - a.mean())
    if min(len(a), len(b)) < 2 or (np.ptp(a) == 0 and np.ptp(b) == 0):
        return Estimate(value, math.nan, math.nan)
    with warnings.catch_warnings():  # a sample whose values agree has a variance of zero, rightly
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        ends = scipy.stats.ttest_ind(b, a, equal_var=False).confidence_interval(confidence)
    return Estimate(value, float(ends.low), float(ends.high))


def mean_interval(values: Values, confidence: float = CONFIDENCE) -> Estimate:
    """Mean with Student's t interval."""
    values = _finite(values)
    if not len(values):
        return Estimate(math.nan, math.nan, math.nan)
    value = float(values.mean())
    if len(values) < 2:
        return Estimate(value, math.nan, math.nan)
    half = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1) * scipy.stats.sem(values)
    return Estimate(value, value - half, value + half)


def ratio(a: Values, b: Values, confidence: float = CONFIDENCE) -> Estimate:
    """Ratio of geometric means, b over a, with Welch's t interval taken on the logarithms.

    NaN where a value is not positive: a ratio to a trace that may be zero says nothing.
    """
    a, b = _finite(a), _finite(b)
    if not len(a) or not len(b) or min(a.min(), b.min()) <= 0:
        return Estimate(math.nan, math.nan, math.nan)
    logs = welch(np.log(a), np.log(b), confidence)
    return Estimate(math.exp(logs.value), _exp(logs.low), _exp(logs.high))


def ratio_of_measured(
    a: float, a_error: float, b: float, b_error: float, confidence: float = CONFIDENCE
) -> Estimate:
    """Ratio of two measured numbers with standard errors, propagated on the log scale.

    To first order the variance of log(b/a) is ``(a_error/a)^2 + (b_error/b)^2``. The interval is
    that of the measurement alone: other seeds are not in it. NaN where a number lies within two
    standard errors of zero.
    """
    if not (a > 2 * a_error >= 0 and b > 2 * b_error >= 0):
        return Estimate(math.nan, math.nan, math.nan)
    half = scipy.stats.norm.ppf((1 + confidence) / 2) * math.hypot(a_error / a, b_error / b)
    return Estimate(b / a, b / a * math.exp(-half), b / a * math.exp(half))


def ratio_of_bounded(a: float, a_bound: float, b: float, b_bound: float) -> Estimate:
    """Ratio of two numbers that are each known to within a bound: the ends that the bounds allow.

    An eigenvalue lies within its residual of the one reported, so this is no confidence interval
    but a certain one. NaN where a bound reaches zero.
    """
    if not (a > a_bound >= 0 and b > b_bound >= 0):
        return Estimate(math.nan, math.nan, math.nan)
    return Estimate(b / a, (b - b_bound) / (a + a_bound), (b + b_bound) / (a - a_bound))


def paired_test(differences: Values) -> Test:
    """Exact two-sided sign-flip test that paired differences scatter about zero.

    All ``2^n`` signs are tried; the floor is ``2 / 2^n`` (.125 at n = 4, .0625 at n = 5).
    """
    d = _finite(differences)
    name = "paired, exact sign flips"
    if len(d) < 2:
        return Test(math.nan, math.nan, name)
    seen = abs(d.sum()) * (1 - ROUNDING)
    if 2 ** len(d) <= EXACT_LIMIT:
        signs = np.array(list(itertools.product((1, -1), repeat=len(d))))
        hits = np.abs(signs @ d) >= seen
        return Test(float(hits.mean()), 2.0 / len(hits), name)
    signs = np.random.default_rng(0).choice((1, -1), (EXACT_LIMIT, len(d)))
    hits = int((np.abs(signs @ d) >= seen).sum())
    return Test((hits + 1) / (EXACT_LIMIT + 1), 1 / (EXACT_LIMIT + 1), "paired, sampled sign flips")


def unpaired_test(a: Values, b: Values) -> Test:
    """Exact two-sided permutation test that two samples have one distribution, by their means.

    All ways to split the pooled values are tried; the floor is ``2 / C(2n, n)`` for equal sides
    (.029 at n = 4, .008 at n = 5, .002 at n = 6), ``1 / C(n + m, n)`` for unequal ones.
    """
    return stratified_test([(a, b)])


def stratified_test(pairs: Sequence[tuple[Values, Values]]) -> Test:
    """Exact two-sided permutation test by the mean of several differences of means.

    Values are relabeled within each pair of samples (a task) and never across. All relabelings are
    tried where they are few, else as many drawn; the floor is twice their reciprocal where every
    pair has sides of one size, else the reciprocal.
    """
    samples = [(_finite(a), _finite(b)) for a, b in pairs]
    name = "unpaired, exact permutation" + (" within tasks" if len(samples) > 1 else "")
    sizes = [(len(a), len(b)) for a, b in samples]
    if not sizes or min(map(min, sizes)) < 1 or max(map(sum, sizes)) < 3:
        return Test(math.nan, math.nan, name)
    seen = abs(sum(b.mean() - a.mean() for a, b in samples))
    seen -= ROUNDING * max(seen, *(float(np.ptp(np.concatenate(pair))) for pair in samples))
    gaps = [_relabeled(a, b) for a, b in samples]
    exact = all(len(g) == math.comb(n + m, n) for g, (n, m) in zip(gaps, sizes))
    total = math.prod(math.comb(n + m, n) for n, m in sizes)
    if exact and total <= EXACT_LIMIT:
        sums = gaps[0]
        for more in gaps[1:]:
            sums = np.add.outer(sums, more).ravel()
        floor = (2 if all(n == m for n, m in sizes) else 1) / total
        return Test(float((np.abs(sums) >= seen).mean()), floor, name)
    rng = np.random.default_rng(0)
    draws = EXACT_LIMIT if len(gaps) > 1 else len(gaps[0])
    sums = np.sum([rng.choice(g, draws) for g in gaps], axis=0) if len(gaps) > 1 else gaps[0]
    hits = int((np.abs(sums) >= seen).sum())
    return Test((hits + 1) / (draws + 1), 1 / (draws + 1), name.replace("exact", "sampled"))


def _relabeled(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean of b less mean of a under every relabeling of the values, or 20,000 drawn ones."""
    pooled, n, m = np.concatenate([a, b]), len(a), len(b)
    if math.comb(n + m, n) <= EXACT_LIMIT:
        sums = pooled[_splits(n + m, n)].sum(axis=1)
    else:
        rng = np.random.default_rng(0)
        sums = np.array([rng.permutation(pooled)[:n].sum() for _ in range(20_000)])
    return (pooled.sum() - sums) / m - sums / n


@lru_cache(maxsize=4)
def _splits(total: int, chosen: int) -> np.ndarray:
    """``[ways, chosen]``: every way to choose of ``total`` values."""
    ways = itertools.chain.from_iterable(itertools.combinations(range(total), chosen))
    return np.fromiter(ways, np.intp, math.comb(total, chosen) * chosen).reshape(-1, chosen)


def holm(p: Values) -> list[float]:
    """Holm's step-down adjustment of p-values; NaN stays NaN and is not counted."""
    p = np.asarray(p, float)
    adjusted = np.full(len(p), math.nan)
    known = np.flatnonzero(np.isfinite(p))
    running = 0.0
    for rank, index in enumerate(known[np.argsort(p[known], kind="stable")]):
        running = max(running, min(1.0, (len(known) - rank) * p[index]))
        adjusted[index] = running
    return adjusted.tolist()


def equivalence(a: Values, b: Values, bound: float) -> float:
    """TOST: the p-value against "the means differ by ``bound`` or more", with Welch's t.

    A small value supports "no difference worth ``bound``"; the bound is set before looking.
    """
    a, b = _finite(a), _finite(b)
    if min(len(a), len(b)) < 2 or bound <= 0:
        return math.nan
    above = scipy.stats.ttest_ind(b + bound, a, equal_var=False, alternative="greater").pvalue
    below = scipy.stats.ttest_ind(b - bound, a, equal_var=False, alternative="less").pvalue
    return float(max(above, below))


def detectable(n: int, paired: bool = False, power: float = POWER, alpha: float = 0.05) -> float:
    """The smallest true effect that a t test at ``n`` seeds a side finds with ``power``.

    In standard deviations of a seed (unpaired) or of a paired difference; NaN below two seeds.
    """
    if n < 2:
        return math.nan
    scale = math.sqrt(n if paired else n / 2)
    return noncentrality(n - 1 if paired else 2 * n - 2, power, alpha) / scale


def noncentrality(freedom: float, power: float = POWER, alpha: float = 0.05) -> float:
    """The smallest true effect that a two-sided t test finds with ``power``, in standard errors."""
    critical = scipy.stats.t.ppf(1 - alpha / 2, freedom)

    def missing(shift: float) -> float:
        found = np.nan_to_num(scipy.stats.nct.sf(critical, freedom, shift), nan=1.0)
        return found + np.nan_to_num(scipy.stats.nct.cdf(-critical, freedom, shift)) - power

    return float(scipy.optimize.brentq(missing, 1e-3, 25.0 + critical))


def deviation_range(n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """What a sample standard deviation of ``n`` normal values may be off by, as two factors.

    The true deviation lies between them times the sample's: 0.45 and 32 at n = 2, 0.57 and 3.7 at
    n = 4.
    """
    if n < 2:
        return math.nan, math.nan
    tails = (1 + confidence) / 2, (1 - confidence) / 2
    low, high = (math.sqrt((n - 1) / scipy.stats.chi2.ppf(tail, n - 1)) for tail in tails)
    return low, high


def correlation(a: Values, b: Values) -> float:
    """Pearson correlation of paired values; NaN below three pairs or without spread."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def sign_chance(successes: int, trials: int) -> float:
    """Two-sided probability of a count at least as lopsided from fair coins."""
    if trials < 1:
        return math.nan
    return float(scipy.stats.binomtest(successes, trials).pvalue)


def _finite(values: Values) -> np.ndarray:
    array = np.asarray(values, float)
    return array[np.isfinite(array)]


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
