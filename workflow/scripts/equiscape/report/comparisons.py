"""Comparisons with the baseline that a page states, gathered into the table of statistics.

A page with claims has ``comparisons(manifest) -> list[Comparison]``. Holm's adjustment runs over
the comparisons of one claim and one test: the tasks of a study are one family.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from equiscape.report import statistics, titles
from equiscape.report.manifest import Manifest
from equiscape.report.statistics import Estimate, Test

COLUMNS = (
    "comparison", "claim", "task", "optimizer", "unit", "n", "estimate", "low", "high", "p",
    "p_floor", "p_holm", "test", "correlation", "detectable",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One optimizer against the baseline on one task.

    Attributes:
        claim: what is compared, e.g. ``test score``; one family of Holm's adjustment.
        task, optimizer: of the configuration.
        unit: of the estimate; ``ratio`` for a ratio to the baseline.
        n: seeds a side (the smaller one).
        estimate: difference (positive: better) or ratio, with its interval.
        test: p-value and floor; NaN where there are too few seeds to test.
        correlation: of the two optimizers' scores over shared seeds.
        detectable: the effect that this n finds with a power of 80 %, in the estimate's unit.
    """

    claim: str
    task: str
    optimizer: str
    unit: str
    n: int
    estimate: Estimate
    test: Test
    correlation: float = np.nan
    detectable: float = np.nan


def of_scores(
    claim: str,
    task: str,
    optimizer: str,
    unit: str,
    base: pd.Series,
    other: pd.Series,
    better: float = 1.0,
) -> list[Comparison]:
    """The unpaired and the paired comparison of two series of scores indexed by seed.

    Args:
        better: 1 where a larger score is better, -1 where a smaller one is.
    """
    a, b = better * base.dropna(), better * other.dropna()
    shared = a.index.intersection(b.index)
    differences = (b[shared] - a[shared]).to_numpy()
    n = min(len(a), len(b))
    r = statistics.correlation(a[shared], b[shared])
    pooled = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2) if n > 1 else np.nan
    spread = differences.std(ddof=1) if len(differences) > 1 else np.nan
    return [
        Comparison(
            claim, task, optimizer, unit, n, statistics.welch(a, b),
            statistics.unpaired_test(a, b), r, statistics.detectable(n) * pooled,
        ),
        Comparison(
            claim, task, optimizer, unit, len(shared), statistics.mean_interval(differences),
            statistics.paired_test(differences), r,
            statistics.detectable(len(shared), paired=True) * spread,
        ),
    ]  # fmt: skip


def of_ratios(
    claim: str, task: str, optimizer: str, base: Sequence[float], other: Sequence[float]
) -> Comparison:
    """The ratio of positive quantities over seeds, tested and bounded on the log scale."""
    a, b = np.asarray(base, float), np.asarray(other, float)
    positive = len(a) and len(b) and min(a.min(), b.min()) > 0
    logs = (np.log(a), np.log(b)) if positive else ([], [])
    return Comparison(
        claim, task, optimizer, "ratio", min(len(a), len(b)), statistics.ratio(a, b),
        statistics.unpaired_test(*logs),
    )  # fmt: skip


def measured_once(
    claim: str, task: str, optimizer: str, estimate: Estimate, error: str
) -> Comparison:
    """A ratio from one checkpoint an optimizer: its interval has ``error`` in it and no seeds."""
    note = f", interval from {error} alone" if error else ""
    test = Test(np.nan, np.nan, f"none: one checkpoint an optimizer{note}")
    return Comparison(claim, task, optimizer, "ratio", 1, estimate, test)


def table(manifest: Manifest, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """The comparisons as rows of ``COLUMNS``, with Holm's adjustment inside each family."""
    names = titles.task_titles(manifest)
    base = titles.optimizer_title(manifest.baseline)
    rows = [
        {
            "comparison": f"{names[c.task]}, {c.claim}: {titles.optimizer_title(c.optimizer)} "
            f"{'over' if c.unit == 'ratio' else 'against'} {base}",
            "claim": c.claim,
            "task": c.task,
            "optimizer": c.optimizer,
            "unit": c.unit,
            "n": c.n,
            "estimate": c.estimate.value,
            "low": c.estimate.low,
            "high": c.estimate.high,
            "p": c.test.p,
            "p_floor": c.test.floor,
            "test": c.test.name,
            "correlation": c.correlation,
            "detectable": c.detectable,
        }
        for c in comparisons
    ]
    frame = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "p_holm"])
    adjusted = frame.groupby(["claim", "test"], sort=False)["p"].transform(
        lambda p: pd.Series(statistics.holm(p), index=p.index)
    )
    frame.insert(COLUMNS.index("p_holm"), "p_holm", adjusted)
    return frame
