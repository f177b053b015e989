"""The grid that chose each learning rate and weight decay, and whether it was wide enough."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from equiscape.io import read_json
from equiscape.report import style
from equiscape.report.edges import NAMES, edge_sentences
from equiscape.report.load import check, number, reading, spelled
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, plus_minus
from equiscape.report.page import Page
from equiscape.report.text import join, markdown, task_title
from equiscape.report.titles import metric_title, optimizer_title, task_titles

PAGE = Page(
    title="How were the settings chosen?",
    category="Accuracy",
    reads=("selection",),
    tables={
        "selection": (
            "The chosen learning rate and weight decay of every task and optimizer, and whether "
            "the choice lies at an edge of its grid."
        ),
    },
    figures={
        "selection": (
            "Validation score of every grid cell over the learning rate, a line for each "
            "weight decay, the bar its range over selection seeds; the ring is the chosen "
            "setting, red where it lies at an edge of the grid."
        ),
    },
)
EDGE = "#C00000"
CELL = ["lr", "wd", "seed", "status", "validation_score"]
"""What is read of a grid cell."""


def load(manifest: Manifest) -> dict[tuple[str, str], dict[str, Any]]:
    """The selection of every (task, optimizer), as its rule wrote it."""
    found = {}
    for task, optimizer in manifest.pairs:
        path = manifest.selection(task, optimizer)
        data = read_json(path, "selection")
        with reading(path):
            check(path, data, task, optimizer)
            found[task, optimizer] = data
    return found


def table(manifest: Manifest) -> pd.DataFrame:
    """One row per task and optimizer.

    Columns: task, optimizer, lr, wd, status, metric, unit, direction, score, score_std (over
    selection seeds, NaN for one), seeds, cells (0 where the grid is one setting, which needs no
    training to be chosen), diverged (cells), lr_edge, lr_add, wd_edge, wd_add: the end of the grid
    that the choice lies at (``low``, ``high``, ``only``; empty inside) and what to add to it.
    """
    rows = []
    for (task, optimizer), data in load(manifest).items():
        cells = pd.DataFrame(data["grid"], columns=CELL)
        mine = cells[(cells["lr"] == data["lr"]) & (cells["wd"] == data["wd"])]
        scores = mine["validation_score"].astype(float)
        metric = data.get("metric") or {}
        row = {
            "task": task, "optimizer": optimizer, "lr": spelled(data["lr"]),
            "wd": spelled(data["wd"]),
            "status": data.get("status", "finished"), "metric": metric.get("name", ""),
            "unit": metric.get("unit", ""),
            "direction": metric.get("direction", ""), "score": number(scores.mean()),
            "score_std": scores.std(ddof=1), "seeds": cells["seed"].nunique(),
            "cells": len(cells), "diverged": int((cells["status"] == "diverged").sum()),
        }  # fmt: skip
        for name in NAMES:
            edge = (data.get("edges") or {}).get(name) or {"end": "", "add": []}
            row[f"{name}_edge"], row[f"{name}_add"] = edge["end"], " ".join(edge["add"])
        rows.append(row)
    return pd.DataFrame(rows)


def edges(frame: pd.DataFrame) -> list[str]:
    """One sentence for every choice at an end of its grid, with the values to add."""
    found = []
    for _, row in frame.iterrows():
        ends = {n: {"end": row[f"{n}_edge"], "add": row[f"{n}_add"].split()} for n in NAMES}
        found += edge_sentences({**row, "edges": ends})
    return found


def unsearched(frame: pd.DataFrame) -> list[str]:
    """One sentence for every setting that had a single value in its grid."""
    found = []
    for name, title in NAMES.items():
        only = frame[frame[f"{name}_edge"] == "only"]
        if len(only):
            who = sorted(set(only["optimizer"]))
            found.append(f"The {title} was not searched (one value) for {', '.join(who)}.")
    return found


def warnings(manifest: Manifest) -> list[str]:
    """Choices at an edge of their grid, settings that were not searched, grids that diverged."""
    frame = table(manifest)
    bad = frame[frame["status"] == "diverged"]
    found = edges(frame)
    at_edge = frame[["lr_edge", "wd_edge"]].isin(["low", "high"]).any(axis=1).sum()
    if at_edge:
        found.insert(
            0,
            f"The chosen learning rate or weight decay lies at an edge of its grid in {at_edge} of "
            f"{len(frame)} cases, so a better one may lie outside, and the comparison may be one "
            "of grids rather than of optimizers:",
        )
    return [
        *(
            f"{row['task']} with {row['optimizer']} diverged in every cell of its grid; add "
            f"smaller learning rates to optimizers.{row['optimizer']}.grid.lr."
            for _, row in bad.iterrows()
        ),
        *found,
        *unsearched(frame),
    ]


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown, and what to add to the grids."""
    rows = []
    for _, row in frame.iterrows():
        flags = [f"{NAMES[name]} {row[f'{name}_edge']}" for name in NAMES
                 if row[f"{name}_edge"] in ("low", "high")]  # fmt: skip
        rows.append(
            {
                "task": task_title(manifest, row),
                "optimizer": optimizer_title(row["optimizer"]),
                "lr": row["lr"] or DASH,
                "wd": row["wd"] or DASH,
                "validation": metric_title(row["metric"], row["unit"]) or DASH,
                "score": _score(row),
                "grid cells": f"{row['cells']}"
                + (f" ({row['diverged']} diverged)" if row["diverged"] else ""),
                "at the edge": ", ".join(flags) or DASH,
            }
        )
    shown = pd.DataFrame(rows)
    found = edges(frame)
    return join(
        [
            "# Chosen settings",
            "The best mean validation score over the selection seeds, at the best validation "
            "epoch. A choice at the edge of its grid may not be the optimum, so a comparison is "
            "fair only where neither optimizer sits at one.",
            markdown(shown, {c: c for c in shown}),
            *(["## Grids to widen", "\n".join(f"- {line}" for line in found)] if found else []),
            *unsearched(frame),
        ]
    )


