"""The leading eigenvalues of the Hessian, each with what the solver leaves open."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equiscape.io import read_json
from equiscape.report import curvature, style
from equiscape.report.load import reading
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import significant
from equiscape.report.page import Page
from equiscape.report.text import join, markdown, task_title
from equiscape.report.titles import optimizer_title, task_titles

PAGE = Page(
    title="How many directions are sharp?",
    category="Landscape",
    reads=("hessian",),
    tables={
        "spectrum": (
            "Leading eigenvalues of the Hessian, each with its residual, the interval in which an "
            "eigenvalue lies, and whether it has converged."
        ),
    },
    figures={
        "spectrum": (
            "Leading eigenvalues of the Hessian in descending order, each with the interval that "
            "its residual leaves open; hollow markers have not converged."
        ),
        "spectrum_density": (
            "Density of all eigenvalues of the Hessian (stochastic Lanczos quadrature), with a "
            "band of two standard errors over its probes. Where the band reaches the bottom, the "
            "probes do not tell the density from zero; converged eigenvalues are exact."
        ),
    },
)
DENSITY = ("points", "density", "density_standard_error", "width")


def table(manifest: Manifest) -> pd.DataFrame:
    """One row an eigenvalue of a measured seed.

    Columns: task, optimizer, seed, rank (1: the largest), value, residual, low, high, converged,
    sign_known.
    """
    rows = [
        {"task": task, "optimizer": optimizer, "seed": data["seed"], "rank": rank, **pair}
        for (task, optimizer), found in curvature.load(manifest).items()
        for data in found
        for rank, pair in enumerate(data["eigenvalues"], start=1)
    ]
    columns = ["value", "residual", "low", "high", "converged", "sign_known"]
    return pd.DataFrame(rows, columns=["task", "optimizer", "seed", "rank", *columns])


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown, a column per optimizer; intervals where not converged."""
    parts = [
        "# Leading eigenvalues",
        "An eigenvalue that has converged is given with four digits; for one that has not, the "
        "interval in which an eigenvalue lies.",
    ]
    for (_task, seed), group in frame.groupby(["task", "seed"], sort=False):
        parts.append(f"## {task_title(manifest, group.iloc[0])}, seed {seed}")
        rows = []
        for rank, cells in group.groupby("rank"):
            row = {"eigenvalue": str(rank)}
            for _, cell in cells.iterrows():
                row[optimizer_title(cell["optimizer"])] = (
                    significant(cell["value"])
                    if cell["converged"]
                    else f"{significant(cell['low'], 2)} … {significant(cell['high'], 2)}"
                )
            rows.append(row)
        shown = pd.DataFrame(rows).fillna("")
        parts.append(markdown(shown, {c: c for c in shown}))
    return join(parts)


TABLES = {"spectrum": (table, text)}


def spectrum(manifest: Manifest, measured: dict[tuple[str, str], list[dict]]) -> Figure:
    """The leading eigenvalues in descending order, on a log axis; hollow where not converged.

    A marker points down where the eigenvalue is negative (its size is drawn). Where several seeds
    were measured, the first is drawn.

    Args:
        measured: from :func:`load`.
    """
    manifest = manifest.only("hessian")
    titles_ = task_titles(manifest)
    figure, axes = style.panels(len(manifest.tasks))
    open_, negative = False, False
    for axis, task in zip(axes, manifest.tasks):
        longest = 1
        for optimizer in manifest.optimizers:
            found = measured.get((task, optimizer)) or []
            if found:
                flags = _spectrum(manifest, axis, optimizer, found[0]["eigenvalues"])
                open_, negative = open_ or flags[0], negative or flags[1]
                longest = max(longest, len(found[0]["eigenvalues"]))
        axis.set_title(titles_[task], loc="left")
        axis.set_xticks(range(1, longest + 1, 1 if longest <= 6 else 3 if longest <= 12 else 5))
        axis.grid(axis="y")
        style.log_axis(axis, "y")
    style.label_outer(axes, "eigenvalue, largest first", "eigenvalue")
    handles = style.optimizer_handles(manifest)
    if open_:
        handles.append(style.handle("not converged", marker="o", face="white"))
    if negative:
        handles.append(style.handle("negative, absolute value", marker="v"))
    style.legend(figure, handles)
    return figure


