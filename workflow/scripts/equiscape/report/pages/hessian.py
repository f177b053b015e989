"""Curvature of the training loss at the checkpoints that were measured."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equiscape.report import statistics, style, titles
from equiscape.report.comparisons import Comparison, measured_once, of_ratios
from equiscape.report.curvature import flat, load
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, interval, plus_minus, ratio, significant
from equiscape.report.page import Page
from equiscape.report.statistics import Estimate
from equiscape.report.tables import published, with_task
from equiscape.report.text import elsewhere, join, markdown, of_tasks, pair_title, task_title
from equiscape.report.titles import task_titles

PAGE = Page(
    title="How sharp are the solutions?",
    category="Landscape",
    reads=("hessian",),
    tables={
        "hessian": (
            "Largest and smallest eigenvalue and trace of the Hessian of the training loss, with "
            "their errors and their ratios to the baseline."
        ),
    },
    figures={
        "hessian": (
            "Largest eigenvalue, trace and smallest eigenvalue of the Hessian of the training "
            "loss; BatchNorm in eval mode, no dropout, no label smoothing. Error bars: residual "
            "of an eigenvalue, 95 % interval of the trace, or the spread over seeds where "
            "several were measured. Hollow markers have not converged."
        ),
    },
)
QUANTITIES = {
    "largest": "largest eigenvalue $\\lambda_1$",
    "trace": "trace",
    "smallest": "smallest eigenvalue",
}
NUMBERS = ("loss", "largest", "smallest", "power_iteration", "trace", "adaptive_largest")
ERRORS = ("largest_residual", "smallest_residual", "trace_se")
FLAGS = ("largest_converged", "smallest_converged", "smallest_sign_known")


def table(manifest: Manifest) -> pd.DataFrame:
    """Curvature of the training loss: one row per task and optimizer.

    ``seeds`` counts the checkpoints that were measured; numbers are means over them and ``*_std``
    their sample standard deviation (NaN for one). ``*_residual`` bounds the distance of an
    eigenvalue to the reported one (the largest over seeds), ``trace_se`` is the standard error of
    the trace over probes. ``*_ratio`` is to the baseline (of geometric means), with its 95 %
    interval ``*_ratio_low`` and ``*_ratio_high``: over seeds where several were measured, else of
    the measurement alone; NaN where a trace may be zero. ``adaptive_largest`` is the largest
    eigenvalue of |theta| H |theta|, which rescalings between layers leave alone.
    """
    measured = load(manifest)
    frame = with_task(manifest, pd.DataFrame([_row(*item) for item in measured.items()]))
    beside = published(manifest, "hessian", frame, {"largest": "largest", "trace": "trace"})
    frame = pd.concat([frame, beside], axis=1)
    for quantity in ("largest", "trace"):
        pairs = zip(frame["task"], frame["optimizer"])
        found = [_ratio(measured, manifest.baseline, *pair, quantity) for pair in pairs]
        frame[f"{quantity}_ratio"] = [estimate.value for estimate in found]
        frame[f"{quantity}_ratio_low"] = [estimate.low for estimate in found]
        frame[f"{quantity}_ratio_high"] = [estimate.high for estimate in found]
        column = f"published_{quantity}"
        base = frame[frame["optimizer"] == manifest.baseline].set_index("task")[column]
        frame[f"{column}_ratio"] = frame[column] / frame["task"].map(base)
    return frame


def _row(pair: tuple[str, str], found: list[dict[str, Any]]) -> dict[str, Any]:
    values = pd.DataFrame([flat(data) for data in found], columns=[*NUMBERS, *ERRORS, *FLAGS])
    first = found[0] if found else {}
    row: dict[str, Any] = {"task": pair[0], "optimizer": pair[1], "seeds": len(found)}
    row |= {key: first.get(key) for key in ("split", "samples", "parameters", "method")}
    for name in NUMBERS:
        row[name] = values[name].mean()
        row[f"{name}_std"] = values[name].std(ddof=1)
    row |= {name: values[name].max() for name in ERRORS}
    row |= {name: bool(len(found)) and bool(values[name].all()) for name in FLAGS}
    row["converged"] = row["largest_converged"] and row["smallest_converged"]
    return row


def _ratio(measured: dict, baseline: str, task: str, optimizer: str, quantity: str) -> Estimate:
    """Over seeds where several were measured; else with the errors of the measurement alone."""
    base, other = ([flat(data) for data in measured[task, name]] for name in (baseline, optimizer))
    if not base or not other or optimizer == baseline:
        value = 1.0 if base and optimizer == baseline else np.nan
        return Estimate(value, np.nan, np.nan)
    if min(len(base), len(other)) > 1:
        return statistics.ratio([x[quantity] for x in base], [x[quantity] for x in other])
    a, b = base[0], other[0]
    if quantity == "trace":
        return statistics.ratio_of_measured(a["trace"], a["trace_se"], b["trace"], b["trace_se"])
    return statistics.ratio_of_bounded(
        a["largest"], a["largest_residual"], b["largest"], b["largest_residual"]
    )


def comparisons(manifest: Manifest) -> list[Comparison]:
    """Curvature against the baseline's, over seeds where several were measured."""
    measured = load(manifest)
    found = []
    for quantity, claim in (("largest", "largest eigenvalue"), ("trace", "trace")):
        for task in manifest.analyses["hessian"]["tasks"]:
            for optimizer in manifest.rivals:
                base, other = (
                    [flat(data)[quantity] for data in measured[task, name]]
                    for name in (manifest.baseline, optimizer)
                )
                if min(len(base), len(other)) > 1:
                    found.append(of_ratios(claim, task, optimizer, base, other))
                    continue
                estimate = _ratio(measured, manifest.baseline, task, optimizer, quantity)
                error = "the solver" if quantity == "largest" else "the probes"
                found.append(measured_once(claim, task, optimizer, estimate, error))
    return found


