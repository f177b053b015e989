"""Every comparison of the study with its interval and test, in one table and one figure."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from equiscape.report import comparisons as claims
from equiscape.report import pages, statistics, style
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, interval, significant
from equiscape.report.page import Page
from equiscape.report.text import join, markdown
from equiscape.report.titles import metric_title, optimizer_title, task_titles

PAGE = Page(
    title="How sure are the differences?",
    category="Statistics",
    reads=("metrics",),
    tables={
        "statistics": (
            "Every comparison with the baseline: estimate, 95 % interval, exact p-value with the "
            "smallest that so few seeds can give, and Holm's adjustment over the tasks."
        ),
    },
    figures={
        "gains": (
            "Gain in test score over the baseline with its 95 % Welch interval, at the best "
            "validation epoch, in pooled standard deviations of a seed so that tasks of "
            "different units share an axis. The gray band is what so few seeds cannot detect."
        ),
    },
    collects=True,
)


def load(manifest: Manifest) -> list[claims.Comparison]:
    """What every page of the study compares."""
    found: list[claims.Comparison] = []
    for name in pages.pages(manifest):
        compare = getattr(pages.module(name), "comparisons", None)
        found += compare(manifest) if compare else []
    return found


def table(manifest: Manifest) -> pd.DataFrame:
    """One row a comparison: see :data:`equiscape.report.comparisons.COLUMNS`."""
    return claims.table(manifest, load(manifest))


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown, with what so few seeds can and cannot say."""
    heading = "# Comparisons with the baseline"
    if frame.empty:
        return join([heading, "The study has one optimizer, so there is nothing to compare."])
    shown = pd.DataFrame(
        {
            "comparison": frame["comparison"],
            "n": frame["n"],
            "estimate [95 % interval]": [
                interval(e, low, high, unit)
                for e, low, high, unit in zip(
                    frame["estimate"], frame["low"], frame["high"], frame["unit"]
                )
            ],
            "p (floor)": [
                DASH if np.isnan(p) else f"{significant(p, 2)} ({significant(floor, 2)})"
                for p, floor in zip(frame["p"], frame["p_floor"])
            ],
            "p, Holm": [significant(p, 2) for p in frame["p_holm"]],
            "test": frame["test"],
        }
    )
    return join([heading, *explain(manifest), markdown(shown, {c: c for c in shown})])


def explain(manifest: Manifest) -> list[str]:
    """What intervals and tests mean at this study's number of seeds."""
    n = len(manifest.seeds)
    parts = [
        "Differences are positive where an optimizer is better than "
        f"{optimizer_title(manifest.baseline)}; ratios are to it. Intervals are Welch's t "
        "intervals (on logarithms for ratios), tests permute exactly. Holm's adjustment runs over "
        "the tasks of one claim and one test.",
    ]
    if n < 2:
        parts.append("With one seed nothing can be tested, and no interval can be given.")
        return parts
    low, high = statistics.deviation_range(n)
    unpaired = statistics.unpaired_test(range(n), range(100, 100 + n))
    paired = statistics.paired_test(np.arange(1, n + 1))
    parts.append(
        f"With {n} seeds a standard deviation is known to within {significant(low, 2)} to "
        f"{significant(high, 2)} times itself (95 %), a difference is found with a power of 80 % "
        f"only from {significant(statistics.detectable(n), 3)} standard deviations on, and no "
        f"p-value can be smaller than {significant(unpaired.floor, 2)} (unpaired) or "
        f"{significant(paired.floor, 2)} (paired)."
    )
    return parts


TABLES = {"statistics": (table, text)}


def gains(manifest: Manifest, finals: pd.DataFrame, protocol: str = "best_validation") -> Figure:
    """Gains with intervals in standard deviations, a row per task, a marker per optimizer.

    Args:
        finals: from :func:`equiscape.report.load.finals`.
    """
    color, marker = style.colors(manifest), style.markers(manifest)
    names = task_titles(manifest)
    rivals = [name for name in manifest.optimizers if name != manifest.baseline]
    finals = finals[finals["protocol"] == protocol]
    row = max(0.22, 0.14 * len(rivals))
    figure, axis = style.single(0.9 + row * max(len(names), 3), wide=True)
    for at, task in enumerate(names):
        cells = finals[finals["task"] == task]
        sign = 1.0 if (cells["direction"] == "max").all() else -1.0
        scores = {o: cells.loc[cells["optimizer"] == o, "score"].dropna() for o in color}
        for optimizer in rivals:
            a, b = sign * scores[manifest.baseline], sign * scores[optimizer]
            pooled = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
            found = statistics.welch(a, b)
            if not np.isfinite(pooled) or pooled == 0 or not np.isfinite(found.value):
                axis.text(0, at, "too few seeds", ha="center", va="center", fontsize=7)
                continue
            value, low, high = (x / pooled for x in (found.value, found.low, found.high))
            y = at + style.dodge(manifest, optimizer)
            axis.errorbar(
                value, y, xerr=[[value - low], [high - value]], fmt=marker[optimizer],
                color=color[optimizer], capsize=2, elinewidth=1,
                markerfacecolor=color[optimizer] if found.excludes_zero else "white",
            )  # fmt: skip
    blind = statistics.detectable(len(manifest.seeds))
    if np.isfinite(blind):
        axis.axvspan(-blind, blind, color="#EDEDED", zorder=0, linewidth=0)
    axis.axvline(0, color=style.GRAY, linewidth=0.8)
    axis.set_yticks(range(len(names)), [_with_metric(names, finals, task) for task in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.set_xscale("symlog", linthresh=3, linscale=1.2)
    style.symlog_ticks(axis)
    axis.grid(axis="x")
    axis.set_axisbelow(True)
    base = optimizer_title(manifest.baseline)
    axis.set_xlabel(f"gain over {base}, standard deviations (n = {len(manifest.seeds)})")
    if rivals:
        style.legend(figure, style.optimizer_handles(manifest, rivals, line=False))
    return figure


def _with_metric(names: dict[str, str], finals: pd.DataFrame, task: str) -> str:
    first = finals[finals["task"] == task].iloc[0]
    return f"{names[task]}, {metric_title(first['metric'], first['unit'])}"
