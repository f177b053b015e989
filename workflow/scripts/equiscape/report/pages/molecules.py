"""Molecular and graph tasks, whose scores differ in unit and direction."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from equiscape.report import style, titles
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, percent, plus_minus, significant
from equiscape.report.page import Page
from equiscape.report.pages import accuracy
from equiscape.report.tables import baseline, published
from equiscape.report.text import STAND_IN, diverged, join, markdown, task_title
from equiscape.report.titles import task_titles

PAGE = Page(
    title="Molecules and graphs",
    category="Molecules",
    reads=("metrics",),
    tables={
        "molecules": "Test scores of molecular and graph tasks at the best validation epoch.",
    },
    figures={
        "molecules": (
            "Gain over the baseline of every molecular or graph task in percent of its score, "
            "positive where better, with the 95 % interval of Welch's t over seeds."
        ),
    },
    tasks="molecular",
)


def table(manifest: Manifest) -> pd.DataFrame:
    """Molecular and graph tasks: one row per task and optimizer, at the best validation epoch.

    Columns as in :func:`accuracy`, with ``target`` and ``change`` (in percent of the baseline,
    negative where a lower-is-better score fell) and ``win`` (strictly better than the baseline).
    """
    frame = accuracy.table(manifest)
    chosen = frame["task"].isin(manifest.molecular_tasks) & (frame["protocol"] == "best_validation")
    frame = frame[chosen].reset_index(drop=True)
    frame = frame.drop(columns=["published_mean", "published_std", "published_gain"])
    targets = frame["task"].map(lambda task: manifest.tasks[task].get("target"))
    frame.insert(3, "target", targets)
    base = baseline(manifest, frame, ["task"], "mean")
    frame["change"] = 100 * (frame["mean"] - base) / base.abs()
    frame["win"] = (frame["gain"] > 0).where(frame["optimizer"] != manifest.baseline)
    beside = published(manifest, "molecules", frame, {"mean": "mean"}, ["target"])
    return pd.concat([frame, beside], axis=1)


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown: for every data set, tasks against optimizers."""
    base = titles.optimizer_title(manifest.baseline)
    parts = [
        "# Molecules and graphs",
        f"Test scores at the best validation epoch, mean ± sample standard deviation over final "
        f"seeds; in brackets the change against {base}. A win is a strictly better mean.",
    ]
    for dataset, group in frame.groupby("dataset", sort=False):
        parts.append(f"## {titles.dataset_title(dataset)}")
        rows = []
        for _, cells in group.groupby("task", sort=False):
            first = cells.iloc[0]
            arrow = {"max": "higher is better", "min": "lower is better"}[first["direction"]]
            metric = titles.metric_title(first["metric"], first["unit"])
            row = {"task": task_title(manifest, first), "metric": f"{metric}, {arrow}"}
            for _, cell in cells.iterrows():
                score = plus_minus(cell["mean"], cell["std"], cell["unit"])
                if cell["optimizer"] != manifest.baseline:
                    score += f" ({percent(cell['change'])})"
                row[titles.optimizer_title(cell["optimizer"])] = score
                if cell["published_mean"] == cell["published_mean"]:
                    name = f"{titles.optimizer_title(cell['optimizer'])}, published"
                    row[name] = significant(cell["published_mean"])
            rows.append(row)
        table = pd.DataFrame(rows).fillna(DASH)
        parts.append(markdown(table, {c: c for c in table}))
        rivals = group[group["optimizer"] != manifest.baseline]
        for optimizer, cells in rivals.groupby("optimizer", sort=False):
            name = titles.optimizer_title(optimizer)
            parts.append(f"{name} wins {int(cells['win'].sum())} of {len(cells)}.")
        parts += diverged(group)
    return join([*parts, STAND_IN])


TABLES = {"molecules": (table, text)}


def gains(manifest: Manifest, table: pd.DataFrame) -> Figure:
    """Relative gain over the baseline of every molecular task, in percent.

    Args:
        table: from :func:`table`.
    """
    color, marker = style.colors(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    tasks = list(dict.fromkeys(table["task"]))
    rivals = [name for name in manifest.optimizers if name != manifest.baseline]
    row = max(0.22, 0.14 * len(rivals))
    figure, axis = style.single(0.9 + row * max(len(tasks), 3))
    base = table[table["optimizer"] == manifest.baseline].set_index("task")["mean"]
    for optimizer in rivals:
        rows = table[table["optimizer"] == optimizer].set_index("task").loc[tasks]
        scale = 100 / base.loc[tasks].abs()
        ends = [
            ((rows["gain"] - rows["gain_low"]) * scale).fillna(0),
            ((rows["gain_high"] - rows["gain"]) * scale).fillna(0),
        ]
        y = np.arange(len(tasks)) + style.dodge(manifest, optimizer)
        axis.errorbar(
            rows["relative_gain"], y, xerr=ends, fmt=marker[optimizer], color=color[optimizer],
            capsize=2, elinewidth=1, markersize=4,
        )  # fmt: skip
    axis.axvline(0, color=style.GRAY, linewidth=0.8)
    axis.set_yticks(range(len(tasks)), [titles[task] for task in tasks])
    axis.set_ylim(len(tasks) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")
    axis.set_xlabel(f"gain over {style.optimizer_title(manifest.baseline)}, %")
    if rivals:
        style.legend(figure, style.optimizer_handles(manifest, rivals, line=False))
    return figure