def highlights(manifest: Manifest) -> list[str]:
    """Sentences on whose curvature is larger, computed from the table."""
    frame = table(manifest)
    names, base = task_titles(manifest), titles.optimizer_title(manifest.baseline)
    parts = []
    for optimizer in manifest.rivals:
        rows = frame[(frame["optimizer"] == optimizer) & frame["largest_ratio"].notna()]
        once = (rows["seeds"] == 1).all()
        scope = " (one checkpoint each; intervals are of the solver alone)" if once else ""
        for word, chosen in (
            ("larger", rows[rows["largest_ratio_low"] > 1]),
            ("smaller", rows[rows["largest_ratio_high"] < 1]),
        ):
            if len(chosen):
                each = ", ".join(
                    f"{names[row['task']]} {_ratio_text(row, 'largest')}"
                    for _, row in chosen.iterrows()
                )
                parts.append(
                    f"The largest eigenvalue of the Hessian is {word} under "
                    f"{titles.optimizer_title(optimizer)} than under {base} in {len(chosen)} of "
                    f"{len(rows)} tasks: {each}{scope}."
                )
    return parts


def warnings(manifest: Manifest) -> list[str]:
    """What of the measurement is not to be relied on."""
    frame = table(manifest)
    parts = _unconverged(frame[frame["seeds"] > 0])
    if (frame["seeds"] == 1).any():
        parts.append(
            "Curvature was measured at one checkpoint an optimizer; its intervals say nothing "
            "about other seeds (`analyses: {hessian: {seeds: all}}` measures them all)."
        )
    return parts


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown."""
    several = (frame["seeds"] > 1).any()
    rows = []
    for _, row in frame.iterrows():
        has_published = row["published_largest"] == row["published_largest"]
        rival = row["optimizer"] != manifest.baseline
        cells = {
            "task": task_title(manifest, row),
            "data": titles.dataset_title(row["dataset"]),
            "optimizer": titles.optimizer_title(row["optimizer"]),
            "seeds": row["seeds"],
            "loss": significant(row["loss"], 3),
            "largest λ": _with_error(row, "largest"),
            "ratio of λ": _ratio_text(row, "largest") if rival else DASH,
            "trace": _with_error(row, "trace"),
            "ratio of traces": _ratio_text(row, "trace") if rival else DASH,
            "smallest λ": _with_error(row, "smallest"),
            "largest of ∣θ∣H∣θ∣": significant(row["adaptive_largest"]),
            "published λ; trace": f"{row['published_largest']:.2f}; {row['published_trace']:.2f}"
            if has_published
            else DASH,
            "published ratios": f"{ratio(row['published_largest_ratio'])}; "
            f"{ratio(row['published_trace_ratio'])}"
            if has_published and rival
            else DASH,
        }
        if not row["seeds"]:
            cells |= {"loss": "diverged", "largest λ": "diverged", "trace": "diverged"}
        rows.append(cells)
    shown = pd.DataFrame(rows)
    shown = shown[[c for c in shown if not _optional(c) or shown[c].ne(DASH).any()]]
    measured = frame[frame["seeds"] > 0]
    samples = of_tasks(
        manifest,
        measured["task"],
        [f"{int(n)} samples of {s}" for n, s in zip(measured["samples"], measured["split"])],
    )
    base = titles.optimizer_title(manifest.baseline)
    parts = [
        "# Hessian of the training loss",
        f"Measured on {samples}; BatchNorm in eval mode, no dropout, no label smoothing. Ratios "
        f"are to {base}.",
        "Numbers are means ± sample standard deviations over the measured seeds, ratios of "
        "geometric means with Welch's 95 % interval on the logarithms."
        if several
        else "One checkpoint an optimizer was measured, so no interval here says anything about "
        "other seeds (`seeds: all` under `analyses.hessian` measures them all). Eigenvalues carry "
        "the residual within which one lies, traces the standard error over probes, ratios the "
        "interval that follows from these.",
        markdown(shown, {c: c for c in shown}),
        *_unconverged(measured),
    ]
    return join([*parts, *elsewhere(manifest, "hessian", frame)])


def _unconverged(frame: pd.DataFrame) -> list[str]:
    """Sentences on what the solver left open."""
    parts = []
    for flag, what in (("largest_converged", "largest"), ("smallest_converged", "smallest")):
        names = [pair_title(row) for _, row in frame[~frame[flag]].iterrows()]
        if names:
            parts.append(
                f"Not converged: the {what} eigenvalue of {', '.join(names)}; "
                "raise `max_iterations` of `analyses.hessian`."
            )
    names = [pair_title(row) for _, row in frame[~frame["smallest_sign_known"]].iterrows()]
    if names:
        parts.append(f"The sign of the smallest eigenvalue is open for {', '.join(names)}.")
    return parts


def _ratio_text(row: pd.Series, quantity: str) -> str:
    ends = row[f"{quantity}_ratio_low"], row[f"{quantity}_ratio_high"]
    return interval(row[f"{quantity}_ratio"], *ends, "ratio")


def _with_error(row: pd.Series, name: str) -> str:
    """A number with its spread over seeds, or the error of its one measurement."""
    if row["seeds"] > 1:
        return plus_minus(row[name], row[f"{name}_std"])
    if name == "trace":
        return plus_minus(row["trace"], row["trace_se"])
    if not np.isfinite(row[name]):
        return DASH
    residual = row[f"{name}_residual"]
    value = row[name]
    if residual > abs(value):  # an interval across zero: digits of the middle mean nothing
        return f"{significant(value - residual, 2)} … {significant(value + residual, 2)}"
    return f"{significant(value)} ({significant(residual, 2)})"


def _optional(column: str) -> bool:
    return column.startswith(("published", "largest of"))


TABLES = {"hessian": (table, text)}


def dots(manifest: Manifest, table: pd.DataFrame) -> Figure:
    """Largest eigenvalue, trace, smallest eigenvalue: a row per task, a marker per optimizer.

    The first two have logarithmic axes, the smallest eigenvalue one that is linear about zero, so
    that its sign shows. Markers are hollow where the solver has not converged.

    Args:
        table: from :func:`table`.
    """
    names = task_titles(manifest := manifest.only("hessian"))
    figure, axes = style.rows_of_tasks(len(names), len(QUANTITIES), len(manifest.optimizers))
    for axis, (quantity, label) in zip(axes, QUANTITIES.items()):
        _dots(manifest, axis, table, quantity)
        axis.set_xlabel(label)
        if quantity == "smallest":
            sizes = table["smallest"].abs()
            sizes = sizes[sizes > 0]
            axis.set_xscale(
                "symlog", linthresh=max(sizes.min(), sizes.max() / 1e3) if len(sizes) else 1.0
            )
            axis.axvline(0, color=style.GRAY, linewidth=0.8)
            style.symlog_ticks(axis)
        else:
            style.log_axis(axis, "x")
    style.task_axis(axes[0], names)
    handles = style.optimizer_handles(manifest, line=False)
    if not table[["largest_converged", "smallest_converged"]].to_numpy().all():
        handles.append(style.handle("not converged", marker="o", face="white"))
    if table["published_largest"].notna().any():
        handles.append(style.handle("published", marker="D", face="white", color="black"))
    style.legend(figure, handles)
    return figure


def _dots(manifest: Manifest, axis: Axes, table: pd.DataFrame, quantity: str) -> None:
    color, marker = style.colors(manifest), style.markers(manifest)
    tasks = list(manifest.tasks)
    for _, row in table.iterrows():
        y = tasks.index(row["task"]) + style.dodge(manifest, row["optimizer"])
        value = row[quantity]
        if not np.isfinite(value) or (quantity != "smallest" and value <= 0):
            axis.annotate(
                "diverged" if not row["seeds"] else f"{significant(value, 2)}",
                (0.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=6,
                color=color[row["optimizer"]],
            )  # fmt: skip
            continue
        if row["seeds"] > 1:
            error = row[f"{quantity}_std"]
        else:
            error = 1.96 * row["trace_se"] if quantity == "trace" else row[f"{quantity}_residual"]
        error = error if np.isfinite(error) else 0.0
        below = error if quantity == "smallest" else min(error, 0.9 * value)
        solid = quantity == "trace" or row[f"{quantity}_converged"]
        axis.errorbar(
            value, y, xerr=[[below], [error]], fmt=marker[row["optimizer"]],
            color=color[row["optimizer"]], elinewidth=0.9, capsize=1.6, markersize=4.2,
            markerfacecolor=color[row["optimizer"]] if solid else "white",
        )  # fmt: skip
        beside = row.get(f"published_{quantity}", np.nan)
        if np.isfinite(beside):
            axis.plot(beside, y, "D", color="black", markerfacecolor="white", markersize=3.6,
                      markeredgewidth=0.8, zorder=1)  # fmt: skip
    axis.grid(axis="x")
    axis.set_axisbelow(True)