def _spectrum(
    manifest: Manifest, axis: Axes, optimizer: str, pairs: list[dict[str, Any]]
) -> tuple[bool, bool]:
    """Draw one spectrum; returns whether any value is open, and whether any is negative."""
    color, marker = style.colors(manifest)[optimizer], style.markers(manifest)[optimizer]
    frame = pd.DataFrame(pairs)
    frame["size"] = frame["value"].abs()
    frame["index"] = np.arange(1, len(frame) + 1)
    frame = frame[frame["size"] > 0]
    below = np.minimum(frame["residual"].fillna(0), 0.9 * frame["size"])
    solid = frame["converged"]
    line = frame[solid]
    axis.plot(line["index"], line["size"], color=color, linewidth=0.9, zorder=1)
    axis.errorbar(
        frame["index"], frame["size"], yerr=[below, frame["residual"].fillna(0)], fmt="none",
        ecolor=color, elinewidth=0.8, capsize=1.5,
    )  # fmt: skip
    negative = solid & frame["sign_known"] & (frame["value"] < 0)
    for chosen, shape, face in (
        (solid & ~negative, marker, color),
        (negative, "v", color),
        (~solid, marker, "white"),
    ):
        rows = frame[chosen]
        axis.plot(rows["index"], rows["size"], shape, color=color, markerfacecolor=face,
                  markersize=3.8)  # fmt: skip
    axis.set_yscale("log")
    return bool((~solid).any()), bool(negative.any())


def densities(manifest: Manifest) -> dict[tuple[str, str], pd.DataFrame]:
    """The density of all eigenvalues by (task, optimizer), of the first measured seed.

    Columns: eigenvalue, density (per unit of eigenvalue; its integral is one), error (standard
    error over probes, NaN for one probe), single (the peak that one eigenvalue alone would make).
    A pair whose density was not measured is left out.
    """
    found: dict[tuple[str, str], pd.DataFrame] = {}
    for product in manifest.analysis("hessian"):
        key = str(product.task), str(product.optimizer)
        data = read_json(product.path, "hessian")
        if key in found or not data.get("density"):
            continue
        with reading(product.path):
            points, density, error, width = (data["density"][name] for name in DENSITY)
            found[key] = pd.DataFrame(
                {
                    "eigenvalue": np.asarray(points, dtype=float),
                    "density": np.asarray(density, dtype=float),
                    "error": np.asarray(error, dtype=float),
                    "single": 1 / (data["parameters"] * width * np.sqrt(2 * np.pi)),
                }
            )
    return found


def density(manifest: Manifest, measured: dict[tuple[str, str], pd.DataFrame]) -> Figure:
    """The density of the whole spectrum, a panel per task, with two standard errors of the probes.

    The axis ends at a tenth of the peak that a single eigenvalue would make: below that there is
    none.

    Args:
        measured: from :func:`densities`.
    """
    manifest = manifest.only("hessian")
    titles_, color = task_titles(manifest), style.colors(manifest)
    dashes = {o: style.DASHES[i % len(style.DASHES)] for i, o in enumerate(manifest.optimizers)}
    figure, axes = style.panels(len(manifest.tasks))
    for axis, task in zip(axes, manifest.tasks):
        axis.set_title(titles_[task], loc="left")
        curves = {o: measured[task, o] for o in manifest.optimizers if (task, o) in measured}
        if not curves:
            axis.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=7,
                      transform=axis.transAxes)  # fmt: skip
            axis.set_xticks([])
            axis.set_yticks([])
            continue
        floor = 0.1 * min(float(curve["single"].iloc[0]) for curve in curves.values())
        for optimizer, curve in curves.items():
            reach = 2 * curve["error"].fillna(0)
            axis.fill_between(
                curve["eigenvalue"], np.maximum(curve["density"] - reach, floor / 10),
                np.maximum(curve["density"] + reach, floor / 10), color=color[optimizer],
                alpha=0.25, linewidth=0,
            )  # fmt: skip
            axis.plot(curve["eigenvalue"], np.maximum(curve["density"], floor / 10),
                      color=color[optimizer], linestyle=dashes[optimizer],
                      linewidth=1)  # fmt: skip
        axis.axvline(0, color=style.GRAY, linewidth=0.6, zorder=0)
        axis.set_ylim(floor, 3 * max(float(curve["density"].max()) for curve in curves.values()))
        axis.grid(axis="y")
        style.log_axis(axis, "y")
    style.label_outer(axes, "eigenvalue", "density")
    handles = [
        style.handle(optimizer_title(o), color=color[o], dash=dashes[o])
        for o in manifest.optimizers
    ]
    style.legend(figure, handles)
    return figure
