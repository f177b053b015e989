"""Claims, what was measured for each, and whether that settles them.

A claim says of an optimizer that a quantity is more, less, the same or about so much as under the
baseline. Two tests decide, each after Holm's adjustment: one that finds the claimed effect, and one
that excludes every effect of the size that is worth claiming (``bound``, set before looking). What
neither settles is undecided, and the smallest effect that as many seeds with that spread would have
shown with a power of 80 % stands beside it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from equiscape.report import effects, statistics
from equiscape.report.effects import Effect
from equiscape.report.statistics import Estimate, Test

ALPHA = 0.05
HOLDS, FAILS, UNDECIDED, UNMEASURED = "holds", "does not hold", "undecided", "not measured"
COLUMNS = (
    "section", "claim", "measure", "optimizer", "task", "tasks", "n", "unit", "effect", "low",
    "high", "test", "p", "p_floor", "p_holm", "bound", "p_against", "p_against_holm",
    "detectable", "verdict", "add",
)  # fmt: skip
RATIOS = ("ratio", "spread")


@dataclass(frozen=True)
class Sample:
    """One task's values, a value a seed: under the baseline and under the other optimizer."""

    task: str
    base: np.ndarray
    other: np.ndarray
    weight: float | None = None


@dataclass(frozen=True)
class Claim:
    """A sentence about an optimizer against the baseline, and the values that it rests on.

    Attributes:
        section: ``published`` or ``beyond``; with the optimizer a family of Holm's adjustment.
        name, measure: what is claimed, and how it is measured.
        optimizer: of the configuration.
        expects: ``more``, ``less``, ``same`` or ``about`` (between the two bounds).
        bound: smallest effect worth claiming; for ``same`` the largest that counts as none; in the
            effect's unit. Two for ``about``.
        kind: ``difference``, ``ratio`` (of geometric means), ``spread`` (ratio of standard
            deviations) or ``slope`` (difference of differences, by the samples' weights).
        unit: of a difference or slope.
        samples: of the tasks; none where it was not measured.
        add: what to add to the study where there are none.
        tested: False where the values share networks, so that no test holds.
    """

    section: Literal["published", "beyond"]
    name: str
    measure: str
    optimizer: str
    expects: Literal["more", "less", "same", "about"]
    bound: float | tuple[float, float]
    kind: Literal["difference", "ratio", "spread", "slope"]
    unit: str = ""
    samples: Sequence[Sample] = field(default_factory=tuple)
    add: str = ""
    tested: bool = True

    @property
    def is_ratio(self) -> bool:
        """Whether effects are ratios, with errors on their logarithms."""
        return self.kind in RATIOS


def table(claims: Iterable[Claim]) -> pd.DataFrame:
    """A row a claim over all its tasks (``task`` empty), then one a task; see :data:`COLUMNS`.

    Holm's adjustment runs over the claims of one optimizer and section, and for the rows of tasks
    over the tasks of a claim. A claim about one task has one row, in the family of the claims.
    """
    rows = [row for claim in claims for row in _rows(claim)]
    frame = pd.DataFrame(rows, columns=[*COLUMNS, "sign", "family"])
    for column in ("p", "p_against"):
        frame[f"{column}_holm"] = frame.groupby("family", sort=False)[column].transform(
            lambda p: pd.Series(statistics.holm(p), index=p.index)
        )
    frame["verdict"] = [_verdict(row) for _, row in frame.iterrows()]
    return frame[list(COLUMNS)]


def _rows(claim: Claim) -> list[dict]:
    samples = [_finite(sample, claim) for sample in claim.samples]
    samples = [s for s in samples if len(s.base) and len(s.other)]
    family = f"{claim.section} {claim.optimizer}"
    head = {
        "section": claim.section, "claim": claim.name, "measure": claim.measure,
        "optimizer": claim.optimizer, "add": "", "unit": "ratio" if claim.is_ratio else claim.unit,
    }  # fmt: skip
    if not samples or (claim.kind == "slope" and len(samples) < 2):
        return [head | {"task": "", "tasks": 0, "n": 0, "add": claim.add, "family": family}]
    rows = [head | _judged(claim, samples) | {"family": family}]
    if len(samples) > 1 and claim.kind != "slope":
        own = f"{family} {claim.name} {claim.measure}"
        rows += [head | _judged(claim, [sample]) | {"family": own} for sample in samples]
    return rows


