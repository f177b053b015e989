"""Stable and effective ranks, layer by layer."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from equiscape.report import statistics, style, titles
from equiscape.report.comparisons import Comparison, measured_once, of_ratios
from equiscape.report.load import read_csv
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, interval, plus_minus, ratio, significant
from equiscape.report.page import Page
from equiscape.report.statistics import Estimate
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
            "Stable (filled) and effective (hollow) rank under each optimizer over that under the "
            "baseline: a dot per layer, the bar their geometric mean, for weights and for pooled "
            "representations. Ratios in the gray band are ties; matrices that can only have rank "
            "one are left out."
        ),
        "rank_{task}": (
            "Stable and effective rank of every weight matrix and of every layer's pooled "
            "representations at the representative checkpoint, from the input (top) to the "
            "output."
        ),
    },
)

COLUMNS = ("task", "optimizer", "layer", "kind", "rows", "columns", "stable_rank", "effective_rank")
KINDS = {"weight": "weights", "representation": "representations"}
MEASURES = {"stable_rank": "stable rank", "effective_rank": "effective rank"}
TIE = 0.01
"""Ratios this near to one count as ties."""


def load(manifest: Manifest) -> pd.DataFrame:
    """The ranks of every layer, with the ``seed`` where several were measured.

    ``position`` counts the layers of a kind from the input on; ``comparable`` is False for a matrix
    with a side of one, whose rank can only be one.
    """
    frames = []
    for product in manifest.analysis("rank"):
        frame = read_csv(product.path, ("task", "optimizer"))
        if len(frame):
            frame = read_csv(product.path, COLUMNS)
            frame["seed"] = -1 if product.seed is None else product.seed
            frame["position"] = frame.groupby("kind", sort=False).cumcount()
            frame["comparable"] = frame[["rows", "columns"]].min(axis=1) > 1
            frames.append(frame)
    columns = [*COLUMNS, "seed", "position", "comparable"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def table(manifest: Manifest) -> pd.DataFrame:
    """Ranks layer by layer: means over the measured seeds, their spread, ratios to the baseline.

    ``*_std`` is NaN for one seed. ``*_ratio`` is of geometric means.
    """
    each = load(manifest)
    for measure in MEASURES:
        each[f"log_{measure}"] = np.log(each[measure].astype(float))
    keys = ["task", "optimizer", "layer", "kind", "rows", "columns", "position", "comparable"]
    groups = each.groupby(keys, sort=False)
    frame = pd.DataFrame({"seeds": groups.size()})
    for measure in MEASURES:
        frame[measure] = groups[measure].mean()
        frame[f"{measure}_std"] = groups[measure].std(ddof=1)
        frame[f"log_{measure}"] = groups[f"log_{measure}"].mean()
    frame = with_task(manifest, frame.reset_index())
    for measure in MEASURES:
        base = baseline(manifest, frame, ["task", "kind", "layer"], f"log_{measure}")
        frame[f"{measure}_ratio"] = np.exp(frame.pop(f"log_{measure}") - base)
    return frame


def summary(manifest: Manifest) -> pd.DataFrame:
    """One row per task, kind, measure and optimizer other than the baseline.

    Columns: layers (those whose rank can differ from one), higher, tied (within 1 %), lower,
    mean_ratio (geometric, over layers) with low and high (95 %, t over layers: a description, since
    layers are not independent), chance (of a split as lopsided from fair coins), last_ratio (at the
    layer nearest the output).
    """
    frame = table(manifest)
    frame = frame[(frame["optimizer"] != manifest.baseline) & frame["comparable"]]
    rows = []
    for (task, kind, optimizer), group in frame.groupby(["task", "kind", "optimizer"], sort=False):
        for measure in MEASURES:
            ratios = group[f"{measure}_ratio"].dropna()
            higher = int((ratios > 1 + TIE).sum())
            lower = int((ratios < 1 / (1 + TIE)).sum())
            found = statistics.mean_interval(np.log(ratios))
            rows.append(
                {
                    "task": task,
                    "optimizer": optimizer,
                    "kind": kind,
                    "measure": measure,
                    "layers": len(ratios),
                    "higher": higher,
                    "tied": len(ratios) - higher - lower,
                    "lower": lower,
                    "mean_ratio": np.exp(found.value),
                    "mean_ratio_low": np.exp(found.low),
                    "mean_ratio_high": np.exp(found.high),
                    "chance": statistics.sign_chance(higher, higher + lower),
                    "last_ratio": ratios.iloc[-1] if len(ratios) else np.nan,
                }
            )
    columns = [
        "task", "optimizer", "kind", "measure", "layers", "higher", "tied", "lower", "mean_ratio",
        "mean_ratio_low", "mean_ratio_high", "chance", "last_ratio",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def layer_means(manifest: Manifest) -> pd.Series:
    """Geometric mean over a network's layers, indexed by kind, measure, task, optimizer, seed."""
    each = load(manifest)
    each = each[each["comparable"].astype(bool)].astype(dict.fromkeys(MEASURES, float))
    keys = ["kind", "measure", "task", "optimizer", "seed"]
    long = each.melt(keys[:1] + keys[2:], list(MEASURES), "measure", "value")
    return np.exp(np.log(long["value"]).groupby([long[key] for key in keys]).mean())


