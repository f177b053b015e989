"""Stable and effective ranks, layer by layer."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.titles import task_titles

KINDS = {"weight": "weights", "representation": "representations"}
MEASURES = {"stable_rank": "stable rank", "effective_rank": "effective rank"}


def layers(manifest: Manifest, task: str, table: pd.DataFrame) -> Figure:
    """A task's layers from input (top) to output, stable and effective rank side by side.

    Args:
        table: from :func:`equiscape.report.tables.rank`.
    """
    table = table[table["task"] == task]
    kinds = [kind for kind in KINDS if (table["kind"] == kind).any()]
    names = {kind: list(dict.fromkeys(table.loc[table["kind"] == kind, "layer"])) for kind in kinds}
    counts = [len(names[kind]) for kind in kinds]
    height = 0.9 + 0.35 * len(kinds) + 0.15 * sum(counts)
    figure, axes = plt.subplots(
        len(kinds), 2, figsize=(style.WIDTH, height), squeeze=False, sharey="row",
        gridspec_kw={"height_ratios": [count + 1 for count in counts]},
    )  # fmt: skip
    for row, kind in zip(axes, kinds):
        for axis, (measure, label) in zip(row, MEASURES.items()):
            cells = table[table["kind"] == kind]
            _layers(manifest, axis, cells, names[kind], measure)
            axis.set_title(f"{KINDS[kind]}: {label}", loc="left")
        row[0].set_yticks(range(len(names[kind])), names[kind], fontsize=6.5)
        row[0].set_ylim(len(names[kind]) - 0.4, -0.6)
    for axis in axes[-1]:
        axis.set_xlabel("rank")
    handles = style.optimizer_handles(manifest, line=False)
    style.legend(figure, handles, title=task_titles(manifest)[task])
    return figure


def _layers(
    manifest: Manifest, axis: Axes, cells: pd.DataFrame, names: list[str], measure: str
) -> None:
    colour, marker = style.colours(manifest), style.markers(manifest)
    wide = cells.pivot(index="layer", columns="optimizer", values=measure).reindex(names)
    axis.hlines(
        range(len(names)), wide.min(axis=1), wide.max(axis=1), color="#C8C8C8", linewidth=1.6,
        zorder=1,
    )  # fmt: skip
    for optimizer in manifest.optimizers:
        if optimizer in wide:
            axis.plot(
                wide[optimizer], range(len(names)), marker[optimizer], color=colour[optimizer],
                markersize=4.2, zorder=2,
            )  # fmt: skip
    values = wide.to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() / values.min() > 12:
        style.plain_log(axis, "x")
    else:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axis.grid(axis="both")
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)


def ratios(manifest: Manifest, table: pd.DataFrame) -> Figure:
    """Rank of every optimizer over the baseline's against the layer's depth, all tasks at once.

    Upper row weights, lower row representations; stable rank filled, effective rank hollow.
    """
    colour, marker = style.colours(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    rivals = [name for name in manifest.optimizers if name != manifest.baseline]
    tasks = list(manifest.tasks)
    columns = min(len(tasks), 4)
    blocks = -(-len(tasks) // columns)
    figure, axes = plt.subplots(
        2 * blocks, columns, squeeze=False, sharey=True,
        figsize=(style.WIDTH if columns > 2 else 3.0 * columns + 0.6, 0.4 + 3.1 * blocks),
    )  # fmt: skip
    for place in range(blocks * columns):
        pair = [axes[2 * (place // columns) + k][place % columns] for k in range(2)]
        if place >= len(tasks):
            for axis in pair:
                axis.remove()
            continue
        for axis, kind in zip(pair, KINDS):
            cells = table[(table["task"] == tasks[place]) & (table["kind"] == kind)]
            for optimizer in rivals:
                line = cells[cells["optimizer"] == optimizer]
                for measure, face in (("stable_rank", colour[optimizer]), ("effective_rank", "w")):
                    axis.plot(
                        line["position"] + 1, line[f"{measure}_ratio"], color=colour[optimizer],
                        marker=marker[optimizer], markerfacecolor=face, markersize=3.6,
                        linewidth=0.9, linestyle="-" if face != "w" else style.DASHES[1],
                    )  # fmt: skip
            axis.axhline(1, color="black", linewidth=0.8)
            axis.set_yscale("log")
            if place % columns == 0:
                axis.set_ylabel(KINDS[kind])
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            axis.grid(axis="y")
        pair[0].set_title(titles[tasks[place]], loc="left")
        pair[1].set_xlabel("layer, from the input")
    style.plain_log(axes[0][0])
    base = style.optimizer_title(manifest.baseline)
    figure.supylabel(f"rank / rank under {base}", fontsize=8)
    handles = style.optimizer_handles(manifest, rivals) if rivals else []
    for face, dash, label in (
        (style.GREY, "-", "stable rank"),
        ("white", style.DASHES[1], "effective rank"),
    ):
        handles.append(
            Line2D([], [], color=style.GREY, marker="o", markerfacecolor=face, linestyle=dash,
                   markersize=3.6, label=label)
        )  # fmt: skip
    style.legend(figure, handles)
    return figure
