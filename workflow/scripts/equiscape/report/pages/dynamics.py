"""The course of a training at its snapshots: curvature, the edge of stability, steps, ranks."""

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equiscape.io import read_json
from equiscape.report import style
from equiscape.report.load import read_csv
from equiscape.report.manifest import Manifest, Product
from equiscape.report.numbers import DASH, significant
from equiscape.report.page import Page
from equiscape.report.text import join, markdown, task_title, unmeasured
from equiscape.report.titles import optimizer_title, task_titles

PAGE = Page(
    title="Along the training",
    category="Landscape",
    reads=("dynamics", "metrics"),
    tables={
        "dynamics": (
            "What was measured at the snapshots of a training: curvature, steps, ranks, angles, "
            "margins and linear probes by epoch, mean over the seeds that were measured."
        ),
    },
    figures={
        "dynamics_{task}": (
            "Along the training: the loss that is trained; its largest Hessian eigenvalue; "
            "sharpness in the optimizer's own geometry over the threshold of stability (line), "
            "hollow and dotted where that is a diagnostic only; what the next step gains to first "
            "order (solid) and loses to curvature (dashed); median stable rank over layers; share "
            "of the next step in the span of the leading eigenvectors, beside a random "
            "direction's (line)."
        ),
        "dynamics_layers_{task}": (
            "Along the training: distance from the first weights; margins on training samples; "
            "test score of a linear probe of each layer after the last snapshot (solid) and at the "
            "first one (dotted)."
        ),
    },
)

COLUMNS = ("task", "optimizer", "seed", "epoch", "lr", "loss", "quantity", "layer", "value",
           "error", "converged", "products")  # fmt: skip
KEYS = ["task", "optimizer", "epoch", "quantity", "layer"]
WHOLE, PART = "all", "part"
NEAR = (0.8, 1.25)
"""What counts as at the edge: this much of the threshold."""
SHOWN = {
    "eigenvalue_1": "largest λ",
    "trace": "trace",
    "edge": "sharpness / threshold",
    "spectral_edge": "spectral diagnostic",
    "rho": "penalty / gain",
    "update_angle": "angle of step to gradient, °",
    "update_share": "share of step in leading eigenvectors",
    "margin_train_median": "median training margin",
    "distance_initial_relative": "relative distance from start",
}
"""Quantities of the Markdown table, in its order, and what they are called."""
RANKED = {"weight": "-", "gradient": (0, (1.5, 1.2)), "update": (0, (5, 1.5))}


def load(manifest: Manifest) -> pd.DataFrame:
    """A row for each task, optimizer, seed, epoch, quantity and layer."""
    frames = [read_csv(product.path, COLUMNS) for product in manifest.analysis("dynamics")]
    frame = pd.concat([f for f in frames if len(f)] or frames, ignore_index=True)
    return frame.astype({"converged": bool, "value": float})


def table(manifest: Manifest) -> pd.DataFrame:
    """One row per task, optimizer, epoch, quantity and layer.

    Columns: seeds, learning_rate and loss (means), mean and std over seeds, error (the largest:
    residual, standard error or rounding of a seed's value), converged (in every seed).
    """
    groups = load(manifest).groupby(KEYS, sort=False)
    found = groups.agg(
        seeds=("value", "size"),
        learning_rate=("lr", "mean"),
        loss=("loss", "mean"),
        mean=("value", "mean"),
        std=("value", "std"),
        error=("error", "max"),
        converged=("converged", "all"),
    )
    return found.reset_index()


def course(frame: pd.DataFrame, task: str, optimizer: str, quantity: str,
           layer: str | None = WHOLE) -> pd.DataFrame:  # fmt: skip
    """Rows of one quantity by epoch; of every layer where ``layer`` is None."""
    rows = frame[(frame["task"] == task) & (frame["optimizer"] == optimizer)]
    rows = rows[rows["quantity"] == quantity]
    if layer is not None:
        rows = rows[rows["layer"] == layer]
    return rows.sort_values("epoch", kind="stable")