def comparisons(manifest: Manifest) -> list[Comparison]:
    """One test a claim: the mean log ratio over a network's layers, seeds shuffled as a whole."""
    means = layer_means(manifest)
    known = set(means.index.droplevel("seed"))
    found = []
    for kind, kind_title in KINDS.items():
        for measure, title in MEASURES.items():
            for task in manifest.analyses["rank"]["tasks"]:
                for optimizer in manifest.rivals:
                    pairs = [(kind, measure, task, o) for o in (manifest.baseline, optimizer)]
                    if not known.issuperset(pairs):
                        continue
                    base, other = (means[pair].to_numpy() for pair in pairs)
                    claim = f"{title} of {kind_title}, mean over layers"
                    if min(len(base), len(other)) > 1:
                        found.append(of_ratios(claim, task, optimizer, base, other))
                    else:
                        once = Estimate(float(other[0] / base[0]), np.nan, np.nan)
                        found.append(measured_once(claim, task, optimizer, once, ""))
    return found


def highlights(manifest: Manifest) -> list[str]:
    """In how many layers the ranks are higher, task by task."""
    frame = summary(manifest)
    names, base = task_titles(manifest), titles.optimizer_title(manifest.baseline)
    parts = []
    for (optimizer, kind, measure), rows in frame.groupby(
        ["optimizer", "kind", "measure"], sort=False
    ):
        each = ", ".join(
            f"{names[row['task']]} {row['higher']} of {row['layers']}"
            + (f" ({row['tied']} tied)" if row["tied"] else "")
            for _, row in rows.iterrows()
        )
        parts.append(
            f"The {MEASURES[measure]} of {KINDS[kind]} is higher under "
            f"{titles.optimizer_title(optimizer)} than under {base} in {rows['higher'].sum()} of "
            f"{rows['layers'].sum()} layers: {each}."
        )
    return parts


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown: for every task and kind, the layers against the optimizers."""
    parts = [
        "# Ranks, layer by layer",
        "Stable rank Σs²/s₁² and effective rank exp(entropy of s/Σs) of the singular values s of "
        "weight matrices and of pooled representations; each cell gives *stable / effective*. "
        "A matrix with a side of one has rank one whatever the optimizer, and is left out of "
        "counts and figures.",
    ]
    for (_name, kind), group in frame.groupby(["task", "kind"], sort=False):
        parts.append(f"## {task_title(manifest, group.iloc[0])}: {KINDS.get(kind, kind)}")
        rows = []
        for layer, cells in group.groupby("layer", sort=False):
            first = cells.iloc[0]
            row = {"layer": f"`{layer}`", "size": f"{first['rows']} × {first['columns']}"}
            for _, cell in cells.iterrows():
                row[titles.optimizer_title(cell["optimizer"])] = " / ".join(
                    plus_minus(cell[measure], cell[f"{measure}_std"])
                    if cell["seeds"] > 1
                    else significant(cell[measure], 3)
                    for measure in MEASURES
                )
            rows.append(row)
        shown = pd.DataFrame(rows).fillna(DASH)
        parts.append(markdown(shown, {c: c for c in shown}))
    return join(parts)


def summary_text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The summary as Markdown, with what chance would give."""
    rows = [
        {
            "task": task_title(manifest, row),
            "optimizer": titles.optimizer_title(row["optimizer"]),
            "matrices": f"{row['kind']}s",
            "rank": row["measure"].removesuffix("_rank"),
            "layers": row["layers"],
            "higher / tied / lower": f"{row['higher']} / {row['tied']} / {row['lower']}",
            "fair coins": significant(row["chance"], 2),
            "mean ratio [95 % over layers]": interval(
                row["mean_ratio"], row["mean_ratio_low"], row["mean_ratio_high"], "ratio"
            ),
            "ratio at the last layer": ratio(row["last_ratio"]),
        }
        for _, row in frame.iterrows()
    ]
    base = titles.optimizer_title(manifest.baseline)
    heading = "# Ranks, in how many layers they are higher"
    if not rows:
        return join([heading, "The study has one optimizer, so there is nothing to compare."])
    shown = pd.DataFrame(rows)
    note = (
        f"Against {base}; ratios within 1 % are ties. *Fair coins* is the probability that as "
        "lopsided a split comes about by chance if every layer were an independent coin; layers "
        "are not independent, so this is a description and no test."
    )
    return join([heading, note, markdown(shown, {c: c for c in shown})])


TABLES = {"rank": (table, text), "rank_summary": (summary, summary_text)}


