"""Stable and effective ranks, layer by layer."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from equiscape.report import style, titles
from equiscape.report.load import read_csv
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, ratio, significant
from equiscape.report.page import Page
from equiscape.report.tables import baseline, with_task
from equiscape.report.text import join, markdown, task_title
from equiscape.report.titles import task_titles

PAGE = Page(
    title="How spread are the singular values?",
    category="Spectra",
    reads=("rank",),
    tables={
        "rank": (
            "Stable and effective rank of every weight matrix and of every layer's representations."
        ),
        "rank_summary": "In how many layers the ranks are above the baseline's, and by how much.",
    },
    figures={
        "rank": (
            "Stable and effective rank under each optimizer over that under the baseline, "
            "from the first layer to the last, for weights and for pooled representations."
        ),
        "rank_{task}": (
            "Stable and effective rank of every weight matrix and of every layer's pooled "
            "representations at the representative checkpoint, from the input (top) to the "
            "output."
        ),
    },
)

COLUMNS = ("task", "optimizer", "layer", "kind", "rows", "columns", "stable_rank", "effective_rank")


def load(manifest: Manifest) -> pd.DataFrame:
    """The ranks of every layer; ``position`` counts the layers of a kind from the input on."""
    frames = []
    for product in manifest.analysis("rank"):
        frame = read_csv(product.path, COLUMNS)
        frame["position"] = frame.groupby("kind", sort=False).cumcount()
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def table(manifest: Manifest) -> pd.DataFrame:
    """Ranks layer by layer, with the ratio of each optimizer to the baseline."""
    frame = with_task(manifest, load(manifest))
    for measure in ("stable_rank", "effective_rank"):
        base = baseline(manifest, frame, ["task", "kind", "layer"], measure)
        frame[f"{measure}_ratio"] = frame[measure] / base
    return frame


def summary(manifest: Manifest) -> pd.DataFrame:
    """One row a task, kind, measure and optimizer other than the baseline.

    Columns: layers, higher (layers where the optimizer's rank is above the baseline's),
    share_higher, median_ratio, last_ratio (at the layer nearest the output).
    """
    frame = table(manifest)
    frame = frame[frame["optimizer"] != manifest.baseline]
    rows = []
    for (task, kind, optimizer), group in frame.groupby(["task", "kind", "optimizer"], sort=False):
        for measure in ("stable_rank", "effective_rank"):
            ratio = group[f"{measure}_ratio"].dropna()
            rows.append(
                {
                    "task": task,
                    "optimizer": optimizer,
                    "kind": kind,
                    "measure": measure,
                    "layers": len(ratio),
                    "higher": int((ratio > 1).sum()),
                    "share_higher": (ratio > 1).mean(),
                    "median_ratio": ratio.median(),
                    "last_ratio": ratio.iloc[-1] if len(ratio) else np.nan,
                }
            )
    columns = ["task", "optimizer", "kind", "measure", "layers", "higher", "share_higher"]
    return pd.DataFrame(rows, columns=[*columns, "median_ratio", "last_ratio"])


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown: for every task and kind, the layers against the optimizers."""
    parts = [
        "# Ranks, layer by layer",
        "Stable rank Σs²/s₁² and effective rank exp(entropy of s/Σs) of the singular values s of "
        "weight matrices and of pooled representations; each cell gives *stable / effective*.",
    ]
    kinds = {"weight": "weights", "representation": "representations"}
    for (_name, kind), group in frame.groupby(["task", "kind"], sort=False):
        parts.append(f"## {task_title(manifest, group.iloc[0])}: {kinds.get(kind, kind)}")
        rows = []
        for layer, cells in group.groupby("layer", sort=False):
            first = cells.iloc[0]
            row = {"layer": f"`{layer}`", "size": f"{first['rows']} × {first['columns']}"}
            for _, cell in cells.iterrows():
                row[titles.optimizer_title(cell["optimizer"])] = (
                    f"{significant(cell['stable_rank'], 3)} / "
                    f"{significant(cell['effective_rank'], 3)}"
                )
            rows.append(row)
        table = pd.DataFrame(rows).fillna(DASH)
        parts.append(markdown(table, {c: c for c in table}))
    return join(parts)


def summary_text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown."""
    rows = [
        {
            "task": task_title(manifest, row),
            "optimizer": titles.optimizer_title(row["optimizer"]),
            "matrices": f"{row['kind']}s",
            "rank": row["measure"].removesuffix("_rank"),
            "layers higher": f"{row['higher']} of {row['layers']}",
            "median ratio": ratio(row["median_ratio"]),
            "ratio at the last layer": ratio(row["last_ratio"]),
        }
        for _, row in frame.iterrows()
    ]
    base = titles.optimizer_title(manifest.baseline)
    heading = "# Ranks, in how many layers they are higher"
    if not rows:
        return join([heading, "The study has one optimizer, so there is nothing to compare."])
    table = pd.DataFrame(rows)
    return join([heading, f"Against {base}.", markdown(table, {c: c for c in table})])


TABLES = {"rank": (table, text), "rank_summary": (summary, summary_text)}


KINDS = {"weight": "weights", "representation": "representations"}


MEASURES = {"stable_rank": "stable rank", "effective_rank": "effective rank"}


def layers(manifest: Manifest, task: str, table: pd.DataFrame) -> Figure:
    """A task's layers from input (top) to output, stable and effective rank side by side.

    Args:
        table: from :func:`table`.
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
    color, marker = style.colors(manifest), style.markers(manifest)
    wide = cells.pivot(index="layer", columns="optimizer", values=measure).reindex(names)
    axis.hlines(
        range(len(names)), wide.min(axis=1), wide.max(axis=1), color="#C8C8C8", linewidth=1.6,
        zorder=1,
    )  # fmt: skip
    for optimizer in manifest.optimizers:
        if optimizer in wide:
            axis.plot(
                wide[optimizer], range(len(names)), marker[optimizer], color=color[optimizer],
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
    color, marker = style.colors(manifest), style.markers(manifest)
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
                for measure, face in (("stable_rank", color[optimizer]), ("effective_rank", "w")):
                    axis.plot(
                        line["position"] + 1, line[f"{measure}_ratio"], color=color[optimizer],
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