def at_the_edge(frame: pd.DataFrame, task: str, optimizer: str) -> str:
    """One sentence on how near a training came to the threshold of stability."""
    name = optimizer_title(optimizer)
    whole, part = (course(frame, task, optimizer, "edge", layer) for layer in (WHOLE, PART))
    spectral = course(frame, task, optimizer, "spectral_edge")
    sentences = []
    if len(whole):
        values = whole["mean"].to_numpy()
        near = int(((values >= NEAR[0]) & (values <= NEAR[1])).sum())
        beyond = int((values > NEAR[1]).sum())
        top = whole.iloc[int(np.nanargmax(values))]
        sentences.append(
            f"{name}: preconditioned sharpness reached {significant(top['mean'], 2)} of its "
            f"threshold, after epoch {int(top['epoch'])}; at {near} of {len(values)} snapshots it "
            f"lay between {NEAR[0]:g} and {NEAR[1]:g} of it"
            + (f", at {beyond} above." if beyond else ".")
        )
    if len(part):
        sentences.append(
            f"{name}: the threshold of the parameters with a linear step was reached to at most "
            f"{significant(part['mean'].max(), 2)}; the others were held still for this, so it is "
            "a diagnostic."
        )
    if len(spectral):
        sentences.append(
            f"{name}: its spectral sharpness was at most {significant(spectral['mean'].max(), 2)} "
            "of what would undo a step without momentum: a diagnostic, and a lower bound."
        )
    if not sentences:
        rho = course(frame, task, optimizer, "rho")["mean"]
        sentences.append(
            f"{name} has no threshold here; curvature took at most "
            f"{significant(100 * rho.max(), 2)} % of a step's gain."
            if rho.notna().any()
            else f"{name} has no threshold here."
        )
    return " ".join(sentences)


def highlights(manifest: Manifest) -> list[str]:
    """Who trains at the edge of stability, and at how many snapshots."""
    frame = table(manifest)
    rows = frame[(frame["quantity"] == "edge") & (frame["layer"] == WHOLE)]
    parts = []
    for optimizer in manifest.optimizers:
        own = rows[rows["optimizer"] == optimizer]
        if len(own):
            near, tasks = int((own["mean"] >= NEAR[0]).sum()), own["task"].nunique()
            parts.append(
                f"{optimizer_title(optimizer)}: sharpness in its own geometry is at least "
                f"{NEAR[0]:g} of its threshold of stability at {near} of {len(own)} snapshots "
                f"after the start ({tasks} task{'s' * (tasks > 1)})."
            )
    return parts


def _envelopes(manifest: Manifest) -> Iterator[tuple[Product, str, dict[str, Any]]]:
    """Each result, the training that it is about in words, and what stands beside its rows."""
    titles = task_titles(manifest)
    for product in manifest.analysis("dynamics"):
        beside = product.path.with_suffix(".json")
        name = f"{titles[product.task or '']} with {optimizer_title(product.optimizer or '')}"
        yield product, name, read_json(beside, "dynamics") if beside.is_file() else {}


def costs(manifest: Manifest) -> list[str]:
    """What the analysis cost, beside the trainings that it measured."""
    lines = []
    for product, name, found in _envelopes(manifest):
        cost = found.get("costs")
        if not cost:
            continue
        seeds = {c["seed"] for c in found.get("checkpoints", [])}
        trained = [
            read_json(manifest.final(product.task or "", product.optimizer or "", seed), "metrics")[
                "seconds"
            ]
            for seed in seeds
            if seed in manifest.seeds
        ]
        share = ""
        if sum(trained):
            share = f", {100 * cost['seconds'] / sum(trained):.0f} % of the training's time"
        lines.append(
            f"{name}: {significant(cost['seconds'], 3)} s, {cost['products']} products, "
            f"{significant(cost['peak_memory_mb'], 3)} MB at most{share}."
        )
    return lines


