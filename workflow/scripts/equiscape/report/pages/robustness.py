"""Accuracy on corrupted test clouds."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equiscape.errors import DataError
from equiscape.report import statistics, style, titles
from equiscape.report.comparisons import Comparison, of_scores
from equiscape.report.load import read_csv
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, interval, plus_minus
from equiscape.report.page import Page
from equiscape.report.tables import baseline, over_seeds, published, with_task
from equiscape.report.text import elsewhere, gain, join, markdown, task_title
from equiscape.report.titles import optimizer_title, task_titles

PAGE = Page(
    title="Does the gain survive corrupted clouds?",
    category="Robustness",
    reads=("metrics", "robustness"),
    tables={
        "robustness": "Accuracy on corrupted test clouds, mean over corruptions and severities.",
    },
    figures={
        "robustness": (
            "Accuracy of the final seeds under every corruption, mean over severities, ± "
            "sample standard deviation over seeds; clean test accuracy on top."
        ),
        "robustness_severity": (
            "Gain over the baseline at every severity in percentage points: each corruption "
            "thin, their mean thick with the standard error over seeds."
        ),
    },
    tasks="robust",
)

COLUMNS = ("task", "optimizer", "seed", "corruption", "severity", "accuracy")


def load(manifest: Manifest) -> pd.DataFrame:
    """Accuracy of every final seed on every corruption and severity."""
    products = manifest.analysis("robustness")
    frames = [read_csv(product.path, ("task", "optimizer")) for product in products]
    measured = [product for product, frame in zip(products, frames) if len(frame)]
    frames = [read_csv(product.path, COLUMNS) for product in measured]  # empty where all diverged
    if not frames:
        raise DataError(
            "no task of this study has corrupted test clouds; "
            "give its data set a `corruptions` entry in the configuration."
        )
    return pd.concat(frames, ignore_index=True)


def table(manifest: Manifest) -> pd.DataFrame:
    """Accuracy on corrupted test clouds: one row per task and optimizer.

    First the mean over corruptions and severities of each seed, then mean and std over seeds, as in
    the publication. ``corruptions`` counts those in the mean: the published figure covers all 15,
    and stands only beside a result on the published arrays.
    """
    cells = load(manifest)
    counts = cells.groupby(["task", "optimizer"], sort=False)[["corruption", "severity"]].nunique()
    seeds = cells.groupby(["task", "optimizer", "seed"], sort=False)["accuracy"].mean()
    frame = over_seeds(seeds.reset_index(), ["task", "optimizer"], "accuracy")
    frame["corruptions"], frame["severities"] = counts.to_numpy().T
    frame = with_task(manifest, frame)
    frame["gain"] = frame["mean"] - baseline(manifest, frame, ["task"], "mean")
    samples = {key: group.to_numpy() for key, group in seeds.groupby(["task", "optimizer"])}
    found = [
        statistics.welch(samples.get((task, manifest.baseline), []), samples[task, optimizer])
        for task, optimizer in zip(frame["task"], frame["optimizer"])
    ]
    own = frame["optimizer"] == manifest.baseline
    frame["gain_low"] = np.where(own, np.nan, [estimate.low for estimate in found])
    frame["gain_high"] = np.where(own, np.nan, [estimate.high for estimate in found])
    arrays = frame["task"].map(lambda task: manifest.tasks[task]["corruptions"] == "published")
    frame["arrays"] = np.where(arrays, "published", "generated")
    beside = published(manifest, "robustness", frame, {"mean": "mean", "std": "std"})
    frame = pd.concat([frame, beside.where(arrays)], axis=1)
    base = baseline(manifest, frame, ["task"], "published_mean")
    frame["published_gain"] = frame["published_mean"] - base
    return frame


def comparisons(manifest: Manifest) -> list[Comparison]:
    """Every optimizer against the baseline, by its seeds' accuracy on corrupted clouds."""
    cells = load(manifest)
    seeds = cells.groupby(["task", "optimizer", "seed"])["accuracy"].mean()
    return [
        comparison
        for task in manifest.only("robustness").robust_tasks
        for optimizer in manifest.rivals
        if (task, manifest.baseline) in seeds.index and (task, optimizer) in seeds.index
        for comparison in of_scores(
            "corrupted accuracy", task, optimizer, "%", seeds[task, manifest.baseline],
            seeds[task, optimizer],
        )
    ]  # fmt: skip


