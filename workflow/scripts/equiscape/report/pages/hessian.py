"""Curvature of the training loss at the representatives."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from equiscape.io import read_json
from equiscape.report import style, titles
from equiscape.report.load import check, number, reading
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, plus_minus, ratio, significant
from equiscape.report.page import Page
from equiscape.report.tables import baseline, published, with_task
from equiscape.report.text import (
    elsewhere,
    join,
    markdown,
    pair_title,
    ratio_to_baseline,
    task_title,
)
from equiscape.report.titles import task_titles

PAGE = Page(
    title="How sharp are the solutions?",
    category="Landscape",
    reads=("hessian",),
    tables={
        "hessian": "Largest and smallest eigenvalue and trace of the Hessian of the training loss.",
    },
    figures={
        "hessian": "Largest eigenvalue, trace and smallest eigenvalue of the Hessian of the "
        "training loss at the representative checkpoint; BatchNorm in eval mode, no "
        "dropout, no label smoothing. Hatched bars are negative values. Error bars: "
        "residual of the eigenvalue, standard error of the trace.",
        "spectrum": "Leading eigenvalues of the Hessian at the representative checkpoint in "
        "descending order, with their residuals; hollow markers are negative values.",
    },
)


def load(manifest: Manifest) -> dict[tuple[str, str], dict[str, Any]]:
    """The Hessian measurement of every (task, optimizer), as its rule wrote it.

    JSON's nulls are NaN, absent optional measurements too; ``converged`` says whether largest and
    smallest eigenvalue are.
    """
    measured = {}
    for product in manifest.analysis("hessian"):
        task, optimizer, path = product.task, product.optimizer, product.path
        data = read_json(path)
        with reading(path):
            check(path, data, task, optimizer)
            extremes = data["largest"], data["smallest"]
            data["converged"] = all(extreme.get("converged", True) for extreme in extremes)
            for key in ("largest", "smallest"):
                data[key] = {k: number(data[key][k]) for k in ("value", "residual")}
            data["loss_value"] = number(data.get("loss_value"))
            power = data.get("power_iteration") or {}
            data["power_iteration"] = {"value": number(power.get("value"))}
            adaptive = (data.get("adaptive") or {}).get("largest") or {}
            data["adaptive"] = {"largest": {"value": number(adaptive.get("value"))}}
            for key in ("value", "standard_error"):
                data["trace"][key] = number(data["trace"][key])
            data["eigenvalues"] = [
                {k: number(eigenvalue[k]) for k in ("value", "residual")}
                for eigenvalue in data["eigenvalues"]
            ]
        measured[task, optimizer] = data
    return measured


def table(manifest: Manifest) -> pd.DataFrame:
    """Curvature of the training loss at the representatives: one row a task and optimizer.

    ``*_ratio`` is to the baseline, NaN to a trace within two standard errors of zero;
    ``*_residual`` bounds the distance of an eigenvalue to the reported one, ``trace_se`` is the
    standard error of the trace, ``converged`` whether largest and smallest eigenvalue reached the
    tolerance, ``adaptive_largest`` the largest eigenvalue of |theta| H |theta|, which rescaling
    the neurons of a ReLU network leaves alone, but not the scale between a matrix and its BatchNorm
    in eval mode (NaN where not measured).
    """
    rows = []
    for (task, optimizer), data in load(manifest).items():
        rows.append(
            {
                "task": task,
                "optimizer": optimizer,
                "seed": data["seed"],
                "split": data["data"]["split"],
                "samples": data["data"]["samples"],
                "parameters": data["parameters"],
                "method": data["method"],
                "loss": data["loss_value"],
                "largest": data["largest"]["value"],
                "largest_residual": data["largest"]["residual"],
                "smallest": data["smallest"]["value"],
                "smallest_residual": data["smallest"]["residual"],
                "power_iteration": data["power_iteration"]["value"],
                "trace": data["trace"]["value"],
                "trace_se": data["trace"]["standard_error"],
                "adaptive_largest": data["adaptive"]["largest"]["value"],
                "converged": data["converged"],
            }
        )
    frame = with_task(manifest, pd.DataFrame(rows))
    beside = published(manifest, "hessian", frame, {"largest": "largest", "trace": "trace"})
    frame = pd.concat([frame, beside], axis=1)
    for column in ("largest", "trace", "published_largest", "published_trace"):
        base = baseline(manifest, frame, ["task"], column)
        if column == "trace":
            base = base.where(base.abs() > 2 * baseline(manifest, frame, ["task"], "trace_se"))
        frame[f"{column}_ratio"] = frame[column] / base
    return frame


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown."""
    rows = []
    for _, row in frame.iterrows():
        published = row["published_largest"] == row["published_largest"]
        rows.append(
            {
                "task": task_title(manifest, row),
                "data": titles.dataset_title(row["dataset"]),
                "optimizer": titles.optimizer_title(row["optimizer"]),
                "loss": significant(row["loss"], 3),
                "largest λ (residual)": _with_residual(row, "largest"),
                "smallest λ (residual)": _with_residual(row, "smallest"),
                "ratio of λ": ratio_to_baseline(manifest, row, "largest_ratio"),
                "trace ± s.e.": plus_minus(row["trace"], row["trace_se"]),
                "ratio of traces": ratio_to_baseline(manifest, row, "trace_ratio"),
                "largest of ∣θ∣H∣θ∣": significant(row["adaptive_largest"]),
                "published λ; trace": f"{row['published_largest']:.2f}; "
                f"{row['published_trace']:.2f}"
                if published
                else DASH,
                "published ratios": f"{ratio(row['published_largest_ratio'])}; "
                f"{ratio(row['published_trace_ratio'])}"
                if published and row["optimizer"] != manifest.baseline
                else DASH,
            }
        )
    table = pd.DataFrame(rows)
    table = table[[c for c in table if not _optional(c) or table[c].ne(DASH).any()]]
    samples = sorted({f"{n} samples of {s}" for n, s in zip(frame["samples"], frame["split"])})
    base = titles.optimizer_title(manifest.baseline)
    parts = [
        "# Hessian of the training loss at the representative checkpoint",
        f"Measured on {'; '.join(samples)}; BatchNorm in eval mode, no dropout, no label "
        f"smoothing. Ratios are to {base}. An eigenvalue of the measured Hessian lies within the "
        "residual of the one given; the trace carries its standard error.",
        markdown(table, {c: c for c in table}),
    ]
    if not frame["converged"].all():
        names = [pair_title(row) for _, row in frame[~frame["converged"]].iterrows()]
        parts.append(f"Not converged to the tolerance: {', '.join(names)}; see the residuals.")
    return join([*parts, *elsewhere(manifest, "hessian", frame)])