def _finite(sample: Sample, claim: Claim) -> Sample:
    """Without missing values; without any where a ratio meets a value that is not positive."""
    base, other = (np.asarray(x, float) for x in (sample.base, sample.other))
    base, other = base[np.isfinite(base)], other[np.isfinite(other)]
    if claim.kind == "ratio":
        if min(base.min(initial=1), other.min(initial=1)) <= 0:
            return Sample(sample.task, base[:0], other[:0], sample.weight)
        base, other = np.log(base), np.log(other)
    return Sample(sample.task, base, other, sample.weight)


def _judged(claim: Claim, samples: Sequence[Sample]) -> dict:
    """The entries of a row, on the scale of the claim's unit."""
    pairs = [(sample.base, sample.other) for sample in samples]
    effect, test = _effect(claim, samples, pairs)
    low, high = _bounds(claim)
    shown = _shown if claim.is_ratio else (lambda value: value)
    if claim.expects in ("more", "less"):
        sign = 1 if claim.expects == "more" else -1
        against = effect.p_at_least(high) if sign > 0 else effect.p_at_most(low)
    elif claim.expects == "same":  # held by equivalence, refuted by a difference
        against, name = test.p, "two one-sided t tests"
        test, sign = Test(effect.p_outside(low, high), 0.0, name), 0
    else:
        against, sign = effect.p_inside(low, high), 0
        test = Test(effect.p_outside(low, high), 0.0, "two one-sided t tests")
    if not claim.tested:
        test, against = Test(math.nan, math.nan, "none: pairs share networks"), math.nan
    interval: Estimate = effect.interval()
    least = effect.detectable() * (sign or 1)
    sizes = [min(len(a), len(b)) for a, b in pairs]
    toward = np.sign(effect.value) == sign if sign else True
    return {
        "task": samples[0].task if len(samples) == 1 else "",
        "tasks": len(samples),
        "n": min(sizes),
        "effect": shown(effect.value),
        "low": shown(interval.low),
        "high": shown(interval.high),
        "test": test.name if min(sizes) > 1 else "none: one seed",
        "p": test.p if min(sizes) > 1 else math.nan,
        "p_floor": test.floor if min(sizes) > 1 else math.nan,
        "bound": shown(high if sign >= 0 else low),
        "p_against": against if min(sizes) > 1 else math.nan,
        "detectable": shown(least),
        "sign": bool(toward),
    }


def _effect(claim: Claim, samples: Sequence[Sample], pairs: list) -> tuple[Effect, Test]:
    """The effect and the test that there is none."""
    if claim.kind == "spread":
        found = effects.spread_ratio(pairs)
        return found, Test(found.p_none(), 0.0, "F test of variances")
    if claim.kind == "slope":
        found = effects.mean_difference(pairs, [float(s.weight or 0) for s in samples])
        return found, Test(found.p_none(), 0.0, "Welch's t of the contrast")
    return effects.mean_difference(pairs), statistics.stratified_test(pairs)


def _bounds(claim: Claim) -> tuple[float, float]:
    """The bounds on the scale of the effect; symmetric about no effect where one is given."""
    if isinstance(claim.bound, tuple):
        low, high = claim.bound
        return (math.log(low), math.log(high)) if claim.is_ratio else (low, high)
    size = abs(math.log(claim.bound)) if claim.is_ratio else abs(claim.bound)
    return -size, size


def _shown(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _verdict(row: pd.Series) -> str:
    if not row["tasks"]:
        return UNMEASURED
    if row["p_holm"] < ALPHA and row["sign"]:
        return HOLDS
    return FAILS if row["p_against_holm"] < ALPHA else UNDECIDED
