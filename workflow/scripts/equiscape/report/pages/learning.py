"""Learning curves of the final seeds."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from equiscape.report import budget, cost, style
from equiscape.report.manifest import Manifest
from equiscape.report.page import Page
from equiscape.report.titles import metric_title, task_titles

PAGE = Page(
    title="Learning curves",
    category="Accuracy",
    reads=("metrics", "history"),
    tables={
        "equal_cost": "Test scores at equal wall time, and at equal products where counted.",
        "cost": "Wall time, throughput and peak memory of a final cell, and the time's ratio.",
    },
    figures={
        "learning_score": (
            "Validation score of the final cells, epoch by epoch: mean over seeds, band from "
            "the lowest to the highest seed."
        ),
        "learning_loss": (
            "Training loss as minimized (solid) and validation loss (dashed) of the final "
            "cells: mean over seeds, band from the lowest to the highest seed."
        ),
        "learning_cost": (
            "Test score at the best validation epoch so far against wall time, and against "
            "products where those are counted: every seed thin, their median thick. "
            "Cells that took over three times the median run off the axis."
        ),
    },
)
TABLES = {"equal_cost": (budget.table, budget.text), "cost": (cost.table, cost.text)}
highlights = cost.highlights


def score(manifest: Manifest, histories: pd.DataFrame, finals: pd.DataFrame) -> Figure:
    """Validation score over epochs, mean and range of the seeds.

    Args:
        histories: from :func:`equiscape.report.load.histories`.
        finals: from :func:`equiscape.report.load.finals`; gives the metrics' names and units.
    """
    figure, axes = _curves(manifest, histories, {"validation_score": "-"})
    metrics = finals.drop_duplicates("task").set_index("task")
    name_axes(manifest, axes, metrics)
    style.label_outer(axes, "epoch", "validation score")
    style.legend(figure, style.optimizer_handles(manifest))
    return figure


def name_axes(manifest: Manifest, axes: list, metrics: pd.DataFrame) -> None:
    """Titles of panels with the task, its metric and, where lower is better, an arrow."""
    titles = task_titles(manifest)
    for axis, task in zip(axes, manifest.tasks):
        row = metrics.loc[task]
        arrow = " ↓" if row["direction"] == "min" else ""
        metric = metric_title(row["metric"], row["unit"])
        axis.set_title(f"{titles[task]}\n{metric}{arrow}", loc="left", fontsize=7.5)


def loss(manifest: Manifest, histories: pd.DataFrame) -> Figure:
    """Training loss (solid) and validation loss (dashed) over epochs."""
    styles: dict[str, Any] = {"train_loss": "-", "validation_loss": style.DASHES[1]}
    figure, axes = _curves(manifest, histories, styles)
    style.label_outer(axes, "epoch", "loss")
    handles = style.optimizer_handles(manifest)
    handles += [
        Line2D([], [], color=style.GRAY, linestyle=dash, label=name.split("_")[0])
        for name, dash in styles.items()
    ]
    style.legend(figure, handles)
    return figure


def _curves(
    manifest: Manifest, histories: pd.DataFrame, columns: dict[str, Any]
) -> tuple[Figure, list]:
    color, marker = style.colors(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    figure, axes = style.panels(len(manifest.tasks))
    for axis, task in zip(axes, manifest.tasks):
        for optimizer in manifest.optimizers:
            cells = histories[(histories["task"] == task) & (histories["optimizer"] == optimizer)]
            for column, dash in columns.items():
                seeds = cells.dropna(subset=column).groupby("epoch")[column]
                mean = seeds.mean()
                axis.fill_between(
                    mean.index, seeds.min(), seeds.max(), color=color[optimizer], alpha=0.18,
                    linewidth=0,
                )  # fmt: skip
                axis.plot(
                    mean.index, mean, color=color[optimizer], linestyle=dash,
                    marker=marker[optimizer], markersize=3.2, markevery=max(1, len(mean) // 8),
                )  # fmt: skip
        axis.set_title(titles[task], loc="left")
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axis.grid(axis="y")
        axis.margins(x=0.02)
    return figure, axes