def _with_residual(row: pd.Series, name: str) -> str:
    return f"{significant(row[name])} ({significant(row[f'{name}_residual'], 2)})"


def _optional(column: str) -> bool:
    return column.startswith(("published", "largest of"))


TABLES = {"hessian": (table, text)}


QUANTITIES = {
    "largest": ("largest eigenvalue $\\lambda_1$", "largest_residual"),
    "trace": ("trace", "trace_se"),
    "smallest": ("|smallest eigenvalue|", "smallest_residual"),
}


def bars(manifest: Manifest, table: pd.DataFrame) -> Figure:
    """Largest eigenvalue, trace and size of the smallest eigenvalue, on log axes.

    A logarithm has no room for a sign: bars of negative quantities are hatched. Error bars are the
    residual of an eigenvalue and the standard error of the trace.

    Args:
        table: from :func:`table`.
    """
    count = len(manifest.tasks)
    stacked = count > 4
    shape = (3, 1) if stacked else (1, 3)
    size = (style.WIDTH, 6.6) if stacked else (style.WIDTH, 2.7)
    figure, axes = plt.subplots(*shape, figsize=size, sharex=True)
    hatched = published = False
    for axis, (quantity, (label, error)) in zip(axes, QUANTITIES.items()):
        signs = _bars(manifest, axis, table, quantity, error)
        hatched |= signs
        column = f"published_{quantity}"
        if column in table and table[column].notna().any():
            _published(manifest, axis, table, column)
            published = True
        axis.set_title(label, loc="left")
    handles = _patches(manifest)
    if hatched:
        handles.append(
            Patch(facecolor="white", edgecolor=style.GREY, hatch="/////", label="negative")
        )
    if published:
        handles.append(
            Line2D([], [], color="black", marker="D", markerfacecolor="white", markersize=4,
                   linestyle="none", label="published")
        )  # fmt: skip
    style.legend(figure, handles)
    return figure


