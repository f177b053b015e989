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

import numpy as np
from scipy import optimize, stats

Values = Sequence[float] | np.ndarray
CONFIDENCE = 0.95
EXACT_LIMIT = 200_000
"""More relabelings than these are sampled instead of enumerated."""
ROUNDING = 1e-9


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
        ends = stats.ttest_ind(b, a, equal_var=False).confidence_interval(confidence)
    return Estimate(value, float(ends.low), float(ends.high))


def mean_interval(values: Values, confidence: float = CONFIDENCE) -> Estimate:
    """Mean with Student's t interval."""
    values = _finite(values)
    if not len(values):
        return Estimate(math.nan, math.nan, math.nan)
    value = float(values.mean())
    if len(values) < 2:
        return Estimate(value, math.nan, math.nan)
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
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
    half = stats.norm.ppf((1 + confidence) / 2) * math.hypot(a_error / a, b_error / b)
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
    a, b = _finite(a), _finite(b)
    name = "unpaired, exact permutation"
    if min(len(a), len(b)) < 1 or len(a) + len(b) < 3:
        return Test(math.nan, math.nan, name)
    pooled = np.concatenate([a, b])
    total, n, m = pooled.sum(), len(a), len(b)
    count = math.comb(n + m, n)
    seen = abs(b.mean() - a.mean())
    seen -= ROUNDING * max(seen, float(np.ptp(pooled)))

    def gaps(sums: np.ndarray) -> np.ndarray:
        return np.abs((total - sums) / m - sums / n)

    if count <= EXACT_LIMIT:
        sums = np.fromiter(
            (pooled[list(chosen)].sum() for chosen in itertools.combinations(range(n + m), n)),
            float,
            count,
        )
        hits = gaps(sums) >= seen
        return Test(float(hits.mean()), (2 if n == m else 1) / count, name)
    rng = np.random.default_rng(0)
    draws = 20_000
    sums = np.array([rng.permutation(pooled)[:n].sum() for _ in range(draws)])
    hits = int((gaps(sums) >= seen).sum())
    return Test((hits + 1) / (draws + 1), 1 / (draws + 1), "unpaired, sampled permutation")


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
    above = stats.ttest_ind(b + bound, a, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(b - bound, a, equal_var=False, alternative="less").pvalue
    return float(max(above, below))


def detectable(n: int, paired: bool = False, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true effect that a t test at ``n`` seeds a side finds with ``power``.

    In standard deviations of a seed (unpaired) or of a paired difference; NaN below two seeds.
    """
    if n < 2:
        return math.nan
    freedom = n - 1 if paired else 2 * n - 2
    scale = math.sqrt(n if paired else n / 2)
    critical = stats.t.ppf(1 - alpha / 2, freedom)

    def missing(effect: float) -> float:
        shift = effect * scale
        found = np.nan_to_num(stats.nct.sf(critical, freedom, shift), nan=1.0)
        return found + np.nan_to_num(stats.nct.cdf(-critical, freedom, shift)) - power

    return float(optimize.brentq(missing, 1e-3, 25.0 / scale))


def deviation_range(n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """What a sample standard deviation of ``n`` normal values may be off by, as two factors.

    The true deviation lies between them times the sample's: 0.45 and 32 at n = 2, 0.57 and 3.7 at
    n = 4.
    """
    if n < 2:
        return math.nan, math.nan
    tails = (1 + confidence) / 2, (1 - confidence) / 2
    low, high = (math.sqrt((n - 1) / stats.chi2.ppf(tail, n - 1)) for tail in tails)
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
    return float(stats.binomtest(successes, trials).pvalue)


def _finite(values: Values) -> np.ndarray:
    array = np.asarray(values, float)
    return array[np.isfinite(array)]


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
