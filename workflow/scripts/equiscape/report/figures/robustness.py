"""Accuracy on corrupted test clouds."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.titles import optimizer_title, task_titles


def corruptions(manifest: Manifest, cells: pd.DataFrame, finals: pd.DataFrame) -> Figure:
    """Accuracy under every corruption, mean over severities, with the spread over seeds.

    Corruptions are sorted by their accuracy under all optimizers of all tasks, so that the rows of
    every panel are the same; the clean test accuracy stands on top.

    Args:
        cells: from :func:`equiscape.report.load.robustness`.
        finals: from :func:`equiscape.report.load.finals`.
    """
    colour, marker = style.colours(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    tasks = manifest.robust_tasks
    clean = finals[finals["protocol"] == "best_validation"]
    order = cells.groupby("corruption")["accuracy"].mean().sort_values(ascending=False).index
    names = ["clean", *order]
    columns = min(len(tasks), 3)
    rows = -(-len(tasks) // columns)
    figure, axes = style.panels(
        len(tasks), height=0.55 + 0.165 * len(names), sharey=rows == 1,
        width=None if columns > 2 else 2.9 * columns + 0.9,
    )  # fmt: skip
    for axis, task in zip(axes, tasks):
        for i, optimizer in enumerate(manifest.optimizers):
            mine = cells[(cells["task"] == task) & (cells["optimizer"] == optimizer)]
            seeds = mine.groupby(["corruption", "seed"])["accuracy"].mean().groupby("corruption")
            test = clean[(clean["task"] == task) & (clean["optimizer"] == optimizer)]["score"]
            mean = np.concatenate([[test.mean()], seeds.mean().reindex(order)])
            std = np.nan_to_num(np.concatenate([[test.std()], seeds.std().reindex(order)]))
            y = np.arange(len(names)) + (i - (len(manifest.optimizers) - 1) / 2) * 0.16
            axis.errorbar(
                mean, y, xerr=std, fmt=marker[optimizer], color=colour[optimizer], markersize=3.6,
                elinewidth=0.8, capsize=0,
            )  # fmt: skip
        axis.axhline(0.5, color="#BBBBBB", linewidth=0.7)
        axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
        axis.set_title(titles[task], loc="left")
        axis.set_xlabel("test accuracy (%)")
        axis.grid(axis="both")
        axis.set_axisbelow(True)
    style.legend(figure, style.optimizer_handles(manifest, line=False))
    return figure


def severity(manifest: Manifest, cells: pd.DataFrame) -> Figure:
    """Gain over the baseline at every severity: each corruption thin, their mean thick.

    Gains are differences of means over seeds, in percentage points; the bar at the mean is the
    standard error over seeds of both optimizers.
    """
    colour, marker = style.colours(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    tasks = manifest.robust_tasks
    rivals = [name for name in manifest.optimizers if name != manifest.baseline]
    figure, axes = style.panels(len(tasks), sharey=True)
    each = cells.groupby(["task", "optimizer", "corruption", "severity"])["accuracy"].mean()
    seeds = cells.groupby(["task", "optimizer", "severity", "seed"])["accuracy"].mean()
    level = seeds.groupby(["task", "optimizer", "severity"])
    mean, error = level.mean(), level.std() / np.sqrt(level.count())
    for axis, task in zip(axes, tasks):
        for optimizer in rivals:
            thin = (each[task, optimizer] - each[task, manifest.baseline]).unstack("severity")
            axis.plot(thin.columns, thin.T, color=colour[optimizer], alpha=0.28, linewidth=0.6)
            gain = mean[task, optimizer] - mean[task, manifest.baseline]
            spread = np.hypot(error[task, optimizer], error[task, manifest.baseline]).fillna(0)
            axis.errorbar(
                gain.index, gain, yerr=spread, color=colour[optimizer], marker=marker[optimizer],
                linewidth=1.8, capsize=2, elinewidth=1,
            )  # fmt: skip
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xticks(sorted(cells["severity"].unique()))
        axis.set_title(titles[task], loc="left")
        axis.set_xlabel("severity")
        axis.grid(axis="y")
    base = optimizer_title(manifest.baseline)
    for axis in style.leftmost(axes):
        axis.set_ylabel(f"gain over {base}\n(percentage points)")
    handles = style.optimizer_handles(manifest, rivals) if rivals else []
    handles.append(
        Line2D([], [], color=style.GREY, alpha=0.5, linewidth=0.6, label="one corruption")
    )
    style.legend(figure, handles)
    return figure