def _bars(manifest: Manifest, axis: Axes, table: pd.DataFrame, quantity: str, error: str) -> bool:
    """Draw one quantity; returns whether any value is negative."""
    color = style.colors(manifest)
    titles = task_titles(manifest)
    values = table[quantity].abs()
    positive = values[values > 0]
    axis.set_yscale("log")
    if positive.empty:
        axis.text(0.5, 0.5, "no finite value", ha="center", transform=axis.transAxes)
        return False
    errors = table[error].fillna(0)
    ends = (positive - errors)[positive.index]
    low, high = ends.where(ends > 0, positive / 2).min(), (values + errors).max()
    floor = 10 ** np.floor(np.log10(low) - 0.15)
    longest = max(len(significant(value, 3)) for value in table[quantity])
    crowded = len(table) * longest > 44  # characters that lie side by side in a panel
    for x, row in _places(manifest, table):
        value = row[quantity]
        if not np.isfinite(value) or value == 0:
            axis.text(x, floor * 1.1, "n/a", ha="center", va="bottom", fontsize=6, rotation=90)
            continue
        spread = row[error] if np.isfinite(row[error]) else 0.0
        # A lower bar that reaches zero has no end on a log axis.
        below = min(spread, abs(value) - floor * 0.5)
        axis.bar(
            x, abs(value) - floor, bottom=floor, width=_step(manifest) * 0.92,
            color=color[row["optimizer"]], edgecolor="white", linewidth=0.4,
            hatch="/////" if value < 0 else None,
        )  # fmt: skip
        beside = row.get(f"published_{quantity}", np.nan)
        top = np.nanmax([abs(value) + spread, 1.15 * beside])
        axis.annotate(
            significant(value, 3), (x, top), (0, 2), textcoords="offset points",
            ha="center", va="bottom", fontsize=5.5 if crowded else 6,
            rotation=90 if crowded else 0,
        )  # fmt: skip
        axis.errorbar(
            x, abs(value), yerr=[[below], [spread]], color="black", capsize=1.8, elinewidth=0.8,
            capthick=0.8,
        )  # fmt: skip
    axis.set_ylim(floor, high * (high / floor) ** (0.35 if crowded else 0.18))
    style.plain_log(axis)
    axis.set_xticks(range(len(titles)), _short(list(titles.values())))
    if len(titles) > 2 and max(map(len, titles.values())) > 9:
        axis.tick_params(axis="x", rotation=30)
        plt.setp(axis.get_xticklabels(), ha="right", rotation_mode="anchor")
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(-0.55, len(titles) - 0.45)
    axis.grid(axis="y")
    axis.set_axisbelow(True)
    return bool((table[quantity] < 0).any())


def _published(manifest: Manifest, axis: Axes, table: pd.DataFrame, column: str) -> None:
    for x, row in _places(manifest, table):
        if np.isfinite(row[column]):
            axis.plot(x, row[column], "D", color="black", markerfacecolor="white", markersize=4)
    bottom, top = axis.get_ylim()
    finite = table[column].dropna()
    axis.set_ylim(min(bottom, finite.min() / 2), max(top, finite.max() * 2.2))


def spectrum(manifest: Manifest, measured: dict[tuple[str, str], dict[str, Any]]) -> Figure:
    """The leading eigenvalues in descending order, on a log axis; hollow where negative.

    Args:
        measured: from :func:`load`.
    """
    color, marker = style.colors(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    figure, axes = style.panels(len(manifest.tasks))
    negative = False
    for axis, task in zip(axes, manifest.tasks):
        for optimizer in manifest.optimizers:
            pairs = measured[task, optimizer]["eigenvalues"]
            values = np.array([pair["value"] for pair in pairs])
            residuals = np.nan_to_num([pair["residual"] for pair in pairs])
            index = np.arange(1, len(values) + 1)
            size = np.abs(values)
            below = np.minimum(residuals, 0.9 * size)
            axis.errorbar(
                index, size, yerr=[below, residuals], color=color[optimizer], linewidth=1.1,
                elinewidth=0.8, capsize=1.5,
            )  # fmt: skip
            for sign, face in ((values >= 0, color[optimizer]), (values < 0, "white")):
                axis.plot(
                    index[sign], size[sign], marker[optimizer], color=color[optimizer],
                    markerfacecolor=face, markersize=4,
                )  # fmt: skip
            negative |= bool((values < 0).any())
        axis.set_yscale("log")
        axis.set_title(titles[task], loc="left")
        axis.set_xlabel("eigenvalue, largest first")
        axis.set_xticks(range(1, len(index) + 1, 1 if len(index) <= 10 else 5))
        axis.grid(axis="y")
        style.plain_log(axis)
    for axis in style.leftmost(axes):
        axis.set_ylabel("eigenvalue")
    handles = style.optimizer_handles(manifest)
    if negative:
        handles.append(
            Line2D([], [], color=style.GREY, marker="o", markerfacecolor="white",
                   linestyle="none", label="negative, absolute value")
        )  # fmt: skip
    style.legend(figure, handles)
    return figure


def _step(manifest: Manifest) -> float:
    return 0.78 / len(manifest.optimizers)


def _places(manifest: Manifest, table: pd.DataFrame):
    """(x, row) of every bar: tasks at the integers, optimizers dodged around them."""
    tasks, names = list(manifest.tasks), list(manifest.optimizers)
    for _, row in table.iterrows():
        offset = (names.index(row["optimizer"]) - (len(names) - 1) / 2) * _step(manifest)
        yield tasks.index(row["task"]) + offset, row


def _patches(manifest: Manifest) -> list[Patch]:
    return [
        Patch(color=color, label=style.optimizer_title(name))
        for name, color in style.colors(manifest).items()
    ]


def _short(titles: list[str]) -> list[str]:
    """Drop what all titles begin with (``GotenNet``), where they share a first word."""
    first = {title.split(" ")[0] for title in titles}
    if len(titles) > 3 and len(first) == 1 and all(" " in title for title in titles):
        return [title.split(" ", 1)[1] for title in titles]
    return titles