def absent(manifest: Manifest) -> list[str]:
    """What has no meaning, or could not be measured, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for _, name, found in _envelopes(manifest):
        for entry in found.get("absent", []):
            epochs = entry["epochs"]
            when = f" (epoch {epochs[0]})" if len(epochs) == 1 else f" ({len(epochs)} snapshots)"
            reasons.setdefault((entry["quantity"], entry["reason"]), []).append(name + when)
    return [
        f"No {quantity.replace('_', ' ')}: {reason}: {', '.join(dict.fromkeys(who))}."
        for (quantity, reason), who in reasons.items()
    ]


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown: a table a task and optimizer at a few epochs, sentences, costs."""
    parts = [
        "# Along the training",
        "At the weights where the optimizer takes its gradients, for the loss as it is trained "
        "(batch statistics and label smoothing, without augmentation and dropout). *Sharpness / "
        "threshold* is the largest eigenvalue of the Hessian in the optimizer's own geometry, its "
        "second moments held as they are, over the largest one at which its update is stable on a "
        "quadratic: near 1 is the edge of stability. It is exact for full batches; with small "
        "batches sharpness may stay below. *Spectral diagnostic*: the same for steps of bounded "
        "spectral norm without momentum, a lower bound. *Penalty / gain* above 1: the quadratic "
        "model says that the next step raises the loss.",
    ]
    for task, group in frame.groupby("task", sort=False):
        parts.append(f"## {task_title(manifest, group.iloc[0])}")
        parts += [
            at_the_edge(frame, str(task), optimizer)
            for optimizer in manifest.optimizers
            if (group["optimizer"] == optimizer).any()
        ]
        about_all = group[group["layer"].isin((WHOLE, PART))]  # some quantities have layers too
        for optimizer, cells in about_all.groupby("optimizer", sort=False):
            epochs = thinned(sorted(cells["epoch"].unique()), 6)
            rows = []
            for quantity, label in SHOWN.items():
                known = cells[cells["quantity"] == quantity].set_index("epoch")
                if known.empty:
                    continue
                row = {"quantity": label + (" (part)" if (known["layer"] == PART).all() else "")}
                for epoch in epochs:
                    found = known["mean"].get(epoch, np.nan)
                    row[f"epoch {epoch}"] = significant(found, 3) if pd.notna(found) else DASH
                rows.append(row)
            shown = pd.DataFrame(rows)
            names = {c: c for c in shown}
            names["quantity"] = optimizer_title(str(optimizer))
            parts.append(markdown(shown, names))
    parts += unmeasured(manifest, "dynamics", frame)
    lines = [*absent(manifest), *costs(manifest)]
    if lines:
        parts += ["## What it cost, and what is left out", "\n".join(f"- {x}" for x in lines)]
    return join(parts)


TABLES = {"dynamics": (table, text)}


def thinned(values: Sequence[Any], most: int) -> list[Any]:
    """At most ``most`` of them, from the first to the last."""
    if len(values) <= most:
        return list(values)
    places = np.linspace(0, len(values) - 1, most).round().astype(int)
    return [values[i] for i in places]


def along(manifest: Manifest, frame: pd.DataFrame, task: str) -> Figure:
    """Six panels over the epochs of the snapshots of one task.

    Args:
        frame: from :func:`table`.
    """
    figure, axes = plt.subplots(2, 3, figsize=(style.WIDTH, 3.9))
    loss, largest, edge, step, ranks, share = axes.flat
    drawn = _Drawing(manifest, frame, task)
    for optimizer in drawn.optimizers:
        rows = course(frame, task, optimizer, "eigenvalue_1")
        drawn.line(loss, optimizer, rows.assign(mean=rows["loss"]))
        drawn.line(largest, optimizer, rows)
        drawn.line(edge, optimizer, course(frame, task, optimizer, "edge"))
        for quantity, layer in (("edge", PART), ("spectral_edge", WHOLE)):
            rows = course(frame, task, optimizer, quantity, layer)
            face = "white" if quantity == "edge" else None
            drawn.line(edge, optimizer, rows, dash=(0, (1.5, 1.2)), face=face)
        drawn.line(step, optimizer, course(frame, task, optimizer, "step_gain"))
        rows = course(frame, task, optimizer, "step_penalty")
        drawn.line(step, optimizer, rows.assign(mean=rows["mean"].abs()), dash=(0, (5, 1.5)))
        for kind, dash in RANKED.items():
            rows = course(frame, task, optimizer, f"{kind}_stable_rank", None)
            median = rows.groupby("epoch", as_index=False)["mean"].median()
            drawn.line(ranks, optimizer, median, dash=dash, bare=kind != "weight")
        drawn.line(share, optimizer, course(frame, task, optimizer, "update_share"))
    edge.axhline(1, color="black", linewidth=0.8)
    edge.axhspan(*NEAR, color="#EFEFEF", zorder=0, linewidth=0)
    chance = frame[(frame["task"] == task) & (frame["quantity"] == "random_share")]["mean"]
    if len(chance):
        share.axhline(chance.mean(), color=style.GRAY, linewidth=0.8, linestyle="--")
    titles = {
        loss: "training loss", largest: "largest λ", edge: "sharpness / threshold",
        step: "gain (solid), |penalty| (dashed)", ranks: "median stable rank",
        share: "share of step in top λ",
    }  # fmt: skip
    for axis, title in titles.items():
        axis.set_title(title, loc="left")
        style.log_axis(axis) if _positive(axis) else None
    drawn.finish(axes, bottom=axes[1])
    handles = style.optimizer_handles(manifest, drawn.optimizers)
    handles += [style.handle(f"{kind} rank", dash=dash) for kind, dash in RANKED.items()]
    style.legend(figure, handles, title=task_titles(manifest)[task])
    return figure


