"""An effect with the law of its error: interval, tests against any value, what n would find.

Effects are on the scale where errors add: differences as they are, ratios as logarithms. A law is
the distribution of an estimate less the truth; None where a sample is too small to show a spread.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import scipy  # its parts, stats above all, are imported where they are first used

from equiscape.report.statistics import (
    CONFIDENCE,
    POWER,
    ROUNDING,
    Estimate,
    Values,
    noncentrality,
)

DRAWS = 100_000


class Law(Protocol):
    """The distribution of an estimate's error."""

    def cdf(self, error: float) -> float:
        """Probability of an error this large or smaller."""
        ...

    def ppf(self, probability: float) -> float:
        """The error at a quantile."""
        ...

    def detectable(self, power: float, alpha: float) -> float:
        """The smallest effect that a two-sided test at ``alpha`` finds with ``power``."""
        ...


@dataclass(frozen=True)
class Student:
    """Errors of a mean whose standard error is itself estimated: scaled t."""

    scale: float
    freedom: float

    def cdf(self, error: float) -> float:
        """Probability of an error this large or smaller."""
        return float(scipy.stats.t.cdf(error / self.scale, self.freedom))

    def ppf(self, probability: float) -> float:
        """The error at a quantile."""
        return float(self.scale * scipy.stats.t.ppf(probability, self.freedom))

    def detectable(self, power: float, alpha: float) -> float:
        """By the noncentral t."""
        return self.scale * noncentrality(self.freedom, power, alpha)


@dataclass(frozen=True)
class LogDeviations:
    """Errors of the mean log ratio of sample deviations of normal values, pair by pair.

    One pair has the law of log F / 2, exactly; the mean of several is drawn (seed 0).

    Attributes:
        freedoms: degrees of freedom (numerator, denominator) of each pair.
    """

    freedoms: tuple[tuple[int, int], ...]

    def cdf(self, error: float) -> float:
        """Probability of an error this large or smaller."""
        if len(self.freedoms) == 1:
            return float(scipy.stats.f.cdf(math.exp(min(2 * error, 700)), *self.freedoms[0]))
        draws = _draws(self.freedoms)
        return float(np.searchsorted(draws, error, "right") + 1) / (len(draws) + 2)

    def ppf(self, probability: float) -> float:
        """The error at a quantile."""
        if len(self.freedoms) == 1:
            return math.log(scipy.stats.f.ppf(probability, *self.freedoms[0])) / 2
        return float(np.quantile(_draws(self.freedoms), probability))

    def detectable(self, power: float, alpha: float) -> float:
        """By shifting the law until the two-sided test finds it."""
        low, high = self.ppf(alpha / 2), self.ppf(1 - alpha / 2)

        def missing(effect: float) -> float:
            return 1 - self.cdf(high - effect) + self.cdf(low - effect) - power

        return float(scipy.optimize.brentq(missing, 0.0, high - low + 20))


@lru_cache(maxsize=16)
def _draws(freedoms: tuple[tuple[int, int], ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    logs = [np.log(rng.f(*pair, DRAWS)) / 2 for pair in freedoms]
    return np.sort(np.mean(logs, axis=0))


@dataclass(frozen=True)
class Effect:
    """An estimate and the law of its error."""

    value: float
    law: Law | None

    def interval(self, confidence: float = CONFIDENCE) -> Estimate:
        """The estimate with its two-sided interval; NaN ends where no spread was seen."""
        if self.law is None:
            return Estimate(self.value, math.nan, math.nan)
        low, high = (self.law.ppf((1 + side * confidence) / 2) for side in (-1, 1))
        return Estimate(self.value, self.value - high, self.value - low)

    def p_at_least(self, bound: float) -> float:
        """One-sided p-value of "the truth is ``bound`` or more"."""
        return math.nan if self.law is None else self.law.cdf(self.value - bound)

    def p_at_most(self, bound: float) -> float:
        """One-sided p-value of "the truth is ``bound`` or less"."""
        return math.nan if self.law is None else 1 - self.law.cdf(self.value - bound)

    def p_none(self) -> float:
        """Two-sided p-value of "the truth is zero"."""
        return min(1.0, 2 * min(self.p_at_least(0), self.p_at_most(0)))

    def p_outside(self, low: float, high: float) -> float:
        """TOST: the p-value of "the truth lies outside ``low`` to ``high``"."""
        return max(self.p_at_most(low), self.p_at_least(high))

    def p_inside(self, low: float, high: float) -> float:
        """The p-value of "the truth lies within ``low`` to ``high``"."""
        if self.law is None:
            return math.nan
        return min(1.0, 2 * min(self.p_at_least(low), self.p_at_most(high)))

    def detectable(self, power: float = POWER, alpha: float = 1 - CONFIDENCE) -> float:
        """The smallest effect that as many values with the spread seen would have shown."""
        return math.nan if self.law is None else self.law.detectable(power, alpha)


def mean_difference(
    pairs: Sequence[tuple[Values, Values]], weights: Sequence[float] | None = None
) -> Effect:
    """Weighted sum over tasks of (mean of b less mean of a), by default their mean.

    Welch's t with Satterthwaite's degrees of freedom, so the spread may differ by task and side.

    Args:
        pairs: the values of a and b in each task.
        weights: of the tasks; ``[1 / k] * k`` where absent.
    """
    weights = [1 / len(pairs)] * len(pairs) if weights is None else weights
    value, parts = 0.0, []
    for weight, (a, b) in zip(weights, pairs):
        value += weight * float(np.mean(b) - np.mean(a))
        if weight:
            parts += [(weight**2 * np.var(x, ddof=1) / len(x), len(x) - 1) if len(x) > 1
                      else (math.nan, 0) for x in (np.asarray(a), np.asarray(b))]  # fmt: skip
    variance = sum(part for part, _ in parts)
    if not variance > (ROUNDING * value) ** 2:  # also NaN: a side has one value
        return Effect(value, None)
    freedom = variance**2 / sum(part**2 / n for part, n in parts)
    return Effect(value, Student(math.sqrt(variance), float(freedom)))


def spread_ratio(pairs: Sequence[tuple[Values, Values]]) -> Effect:
    """Mean over tasks of the log ratio of sample standard deviations, b over a.

    The law holds for normal values. No law where a side has fewer than two values or no spread.
    """
    logs, freedoms = [], []
    for a, b in pairs:
        deviations = [float(np.std(x, ddof=1)) if len(x) > 1 else 0.0 for x in (a, b)]
        if min(deviations) <= 0:
            return Effect(math.nan, None)
        logs.append(math.log(deviations[1] / deviations[0]))
        freedoms.append((len(b) - 1, len(a) - 1))
    return Effect(float(np.mean(logs)), LogDeviations(tuple(freedoms)))