def _score(row: pd.Series) -> str:
    """The score that decided, or why none did."""
    if row["status"] == "diverged":
        return "diverged in every cell"
    if not row["cells"]:
        return "only candidate, not trained"
    return plus_minus(row["score"], row["score_std"], row["unit"])


TABLES = {"selection": (table, text)}


def grids(manifest: Manifest, grid: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Validation score over the learning rate, a line for each weight decay; the choice ringed.

    Tasks of which no cell was trained have no panel; if there are no others, a sentence says so.

    Args:
        grid: from :func:`equiscape.report.load.selections`.
        table: from :func:`table`; gives metrics and edges.
    """
    searched = [task for task in manifest.tasks if (grid["task"] == task).any()]
    if not searched:
        return _nothing_searched()
    color, marker = style.colors(manifest), style.markers(manifest)
    decays = sorted(grid["wd"].unique(), key=float)
    dashes = dict(zip(decays, [style.DASHES[i % len(style.DASHES)] for i in range(len(decays))]))
    figure, axes = style.panels(len(searched), height=1.75)
    names = task_titles(manifest)
    flagged = False
    for axis, task in zip(axes, searched):
        for optimizer in manifest.optimizers:
            cells = grid[(grid["task"] == task) & (grid["optimizer"] == optimizer)]
            for decay, line in cells.groupby("wd", sort=False):
                rates = line.assign(rate=line["lr"].astype(float)).groupby("rate")
                scores = rates["validation_score"].agg(["mean", "min", "max"])
                axis.errorbar(
                    scores.index, scores["mean"],
                    yerr=[scores["mean"] - scores["min"], scores["max"] - scores["mean"]],
                    linestyle=dashes[decay], color=color[optimizer], marker=marker[optimizer],
                    markersize=3.2, linewidth=1.1, elinewidth=0.7, alpha=0.9,
                )  # fmt: skip
            row = table[(table["task"] == task) & (table["optimizer"] == optimizer)].iloc[0]
            edge = row["lr_edge"] in ("low", "high") or row["wd_edge"] in ("low", "high")
            flagged |= edge
            if np.isfinite(row["score"]):
                axis.plot(
                    float(row["lr"]), row["score"], "o", markersize=9, markerfacecolor="none",
                    markeredgecolor=EDGE if edge else color[optimizer], markeredgewidth=1.3,
                )  # fmt: skip
            bad = cells.loc[cells["status"] == "diverged", "lr"].astype(float).unique()
            offset = 0.03 + 0.06 * list(manifest.optimizers).index(optimizer)
            if len(bad):  # an empty artist that is not clipped breaks the layout
                axis.plot(bad, [offset] * len(bad), "x", color=color[optimizer], markersize=4.5,
                          transform=axis.get_xaxis_transform(), clip_on=False)  # fmt: skip
        _finish(axis, grid[grid["task"] == task], names[task], table, task)
    style.label_outer(axes, "learning rate", "validation score")
    handles = style.optimizer_handles(manifest)
    handles += [
        style.handle(f"weight decay {decay}", dash=dash)
        for decay, dash in dashes.items()
        if len(dashes) > 1
    ]
    if grid["seed"].nunique() > 1:
        handles.append(style.handle("mean and range of selection seeds", marker="|"))
    handles.append(_ring("chosen", style.GRAY))
    if flagged:
        handles.append(_ring("chosen at an edge", EDGE))
    if (grid["status"] == "diverged").any():
        handles.append(style.handle("diverged", marker="x"))
    style.legend(figure, handles)
    return figure


def _nothing_searched() -> Figure:
    """A line of text where there are no scores to draw."""
    figure, (axis,) = style.panels(1, height=0.4)
    axis.set_axis_off()
    said = "Every grid is one setting, taken without training."
    axis.text(0.5, 0.5, said, ha="center", va="center", color=style.GRAY)
    return figure


def _ring(label: str, color: str):
    ring = style.handle(label, marker="o", face="none", color=color)
    ring.set_markersize(8)
    return ring


def _finish(axis, cells: pd.DataFrame, name: str, table: pd.DataFrame, task: str) -> None:
    """Scale, labels and title of a panel; the title states the metric and its better direction."""
    axis.margins(x=0.1, y=0.16)
    axis.set_xscale("log")
    rates = sorted(cells["lr"].unique(), key=float)
    axis.set_xticks([float(rate) for rate in rates], rates)
    if len(rates) > 3:
        axis.tick_params(axis="x", labelrotation=45, labelsize=6.5)
    axis.minorticks_off()
    row = table[(table["task"] == task) & (table["cells"] > 0)].iloc[0]
    arrow = " ↓" if row["direction"] == "min" else ""
    metric = metric_title(row["metric"], row["unit"])
    axis.set_title(f"{name}\n{metric}{arrow}", loc="left", fontsize=7.5)
    axis.grid(axis="y")