def highlights(manifest: Manifest) -> list[str]:
    """Who is ahead on corrupted clouds."""
    frame = table(manifest)
    names = task_titles(manifest)
    parts = []
    for optimizer in manifest.rivals:
        rows = frame[(frame["optimizer"] == optimizer) & frame["gain"].notna()]
        if len(rows):
            each = "; ".join(
                f"{names[row['task']]} "
                + interval(row["gain"], row["gain_low"], row["gain_high"], "%")
                for _, row in rows.iterrows()
            )
            parts.append(
                f"On corrupted clouds {optimizer_title(optimizer)} is ahead on "
                f"{(rows['gain'] > 0).sum()} of {len(rows)} tasks (points of accuracy): {each}."
            )
    return parts


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown."""
    rows = [
        {
            "task": task_title(manifest, row),
            "data": f"{titles.dataset_title(row['dataset'])}, {row['arrays']} corruptions",
            "optimizer": titles.optimizer_title(row["optimizer"]),
            "corruptions × severities": f"{row['corruptions']} × {row['severities']}",
            "seeds": row["seeds"],
            "corrupted accuracy, %": plus_minus(row["mean"], row["std"], "%"),
            "gain": DASH
            if row["optimizer"] == manifest.baseline
            else interval(row["gain"], row["gain_low"], row["gain_high"], "%"),
            "published": plus_minus(row["published_mean"], row["published_std"], "%"),
            "published gain": gain(manifest, row, "%", "published_gain"),
        }
        for _, row in frame.iterrows()
    ]
    table = pd.DataFrame(rows)
    if not table["published"].ne(DASH).any():
        table = table.drop(columns=["published", "published gain"])
    parts = [
        "# Accuracy on corrupted test clouds",
        "Mean over corruptions and severities of each final seed (at its best validation epoch), "
        "then mean ± sample standard deviation over seeds; gains with the 95 % interval of Welch's "
        "t. The corrupted clouds are a set of their own, not the clean test clouds one by one, so "
        "a difference between the two is not one of matched samples.",
        markdown(table, {c: c for c in table}),
        *elsewhere(manifest, "robustness", frame),
    ]
    return join(parts)


TABLES = {"robustness": (table, text)}


def corruptions(manifest: Manifest, cells: pd.DataFrame, finals: pd.DataFrame) -> Figure:
    """Accuracy under every corruption, mean over severities, with the spread over seeds.

    Corruptions are sorted by their accuracy under all optimizers of all tasks, so that the rows of
    every panel are the same; the clean test accuracy stands on top.

    Args:
        cells: from :func:`load`.
        finals: from :func:`equiscape.report.load.finals`.
    """
    color, marker = style.colors(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    tasks = manifest.only("robustness").robust_tasks
    clean = finals[finals["protocol"] == "best_validation"]
    order = cells.groupby("corruption")["accuracy"].mean().sort_values(ascending=False).index
    names = ["clean", *order]
    figure, axes = style.panels(
        len(tasks),
        height=0.5 + 0.15 * len(names),
        sharey=len(tasks) <= style.side_by_side(len(tasks)),
        first=1.35,
    )
    for axis, task in zip(axes, tasks):
        for i, optimizer in enumerate(manifest.optimizers):
            mine = cells[(cells["task"] == task) & (cells["optimizer"] == optimizer)]
            seeds = mine.groupby(["corruption", "seed"])["accuracy"].mean().groupby("corruption")
            test = clean[(clean["task"] == task) & (clean["optimizer"] == optimizer)]["score"]
            mean = np.concatenate([[test.mean()], seeds.mean().reindex(order)])
            std = np.nan_to_num(np.concatenate([[test.std()], seeds.std().reindex(order)]))
            y = np.arange(len(names)) + (i - (len(manifest.optimizers) - 1) / 2) * 0.16
            axis.errorbar(
                mean, y, xerr=std, fmt=marker[optimizer], color=color[optimizer], markersize=3.6,
                elinewidth=0.8, capsize=0,
            )  # fmt: skip
        axis.axhline(0.5, color="#BBBBBB", linewidth=0.7)
        axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
        axis.set_title(titles[task], loc="left")
        axis.grid(axis="both")
        axis.set_axisbelow(True)
    style.label_outer(axes, "test accuracy (%)", "")
    style.legend(figure, style.optimizer_handles(manifest, line=False))
    return figure


def severity(manifest: Manifest, cells: pd.DataFrame) -> Figure:
    """Gain over the baseline at every severity: each corruption thin, their mean thick.

    Gains are differences of means over seeds, in percentage points; the bar at the mean is the
    standard error over seeds of both optimizers.
    """
    color, marker = style.colors(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    tasks = manifest.only("robustness").robust_tasks
    rivals = [name for name in manifest.optimizers if name != manifest.baseline]
    figure, axes = style.panels(len(tasks), sharey=True)
    each = cells.groupby(["task", "optimizer", "corruption", "severity"])["accuracy"].mean()
    seeds = cells.groupby(["task", "optimizer", "severity", "seed"])["accuracy"].mean()
    level = seeds.groupby(["task", "optimizer", "severity"])
    mean, error = level.mean(), level.std() / np.sqrt(level.count())
    for axis, task in zip(axes, tasks):
        for optimizer in rivals:
            thin = (each[task, optimizer] - each[task, manifest.baseline]).unstack("severity")
            axis.plot(thin.columns, thin.T, color=color[optimizer], alpha=0.28, linewidth=0.6)
            gain = mean[task, optimizer] - mean[task, manifest.baseline]
            spread = np.hypot(error[task, optimizer], error[task, manifest.baseline]).fillna(0)
            axis.errorbar(
                gain.index, gain, yerr=spread, color=color[optimizer], marker=marker[optimizer],
                linewidth=1.8, capsize=2, elinewidth=1,
            )  # fmt: skip
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xticks(sorted(cells["severity"].unique()))
        axis.set_title(titles[task], loc="left")
        axis.grid(axis="y")
    base = optimizer_title(manifest.baseline)
    style.label_outer(axes, "severity", f"gain over {base}\n(percentage points)")
    handles = style.optimizer_handles(manifest, rivals) if rivals else []
    handles.append(
        Line2D([], [], color=style.GRAY, alpha=0.5, linewidth=0.6, label="one corruption")
    )
    style.legend(figure, handles)
    return figure
