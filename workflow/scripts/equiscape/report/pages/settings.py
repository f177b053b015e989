"""What an optimizer's own settings change: score, ranks and curvature, one setting at a time."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from equiscape.report import curvature, load, statistics, style
from equiscape.report.arms import Axis, axes
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, interval, plus_minus
from equiscape.report.page import Page
from equiscape.report.pages import interventions
from equiscape.report.statistics import Estimate
from equiscape.report.tables import with_task
from equiscape.report.text import join, markdown, task_title
from equiscape.report.titles import metric_title, optimizer_title, task_titles

PAGE = Page(
    title="Which of the optimizer's own settings matter?",
    category="Optimizer settings",
    reads=("metrics", "history", "rank", "hessian"),
    tables={
        "settings": (
            "Test score, ranks and curvature at each setting of an optimizer, each with its own "
            "chosen learning rate, and the gain over the default settings."
        ),
    },
    figures={
        "settings_{task}": (
            "Test score, median stable ranks and curvature against each setting of the optimizer, "
            "one setting a column: a point a seed (with the solver's error where it shows), the "
            "mean with its 95 % interval over seeds; the default in orange, its mean dashed."
        ),
    },
    varied=True,
    collects=True,  # what the points of the interventions read
)

MEASURES = {
    "score": "test score",
    "weight_rank": "rank of\nweights",
    "representation_rank": "rank of\nrepresent.",
    "largest": "largest λ",
    "trace": "trace",
}
POSITIVE = ("largest", "trace")
"""Measures with a log axis, whose mean is geometric."""
KEYS = ["task", "optimizer", "seed"]


def points(manifest: Manifest) -> pd.DataFrame:
    """One row per task, optimizer of a varied class and seed.

    Columns: those of :func:`equiscape.report.pages.interventions.points`, lr, wd, and of the
    Hessian those of :func:`equiscape.report.curvature.points`, NaN at seeds that it was not
    measured at.
    """
    names = {level.optimizer for axis in axes(manifest) for level in axis.levels}
    frame = interventions.points(manifest)
    frame = frame[frame["optimizer"].isin(names)]
    finals = load.finals(manifest)
    chosen = finals[finals["protocol"] == "best_validation"][[*KEYS, "lr", "wd"]]
    frame = frame.merge(chosen, on=KEYS, how="left")
    return frame.merge(curvature.points(manifest), on=KEYS, how="left")


def mean(values: pd.Series, measure: str) -> Estimate:
    """The mean over seeds with its 95 % t interval; geometric for curvature that is positive."""
    values = values.dropna()
    if measure in POSITIVE and len(values) and (values > 0).all():
        found = statistics.mean_interval(np.log(values))
        return Estimate(*np.exp([found.value, found.low, found.high]))
    return statistics.mean_interval(values)


def table(manifest: Manifest) -> pd.DataFrame:
    """One row per task, setting and value: means over seeds, and the gain over the default.

    Columns: task, architecture, dataset, class, setting, value, optimizer, default (whether it is),
    lr, wd (chosen), seeds, metric, unit, direction, for each of :data:`MEASURES` the mean and its
    interval (``*_low``, ``*_high``), curvature_seeds, gain (positive: better), gain_low, gain_high
    (95 %, Welch), p (exact permutation of seeds) and p_holm, over the settings of a task.
    """
    frame, rows = points(manifest), []
    cells = dict(iter(frame.groupby(["task", "optimizer"], sort=False)))
    for axis in axes(manifest):
        for level in axis.levels:
            for task in manifest.tasks:
                group = cells[task, level.optimizer]
                first = group.iloc[0]
                own = level.optimizer == axis.default
                sign = 1.0 if first["direction"] == "max" else -1.0
                base = sign * cells[task, axis.default]["score"].dropna()
                scores = sign * group["score"].dropna()
                found = statistics.welch(base, scores)
                test = statistics.unpaired_test(base, scores)
                row = {
                    "task": task, "class": axis.optimizer_class, "setting": axis.name,
                    "value": level.label, "optimizer": level.optimizer, "default": own,
                    "lr": first["lr"], "wd": first["wd"], "seeds": int(group["score"].count()),
                    "metric": first["metric"], "unit": first["unit"],
                    "direction": first["direction"],
                    "curvature_seeds": int(group["largest"].count()),
                }  # fmt: skip
                for measure in MEASURES:
                    middle = mean(group[measure], measure)
                    row[measure] = middle.value
                    row |= {f"{measure}_low": middle.low, f"{measure}_high": middle.high}
                row |= {
                    "gain": np.nan if own else found.value,
                    "gain_low": np.nan if own else found.low,
                    "gain_high": np.nan if own else found.high,
                    "p": np.nan if own else test.p,
                }
                rows.append(row)
    made = with_task(manifest, pd.DataFrame(rows))
    made["p_holm"] = made.groupby("task")["p"].transform(
        lambda p: pd.Series(statistics.holm(p), index=p.index)
    )
    order = {task: place for place, task in enumerate(manifest.tasks)}
    return made.sort_values("task", key=lambda t: t.map(order), kind="stable", ignore_index=True)


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown, a part a task."""
    parts = [
        "# The optimizer's own settings",
        "Each optimizer differs from the default in the setting named, with its own chosen "
        "learning rate. Mean over seeds ± half of its 95 % t interval (curvature: geometric mean); "
        "gains over the default with the 95 % interval of Welch's t, positive where better; p of "
        "the exact permutation test, Holm over the settings of a task. Ranks are medians of stable "
        "ranks over hidden weights and over pooled representations.",
    ]
    for _, group in frame.groupby("task", sort=False):
        parts.append(f"## {task_title(manifest, group.iloc[0])}")
        rows = []
        for _, row in group.iterrows():
            half = {m: (row[f"{m}_high"] - row[f"{m}_low"]) / 2 for m in MEASURES}
            rows.append(
                {
                    "setting": row["setting"],
                    "value": row["value"] + (" (default)" if row["default"] else ""),
                    "lr, wd": f"{row['lr']}, {row['wd']}",
                    "seeds": row["seeds"],
                    metric_title(row["metric"], row["unit"]): plus_minus(
                        row["score"], half["score"], row["unit"]
                    ),
                    "gain": DASH if row["default"] else interval(
                        row["gain"], row["gain_low"], row["gain_high"], row["unit"]
                    ),
                    "p, Holm": DASH if np.isnan(row["p_holm"]) else f"{row['p_holm']:.2g}",
                    **{
                        MEASURES[m].replace("\n", " ").replace("represent.", "representations"):
                        plus_minus(row[m], half[m])
                        for m in list(MEASURES)[1:]
                    },
                }
            )  # fmt: skip
        made = pd.DataFrame(rows)
        parts.append(markdown(made, {c: c for c in made}))
    return join([*parts, *_missing(frame)])


