"""Whether "sharper" survives a measure that a change of parameters cannot fake."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equiscape.errors import DataError
from equiscape.report import statistics, style, titles
from equiscape.report.load import read_csv
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, ratio, significant
from equiscape.report.page import Page
from equiscape.report.text import join, markdown, task_title, unmeasured
from equiscape.report.titles import optimizer_title, task_titles

PAGE = Page(
    title="Does sharpness survive reparametrization?",
    category="Landscape",
    reads=("sharpness",),
    tables={
        "sharpness": (
            "Sharpness of the final solutions by measures that symmetries of the parameters do and "
            "do not change, mean over seeds and ratio to the baseline."
        ),
    },
    figures={
        "sharpness": (
            "Each measure of sharpness over that of the baseline optimizer: ratio of geometric "
            "means over seeds with its 95 % interval (Welch, on logarithms). Filled: batch norms "
            "folded into the weights. Hollow: the network as it is, which rescalings change; "
            "left out of figures of more than four other optimizers."
        ),
    },
)

COLUMNS = ("task", "optimizer", "seed", "folded", "measure", "layer", "value", "residual",
           "converged")  # fmt: skip
KEYS = ["task", "folded", "measure", "layer"]
MEASURES = {
    "hessian_largest": "largest λ of H",
    "hessian_trace": "trace of H",
    "filterwise_largest": "filter-wise, largest",
    "adaptive_largest": "adaptive, largest",
    "adaptive_trace": "adaptive, trace",
    "log_hessian_largest": "log-Hessian, largest",
    "log_hessian_trace": "log-Hessian, trace",
    "fisher_rao": "Fisher-Rao",
    "gauss_newton_largest": "Gauss-Newton, largest",
    "gauss_newton_trace": "Gauss-Newton, trace",
    "spectral_step": "orthogonalized steps",
    "spectral_relative": "… relative",
}
"""Measures of the figure, in its order, and what they are called."""
INVARIANT = ("adaptive_largest", "adaptive_trace", "log_hessian_largest", "log_hessian_trace",
             "fisher_rao")  # fmt: skip
"""What no rescaling of a folded network changes."""
FEW = 4
"""Optimizers beside the baseline of which a figure shows the network as it is too."""
FACTS = ("parameters", "flat_directions", "folded_norms")
"""Numbers of parameters, directions and norms, which have no ratio."""


def load(manifest: Manifest) -> pd.DataFrame:
    """A row for each seed, form of the network, measure and layer; flags are booleans.

    Raises:
        DataError: a table is of a version that did not count flat directions.
    """
    frames = []
    for product in manifest.analysis("sharpness"):
        frame = read_csv(product.path, COLUMNS)
        if len(frame) and not (frame["measure"] == "flat_directions").any():
            raise DataError(
                f"{product.path} has no row flat_directions, so an earlier version wrote it; "
                "run again with --forcerun sharpness."
            )
        frames.append(frame)
    frame = pd.concat([f for f in frames if len(f)] or frames, ignore_index=True)
    return frame.astype({"folded": bool, "converged": bool})


def table(manifest: Manifest) -> pd.DataFrame:
    """One row per task, optimizer, form, measure and layer.

    Columns: seeds, mean, std over seeds, residual (the largest one: solver error or standard error
    of a seed's value), converged (in every seed), and ratio, ratio_low, ratio_high to the baseline
    (geometric means, 95 % interval of Welch on logarithms). Ratios are NaN where a value is not
    positive, their interval where an optimizer has one seed.
    """
    measured = load(manifest)
    groups = dict(iter(measured.groupby(["optimizer", *KEYS], sort=False)))
    rows = []
    for (optimizer, *key), group in groups.items():
        base = groups.get((manifest.baseline, *key))
        values = group["value"].to_numpy(dtype=float)
        low = high = middle = np.nan
        if base is not None and optimizer != manifest.baseline and key[2] not in FACTS:
            found = statistics.ratio(base["value"], values)
            middle, low, high = found.value, found.low, found.high
        rows.append(
            {
                "task": key[0],
                "optimizer": optimizer,
                **dict(zip(KEYS[1:], key[1:])),
                "seeds": len(values),
                "mean": values.mean(),
                "std": values.std(ddof=1) if len(values) > 1 else np.nan,
                "residual": group["residual"].max(),
                "converged": bool(group["converged"].all()),
                "ratio": middle,
                "ratio_low": low,
                "ratio_high": high,
            }
        )
    columns = ("task", "optimizer", *KEYS[1:], "seeds", "mean", "std", "residual", "converged",
               "ratio", "ratio_low", "ratio_high")  # fmt: skip
    return pd.DataFrame(rows, columns=list(columns))


def with_norms(frame: pd.DataFrame) -> set[str]:
    """The tasks whose networks have batch norms to fold; ``frame`` from :func:`load`."""
    rows = frame[(frame["measure"] == "folded_norms") & (frame["value"] > 0)]
    return set(rows["task"])


def verdict(frame: pd.DataFrame, task: str, optimizer: str, baseline: str) -> str:
    """One sentence on raw and folded sharpness, from the numbers alone."""
    rows = frame[(frame["task"] == task) & (frame["optimizer"] == optimizer)]
    rows = rows[rows["layer"] == "all"]
    raw = rows[~rows["folded"] & (rows["measure"] == "hessian_largest")]
    own = rows[rows["folded"] & rows["measure"].isin(INVARIANT)]
    kinds = {name: int((own.apply(_side, axis=1) == name).sum()) for name in ("above", "below")}
    first = raw.iloc[0] if len(raw) else None
    plain = DASH if first is None else f"{ratio(first['ratio'])}{_interval(first)}"
    return (
        f"{optimizer_title(optimizer)} against {optimizer_title(baseline)}: largest λ of H as it "
        f"is {plain}; of {len(own)} measures that rescaling cannot change, {kinds['above']} are "
        f"higher and {kinds['below']} lower by more than their interval, the rest open."
    )


def _side(row: pd.Series) -> str:
    if row["ratio_low"] > 1:
        return "above"
    return "below" if row["ratio_high"] < 1 else "open"


def _interval(row: pd.Series) -> str:
    if not np.isfinite(row["ratio_low"]):
        return ""
    return f" [{significant(row['ratio_low'], 3)}, {significant(row['ratio_high'], 3)}]"


def flat(frame: pd.DataFrame, task: str) -> str:
    """One sentence on the directions that symmetry keeps flat, of a task's networks."""
    rows = frame[(frame["task"] == task) & frame["measure"].isin(FACTS)]
    forms = []
    for folded, form in ((False, "as they are"), (True, "folded")):
        counts = rows[rows["folded"] == folded].groupby("measure")["mean"]
        if "flat_directions" not in counts.groups:
            continue
        least, most = counts.min()["flat_directions"], counts.max()["flat_directions"]
        size = counts.max()["parameters"]
        number = f"{least:,.0f}" + (f" to {most:,.0f}" if most > least else "")
        forms.append(f"{form} {number} of {size:,.0f} ({100 * most / size:.2g} %)")
    known = rows[rows["measure"] == "flat_directions"]["converged"].all()
    bound = "" if known else " An upper bound: one symmetry is too large to compare with others."
    return (
        "Directions along which declared symmetries keep the loss exactly as it is: "
        f"{'; '.join(forms)} parameters.{bound}"
    )


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown: whole-network measures, a sentence of comparison a task."""
    base = optimizer_title(manifest.baseline)
    parts = [
        "# Sharpness of the final solutions",
        f"Mean over seeds; ratios to {base} are of geometric means with 95 % intervals (Welch, on "
        "logarithms). *Folded*: batch norms folded into the weights, so that only what the "
        "function fixes is left. Adaptive, log-Hessian and Fisher-Rao are then unchanged by "
        "rescaling; the others are not. Orthogonalized steps: "
        "the largest curvature of a step whose matrices have the spectral norm of an "
        "orthogonalizing optimizer's steps, or (relative) of the weights, a lower bound. Steps are "
        "those of a fresh optimizer state, with momentum zero: an adaptive one is the sign of the "
        "gradient.",
    ]
    for task, group in frame.groupby("task", sort=False):
        parts.append(f"## {task_title(manifest, group.iloc[0])}")
        for optimizer in manifest.optimizers:
            if optimizer != manifest.baseline and (group["optimizer"] == optimizer).any():
                parts.append(verdict(frame, task, optimizer, manifest.baseline))
        parts.append(flat(frame, str(task)))
        rows = []
        whole = group[(group["layer"] == "all") & ~group["measure"].isin(FACTS)]
        for (measure, folded), cells in whole.groupby(["measure", "folded"], sort=False):
            row = {
                "measure": MEASURES.get(measure, measure.replace("_", " ")),
                "network": "folded" if folded else "as it is",
            }
            for _, cell in cells.iterrows():
                name = titles.optimizer_title(cell["optimizer"])
                row[name] = significant(cell["mean"]) + ("" if cell["converged"] else " (open)")
                if cell["optimizer"] != manifest.baseline:
                    row[f"{name} / {base}"] = ratio(cell["ratio"]) + _interval(cell)
            rows.append(row)
        shown = pd.DataFrame(rows).fillna(DASH)
        parts.append(markdown(shown, {c: c for c in shown}))
    return join([*parts, *unmeasured(manifest, "sharpness", frame)])


TABLES = {"sharpness": (table, text)}


def ratios(manifest: Manifest, frame: pd.DataFrame) -> Figure:
    """A panel per task: every measure's ratio to the baseline, with its interval over seeds.

    Of more than :data:`FEW` other optimizers only the folded networks are drawn, where there are.

    Args:
        frame: from :func:`table`.
    """
    color, marker, names = style.colors(manifest), style.markers(manifest), task_titles(manifest)
    rivals = [name for name in manifest.optimizers if name != manifest.baseline]
    tasks = list(dict.fromkeys(frame["task"]))
    columns = max(1, min(len(tasks), 3 if len(tasks) <= 6 else 5))
    height, size = (2.4, 7) if columns <= 3 else (1.9, 6)
    kinds = (True,) if len(rivals) > FEW and frame["folded"].any() else (True, False)
    room = 0.28 if len(rivals) == 1 else 0.72
    step = room / max(len(rivals) * len(kinds) - 1, 1)
    height = max(height, min(8.0, 0.05 * len(MEASURES) * len(rivals) * len(kinds)))
    lines = max(1, -(-len(tasks) // columns))
    figure, axes = plt.subplots(
        lines, columns, squeeze=False, sharey=True,
        figsize=(style.WIDTH if columns > 1 else 4.5, 0.5 + height * lines),
    )  # fmt: skip
    for place, axis in enumerate(axes.flat):
        if place >= len(tasks):
            axis.set_axis_off()
            if not tasks:
                axis.text(0.5, 0.5, "every cell diverged", ha="center", va="center",
                          transform=axis.transAxes)  # fmt: skip
            continue
        cells = frame[(frame["task"] == tasks[place]) & (frame["layer"] == "all")]
        for number, optimizer in enumerate(rivals):
            for second, folded in enumerate(kinds):
                face = color[optimizer] if folded else "white"
                lift = (number * len(kinds) + second) * step - room / 2
                chosen = cells[(cells["optimizer"] == optimizer) & (cells["folded"] == folded)]
                chosen = chosen.set_index("measure").reindex(MEASURES)
                y = np.arange(len(MEASURES)) + lift
                axis.hlines(y, chosen["ratio_low"], chosen["ratio_high"], color=color[optimizer],
                            linewidth=1, zorder=1)  # fmt: skip
                axis.plot(chosen["ratio"], y, marker[optimizer], color=color[optimizer],
                          markerfacecolor=face, markersize=3.8, zorder=2)  # fmt: skip
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_yticks(range(len(MEASURES)), MEASURES.values(), fontsize=size)
        axis.set_ylim(len(MEASURES) - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        axis.set_title(names[tasks[place]], loc="left")
        style.log_axis(axis, "x")
    figure.supxlabel(f"ratio to {optimizer_title(manifest.baseline)}", fontsize=8)
    handles = style.optimizer_handles(manifest, rivals, line=False) if rivals else []
    for face, label in ((style.GRAY, "folded"), ("white", "as it is"))[: len(kinds)]:
        handles.append(
            Line2D([], [], color=style.GRAY, marker="o", markerfacecolor=face, linestyle="",
                   markersize=3.8, label=label)
        )  # fmt: skip
    style.legend(figure, handles)
    return figure
