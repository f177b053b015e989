"""Which classes are recognized, and which are taken for which, under each optimizer."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from equiscape.errors import DataError
from equiscape.io import read_json
from equiscape.report import style
from equiscape.report.load import number, reading
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, plus_minus, signed
from equiscape.report.page import Page
from equiscape.report.tables import better_by
from equiscape.report.text import join, markdown
from equiscape.report.titles import optimizer_title, task_titles

PAGE = Page(
    title="Which classes are told apart?",
    category="Accuracy",
    reads=("metrics", "predictions"),
    tables={
        "classes": "Test accuracy of every class, mean and spread over the final seeds.",
        "confusions": "The pairs of classes that are mistaken for each other most often.",
    },
    figures={
        "classes_{task}": (
            "Test accuracy of every class at the best validation epoch: mean and sample standard "
            "deviation over final seeds, the class that the baseline knows best on top."
        ),
        "confusion_{task}": (
            "Test samples of each class (row) by the class they are taken for (column), as shares "
            "of the row, all final seeds together: white is none, black is all. Of more than four "
            "optimizers, the baseline and the three others that recognize most."
        ),
    },
    tasks="classes",
)

COLUMNS = ["task", "optimizer", "class", "seeds", "mean", "std", "gain"]
WORST = 10
"""Confusions that the text names for a task."""
PANELS = 4
"""Confusion matrices that a figure shows: more of them could not be read in print."""


def load(manifest: Manifest) -> pd.DataFrame:
    """Test accuracy of every class (in percent): task, optimizer, seed, class, score.

    A seed that diverged, and a class without a test sample, has no row.
    """
    rows = []
    for task in PAGE.chosen_tasks(manifest):
        for optimizer in manifest.optimizers:
            for seed in manifest.seeds:
                path = manifest.final(task, optimizer, seed)
                data = read_json(path, "metrics")
                with reading(path):
                    if data["status"] != "finished":
                        continue
                    for name, value in ((data.get("test") or {}).get("classes") or {}).items():
                        rows.append((task, optimizer, seed, name, number(value)))
    frame = pd.DataFrame(rows, columns=["task", "optimizer", "seed", "class", "score"])
    return frame.dropna(subset="score")


def matrices(manifest: Manifest) -> dict[tuple[str, str], np.ndarray]:
    """The confusion ``[C, C]`` of every (task, optimizer), counts added over the final seeds.

    Raises:
        DataError: a file of predictions cannot be read.
    """
    found: dict[tuple[str, str], np.ndarray] = {}
    for task in PAGE.chosen_tasks(manifest):
        for optimizer in manifest.optimizers:
            for seed in manifest.seeds:
                metrics = read_json(manifest.final(task, optimizer, seed), "metrics")
                if metrics["status"] != "finished":
                    continue
                path = manifest.final(task, optimizer, seed, "predictions.npz")
                try:
                    with np.load(path, allow_pickle=False) as arrays:
                        if "confusion" in arrays:
                            own = np.asarray(arrays["confusion"])
                            found[task, optimizer] = found.get((task, optimizer), 0) + own
                except (OSError, ValueError) as error:
                    raise DataError(
                        f"{path} cannot be read as predictions ({error}); run its final cell again "
                        "with --forcerun."
                    ) from None
    return found


def names(manifest: Manifest, task: str) -> list[str]:
    """The classes of a task in the order of the confusion matrix; empty where no seed finished."""
    for optimizer in manifest.optimizers:
        for seed in manifest.seeds:
            data = read_json(manifest.final(task, optimizer, seed), "metrics")
            if found := (data.get("test") or {}).get("classes"):
                return list(found)
    return []


def table(manifest: Manifest) -> pd.DataFrame:
    """One row per task, optimizer and class: seeds, mean, std, gain over the baseline (points)."""
    keys = ["task", "class"]
    groups = load(manifest).groupby(["task", "optimizer", "class"], sort=False)["score"]
    frame = groups.agg(["size", "mean", "std"]).reset_index().rename(columns={"size": "seeds"})
    base = frame[frame["optimizer"] == manifest.baseline][[*keys, "mean"]]
    frame = frame.merge(base.rename(columns={"mean": "base"}), on=keys, how="left")
    frame["gain"] = better_by(frame["mean"], frame["base"], pd.Series("max", frame.index))
    return frame[COLUMNS]


def confusions(manifest: Manifest) -> pd.DataFrame:
    """Every confusion that was made: task, optimizer, true, taken_for, count, share (percent).

    ``share`` is of the test samples of the true class, all final seeds together; most frequent
    first within a task, by the mean share over optimizers.
    """
    columns = ["task", "optimizer", "true", "taken_for", "count", "share"]
    frames = []
    found = matrices(manifest)
    for task in dict.fromkeys(task for task, _ in found):
        known = np.array(names(manifest, task))
        mine = {o: found[task, o] for o in manifest.optimizers if (task, o) in found}
        shares = {o: 100 * _by_row(counts) for o, counts in mine.items()}
        mean = np.mean(list(shares.values()), axis=0)
        np.fill_diagonal(mean, 0)
        for place in np.argsort(-mean, axis=None, kind="stable"):
            row, column = np.unravel_index(place, mean.shape)
            if mean[row, column] == 0:
                break
            frames += [
                (task, o, known[row], known[column], int(mine[o][row, column]),
                 float(shares[o][row, column]))
                for o in mine
            ]  # fmt: skip
    return pd.DataFrame(frames, columns=columns)


def _by_row(counts: np.ndarray) -> np.ndarray:
    """Shares of each row; zero for a class without samples."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The classes as Markdown, a section a task, a column an optimizer."""
    parts = [
        "# Test accuracy by class",
        "Percent of a class's test samples, mean ± sample standard deviation over the final seeds "
        "at the best validation epoch; gains in percentage points. With few test samples a class "
        "one sample is many points.",
    ]
    for task, group in frame.groupby("task", sort=False):
        rows = []
        for name, cells in group.groupby("class", sort=False):
            row: dict[str, Any] = {"class": name}
            for _, cell in cells.iterrows():
                title = optimizer_title(cell["optimizer"])
                row[title] = plus_minus(cell["mean"], cell["std"], "%")
                if cell["optimizer"] != manifest.baseline:
                    row[f"gain of {title}"] = signed(cell["gain"], "%")
            rows.append(row)
        shown = pd.DataFrame(rows).fillna(DASH)
        parts += [f"## {task_titles(manifest)[task]}", markdown(shown, {c: c for c in shown})]
    return join(parts)