def _missing(frame: pd.DataFrame) -> list[str]:
    if (frame["curvature_seeds"] >= frame["seeds"]).all():
        return []
    return [
        "Curvature was measured at fewer seeds than were trained "
        "(`analyses: {hessian: {seeds: all}}` measures them all)."
    ]


TABLES = {"settings": (table, text)}


def highlights(manifest: Manifest) -> list[str]:
    """How many settings change the score, the best one, and the widest ranges of the rest."""
    frame, names, parts = table(manifest), task_titles(manifest), []
    for (task, name), group in frame.groupby(["task", "class"], sort=False):
        arms = group[~group["default"].astype(bool)].dropna(subset="gain")
        if arms.empty:
            continue
        settled = arms[(arms["gain_low"] > 0) | (arms["gain_high"] < 0)]
        best = arms.loc[arms["gain"].idxmax()]
        gain = interval(best["gain"], best["gain_low"], best["gain_high"], best["unit"])
        ranges = []
        for measure in ("weight_rank", "largest", "trace"):
            values = group[measure].dropna()
            if len(values) and values.min() > 0:
                title = {"weight_rank": "the rank of weights"}.get(measure, MEASURES[measure])
                ranges.append(f"{title} by {values.max() / values.min():.2g}×")
        parts.append(
            f"{names[str(task)]}: of {len(arms)} changes to the settings of "
            f"{optimizer_title(str(name))} {len(settled)} move the score by more than the 95 % "
            f"interval, {int((arms['p_holm'] < 0.05).sum())} after Holm's adjustment. Highest: "
            f"{best['setting']} {best['value']}, {gain} over the default."
            + (f" Over all settings {', '.join(ranges)} vary." if ranges else "")
        )
    return parts