def layers(manifest: Manifest, task: str, table: pd.DataFrame) -> Figure:
    """A task's layers from input (top) to output, stable and effective rank side by side.

    Args:
        table: from :func:`table`.
    """
    table = table[(table["task"] == task) & table["comparable"]]
    kinds = [kind for kind in KINDS if (table["kind"] == kind).any()]
    names = {kind: list(dict.fromkeys(table.loc[table["kind"] == kind, "layer"])) for kind in kinds}
    counts = [len(names[kind]) for kind in kinds]
    figure, axes = plt.subplots(
        max(len(kinds), 1), 2, squeeze=False, sharey="row",
        figsize=(style.WIDTH, 0.9 + 0.35 * len(kinds) + 0.135 * sum(counts)),
        gridspec_kw={"height_ratios": [count + 1 for count in counts] or [1]},
    )  # fmt: skip
    for row, kind in zip(axes, kinds):
        for axis, (measure, label) in zip(row, MEASURES.items()):
            _layers(manifest, axis, table[table["kind"] == kind], names[kind], measure)
            axis.set_title(f"{KINDS[kind]}: {label}", loc="left")
        row[0].set_yticks(range(len(names[kind])), names[kind], fontsize=6.5)
        row[0].set_ylim(len(names[kind]) - 0.4, -0.6)
    for axis in axes[-1]:
        axis.set_xlabel("rank")
    style.legend(
        figure, style.optimizer_handles(manifest, line=False), title=task_titles(manifest)[task]
    )
    return figure


def _layers(
    manifest: Manifest, axis: Axes, cells: pd.DataFrame, names: list[str], measure: str
) -> None:
    color, marker = style.colors(manifest), style.markers(manifest)
    wide = cells.pivot(index="layer", columns="optimizer", values=measure).reindex(names)
    spread = cells.pivot(index="layer", columns="optimizer", values=f"{measure}_std")
    axis.hlines(
        range(len(names)), wide.min(axis=1), wide.max(axis=1), color="#C8C8C8", linewidth=1.4,
        zorder=1,
    )  # fmt: skip
    for optimizer in manifest.optimizers:
        if optimizer in wide:
            axis.errorbar(
                wide[optimizer], range(len(names)),
                xerr=spread[optimizer].reindex(names).fillna(0), fmt=marker[optimizer],
                color=color[optimizer], markersize=3.8, elinewidth=0.7, zorder=2,
            )  # fmt: skip
    values = wide.to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() / values.min() > 12:
        style.log_axis(axis, "x")
    else:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axis.grid(axis="both")
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)


def ratios(manifest: Manifest, table: pd.DataFrame) -> Figure:
    """Rank over the baseline's, a row per task, a dot per layer, a bar the geometric mean.

    Left weights, right representations; stable rank filled on the upper line of a row, effective
    rank hollow on the lower one. The gray band holds ties.

    Args:
        table: from :func:`table`.
    """
    manifest = manifest.only("rank")
    color, marker = style.colors(manifest), style.markers(manifest)
    names = task_titles(manifest)
    rivals = manifest.rivals
    figure, axes = style.rows_of_tasks(len(names), 2, 2 * max(len(rivals), 1))
    lanes = [(rival, measure) for rival in rivals for measure in MEASURES]
    for axis, (kind, title) in zip(axes, KINDS.items()):
        cells = table[(table["kind"] == kind) & table["comparable"]]
        for at, task in enumerate(names):
            for i, (optimizer, measure) in enumerate(lanes):
                mine = cells[(cells["task"] == task) & (cells["optimizer"] == optimizer)]
                values = mine[f"{measure}_ratio"].dropna()
                if values.empty:
                    continue
                y = at + (i - (len(lanes) - 1) / 2) * 0.7 / len(lanes)
                face = color[optimizer] if measure == "stable_rank" else "white"
                axis.plot(
                    values, [y] * len(values), marker[optimizer], color=color[optimizer],
                    markerfacecolor=face, markersize=3, alpha=0.55, markeredgewidth=0.7,
                )  # fmt: skip
                axis.plot(
                    np.exp(np.log(values).mean()), y, "|", color="black", markersize=8,
                    markeredgewidth=1.3,
                )  # fmt: skip
        axis.axvspan(1 / (1 + TIE), 1 + TIE, color="#DDDDDD", zorder=0, linewidth=0)
        axis.set_xlabel(f"{title}: rank / rank under {style.optimizer_title(manifest.baseline)}")
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        style.log_axis(axis, "x")
    style.task_axis(axes[0], names)
    handles = style.optimizer_handles(manifest, rivals, line=False) if rivals else []
    shape = marker[rivals[0]] if rivals else "o"
    handles += [
        style.handle("stable rank", marker=shape),
        style.handle("effective rank", marker=shape, face="white"),
        style.handle("mean of layers", marker="|", color="black"),
    ]
    style.legend(figure, handles)
    return figure