def confusions_text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The most frequent confusions of every task as Markdown."""
    parts = [
        "# The most frequent confusions",
        f"Share of a class's test samples that is taken for another class, all final seeds "
        f"together; at most {WORST} a task, all of them in confusions.csv.",
    ]
    for task, group in frame.groupby("task", sort=False):
        rows = []
        for (true, taken), cells in group.groupby(["true", "taken_for"], sort=False):
            row = {"class": true, "taken for": taken}
            for _, cell in cells.iterrows():
                row[optimizer_title(cell["optimizer"])] = f"{cell['share']:.1f} % ({cell['count']})"
            rows.append(row)
        shown = pd.DataFrame(rows[:WORST]).fillna(DASH)
        parts += [f"## {task_titles(manifest)[task]}", markdown(shown, {c: c for c in shown})]
    if frame.empty:
        parts.append("No test sample was taken for another class.")
    return join(parts)


TABLES = {"classes": (table, text), "confusions": (confusions, confusions_text)}


def highlights(manifest: Manifest) -> list[str]:
    """On how many classes an optimizer is ahead, and where most."""
    frame = table(manifest)
    parts = []
    for optimizer in manifest.rivals:
        each = []
        for task, group in frame[frame["optimizer"] == optimizer].groupby("task", sort=False):
            group = group[group["gain"].notna()]
            if group.empty:
                continue
            ahead, behind = int((group["gain"] > 0).sum()), int((group["gain"] < 0).sum())
            far = group.loc[group["gain"].abs().idxmax()]
            each.append(
                f"{task_titles(manifest)[task]} ahead on {ahead}, behind on {behind} of "
                f"{len(group)} (most: {far['class']} {signed(far['gain'], '%')})"
            )
        if each:
            parts.append(
                f"Class by class, {optimizer_title(optimizer)} against "
                f"{optimizer_title(manifest.baseline)}: {'; '.join(each)}."
            )
    return parts


def dots(manifest: Manifest, task: str, frame: pd.DataFrame) -> Figure:
    """The classes of a task from the baseline's best to its worst, a marker an optimizer.

    Args:
        frame: from :func:`table`.
    """
    color, marker = style.colors(manifest), style.markers(manifest)
    cells = frame[frame["task"] == task]
    wide = cells.pivot(index="class", columns="optimizer", values="mean")
    spread = cells.pivot(index="class", columns="optimizer", values="std")
    first = manifest.baseline if manifest.baseline in wide else None
    order = wide[first].sort_values(ascending=False, kind="stable").index if first else wide.index
    figure, axis = plt.subplots(figsize=(4.4, 0.9 + 0.145 * max(len(order), 3)))
    for optimizer in manifest.optimizers:
        if optimizer in wide:
            axis.errorbar(
                wide[optimizer].reindex(order), np.arange(len(order)) + style.dodge(
                    manifest, optimizer, 0.4
                ),
                xerr=spread[optimizer].reindex(order).fillna(0), fmt=marker[optimizer],
                color=color[optimizer], markersize=3.4, elinewidth=0.8,
            )  # fmt: skip
    axis.set_yticks(range(len(order)), order, fontsize=6.5)
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    low, high = axis.get_xlim()
    axis.set_xlim(max(low, -3), min(high, 103))  # a deviation may reach beyond what there is
    axis.set_xlabel("test accuracy (%)")
    axis.grid(axis="both")
    axis.set_axisbelow(True)
    style.legend(
        figure, style.optimizer_handles(manifest, line=False), title=task_titles(manifest)[task]
    )
    return figure


def confusion(manifest: Manifest, task: str, measured: dict[tuple[str, str], np.ndarray]) -> Figure:
    """A task's confusion matrices in gray, a panel an optimizer; rows are numbered and named.

    Of more than :data:`PANELS` optimizers: the baseline and those that recognize most.

    Args:
        measured: from :func:`matrices`.
    """
    mine = _shown(manifest, {o: measured[task, o] for t, o in measured if t == task})
    known = names(manifest, task)
    side = min(max(len(mine), 1), 2 if len(known) > 16 else 3)
    lines = -(-max(len(mine), 1) // side)
    height = max(2.0, 0.085 * len(known))
    figure, axes = plt.subplots(
        lines, side, squeeze=False, sharex=True, sharey=True,
        figsize=(style.WIDTH, 0.75 + (height + 0.35) * lines),
    )  # fmt: skip
    panels, spare = list(axes.flat)[: len(mine)], list(axes.flat)[len(mine) :]
    for axis in spare:
        axis.remove()
    image = None
    for axis, (optimizer, counts) in zip(panels, mine.items()):
        image = axis.imshow(_by_row(counts), cmap="Greys", vmin=0, vmax=1, aspect="auto",
                            interpolation="nearest")  # fmt: skip
        axis.set_title(optimizer_title(optimizer), loc="left")
        step = 1 if len(known) <= 16 else 5
        at = [i for i in range(len(known)) if (i + 1) % step == 0]
        axis.set_xticks(at, [str(i + 1) for i in at])
        axis.set_yticks(
            range(len(known)), [f"{name} {i}" for i, name in enumerate(known, start=1)],
            fontsize=7 if len(known) <= 16 else 5,
        )  # fmt: skip
        axis.tick_params(length=1.5)
        axis.spines[["top", "right"]].set_visible(True)
        axis.set_xlabel("taken for class")
    if image is not None:
        figure.colorbar(image, ax=panels, label="share of the class", shrink=0.8, pad=0.02)
    figure.suptitle(task_titles(manifest)[task], fontsize=8.5)
    return figure


def _shown(manifest: Manifest, mine: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The matrices of at most :data:`PANELS` optimizers, in the study's order."""
    others = [optimizer for optimizer in mine if optimizer != manifest.baseline]
    others.sort(key=lambda optimizer: np.trace(mine[optimizer]) / mine[optimizer].sum())
    kept = {manifest.baseline, *others[::-1][: PANELS - (manifest.baseline in mine)]} & set(mine)
    return {name: mine[name] for name in manifest.optimizers if name in kept}