def against_settings(manifest: Manifest, task: str, frame: pd.DataFrame) -> Figure:
    """Rows of measures, a column a setting; numbers on a numeric axis, categories on places.

    Args:
        frame: from :func:`points`.
    """
    found = axes(manifest)
    cells = frame[frame["task"] == task]
    figure, grid = plt.subplots(
        len(MEASURES), len(found), squeeze=False, sharey="row", sharex="col",
        figsize=(style.WIDTH, 1.5 + 1.0 * len(MEASURES)),
        gridspec_kw={"width_ratios": [len(axis.levels) + 0.6 for axis in found]},
    )  # fmt: skip
    for row, (measure, title) in zip(grid, MEASURES.items()):
        for panel, axis in zip(row, found):
            _panel(panel, axis, cells, measure)
        row[0].set_ylabel(title, fontsize=7.5)
    first = cells.iloc[0]
    grid[0][0].set_ylabel(metric_title(f"test\n{first['metric']}", first["unit"]), fontsize=7.5)
    for panel, axis in zip(grid[0], found):
        panel.set_title(axis.name.replace("_", "\n", 1), fontsize=6.5)
    for row, measure in zip(grid, MEASURES):
        if (
            measure in POSITIVE
            and (cells[measure].dropna() > 0).all()
            and len(cells[measure].dropna())
        ):
            style.log_axis(row[0])
        else:
            row[0].yaxis.set_major_locator(MaxNLocator(4))
    handles = [
        style.handle("default", marker="D", color=style.PALETTE[1]),
        style.handle("changed", marker="o", color=style.PALETTE[0]),
        style.handle("a seed", marker="."),
        style.handle("mean of the default", color=style.PALETTE[1], dash="--"),
    ]
    style.legend(figure, handles, title=task_titles(manifest)[task])
    return figure


def _panel(panel: Axes, axis: Axis, cells: pd.DataFrame, measure: str) -> None:
    places = _places(axis)
    for level, x in zip(axis.levels, places):
        own = level.optimizer == axis.default
        group = cells[cells["optimizer"] == level.optimizer].dropna(subset=measure)
        color = style.PALETTE[1 if own else 0]
        seeds = group[measure].to_numpy(float)
        gap = 0.12 * (max(places) - min(places) or 1) / len(places)
        spread = gap * np.linspace(-1, 1, len(seeds)) if len(seeds) > 1 else np.zeros(len(seeds))
        error = group.get(f"{measure}_error")
        panel.errorbar(
            x + spread, seeds, yerr=error, fmt=".", color=color, markersize=3, alpha=0.5,
            elinewidth=0.6,
        )  # fmt: skip
        if not len(seeds):
            continue
        middle = mean(group[measure], measure)
        ends = np.nan_to_num([[middle.value - middle.low], [middle.high - middle.value]])
        look: dict[str, Any] = {"fmt": "D" if own else "o", "color": color, "markersize": 4}
        panel.errorbar(x, middle.value, yerr=ends, capsize=2, elinewidth=1, **look)
        if own:
            panel.axhline(middle.value, color=color, linewidth=0.7, linestyle="--", zorder=0)
    labels = [level.label.replace(", ", "\n") for level in axis.levels]
    panel.set_xticks(places, labels, fontsize=6, rotation=90)
    room = 0.5 if not axis.numeric else 0.12 * (max(places) - min(places))
    panel.set_xlim(min(places) - room, max(places) + room)
    panel.grid(axis="y")
    panel.set_axisbelow(True)


def _places(axis: Axis) -> list[float]:
    """Where the levels stand: at their values where these are numbers, else one after another."""
    if axis.numeric:
        return [float(level.value) for level in axis.levels]
    return [float(place) for place in range(len(axis.levels))]