def layers(manifest: Manifest, frame: pd.DataFrame, task: str) -> Figure:
    """Distance from the start, margins, and linear probes by layer, of one task.

    Args:
        frame: from :func:`table`.
    """
    figure, axes = plt.subplots(1, 3, figsize=(style.WIDTH, 2.4))
    distance, margin, probe = axes
    drawn = _Drawing(manifest, frame, task)
    for optimizer in drawn.optimizers:
        drawn.line(distance, optimizer, course(frame, task, optimizer, "distance_initial_relative"))
        drawn.line(margin, optimizer, course(frame, task, optimizer, "margin_train_median"))
        rows = course(frame, task, optimizer, "margin_train_tenth")
        drawn.line(margin, optimizer, rows, dash=(0, (1.5, 1.2)), bare=True)
        rows = course(frame, task, optimizer, "probe", None)
        if rows.empty:
            continue
        names = list(dict.fromkeys(rows["layer"]))
        for epoch, dash, face in ((rows["epoch"].max(), "-", None),
                                  (rows["epoch"].min(), (0, (1.5, 1.2)), "white")):  # fmt: skip
            found = rows[rows["epoch"] == epoch].set_index("layer")["mean"].reindex(names)
            probe.plot(
                range(len(names)), found, color=drawn.color[optimizer], linestyle=dash,
                marker=drawn.marker[optimizer], markersize=3.6, markeredgewidth=0.8,
                markerfacecolor=face or drawn.color[optimizer],
            )  # fmt: skip
        places = thinned(range(len(names)), 6)
        probe.set_xticks(places, [names[i] for i in places], rotation=30, ha="right", fontsize=6)
    distance.set_title("distance from start, relative", loc="left")
    margin.set_title("margin: median, 10 % (dotted)", loc="left")
    probe.set_title("linear probe, test score", loc="left")
    if drawn.optimizers and not margin.get_lines():
        margin.text(0.5, 0.5, "a regression has none", ha="center", va="center",
                    transform=margin.transAxes, color=style.GRAY)  # fmt: skip
    else:
        margin.axhline(0, color=style.GRAY, linewidth=0.8, linestyle="--")
    probe.grid(axis="y")
    drawn.finish(np.array([distance, margin]), bottom=[distance, margin])
    handles = style.optimizer_handles(manifest, drawn.optimizers)
    style.legend(figure, handles, title=task_titles(manifest)[task])
    return figure


class _Drawing:
    """Lines over epochs in the optimizers' colors, all axes of one task."""

    def __init__(self, manifest: Manifest, frame: pd.DataFrame, task: str):
        self.color, self.marker = style.colors(manifest), style.markers(manifest)
        mine = frame[frame["task"] == task]
        self.optimizers = [o for o in manifest.optimizers if (mine["optimizer"] == o).any()]
        self.epochs = sorted(mine["epoch"].unique())
        self.empty = "" if self.optimizers else "every cell diverged"

    def line(self, axis: Axes, optimizer: str, rows: pd.DataFrame, dash: Any = "-",
             face: str | None = None, bare: bool = False) -> None:  # fmt: skip
        """One quantity; ``bare`` without markers."""
        if rows.empty:
            return
        axis.plot(
            rows["epoch"], rows["mean"], color=self.color[optimizer], linestyle=dash,
            marker="" if bare else self.marker[optimizer], markersize=3.6, markeredgewidth=0.8,
            markerfacecolor=face or self.color[optimizer], linewidth=1.2,
        )  # fmt: skip

    def finish(self, axes: np.ndarray, bottom: Sequence[Axes]) -> None:
        """The epochs below; equal steps for early and late ones where they double."""
        for axis in axes.flat:
            if self.epochs and self.epochs[-1] > 8:
                axis.set_xscale("symlog", linthresh=1, linscale=0.5)
                axis.minorticks_off()
            shown = thinned(self.epochs, 6)
            axis.set_xticks(shown, [f"{epoch:g}" for epoch in shown])
            axis.grid(axis="y")
            axis.margins(x=0.04)
            axis.text(0.5, 0.5, self.empty, ha="center", va="center", transform=axis.transAxes,
                      color=style.GRAY)  # fmt: skip
        for axis in bottom:
            axis.set_xlabel("epoch")


def _positive(axis: Axes) -> bool:
    """Whether all that is drawn is above zero, so that a log axis shows it."""
    values = [np.asarray(line.get_ydata(), dtype=float) for line in axis.get_lines()]
    found = np.concatenate(values) if values else np.array([])
    found = found[np.isfinite(found)]
    return bool(len(found)) and bool((found > 0).all())
