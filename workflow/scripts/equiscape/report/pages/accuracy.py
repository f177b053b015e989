"""Test scores of the final seeds, and the grid that chose their settings."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equiscape.report import load, style, titles
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, plus_minus
from equiscape.report.page import Page
from equiscape.report.tables import baseline, better_by, over_seeds, published, with_task
from equiscape.report.text import diverged, elsewhere, gain, join, markdown, task_title
from equiscape.report.titles import dataset_title, metric_title, task_titles

PAGE = Page(
    title="Does the optimizer change the test score?",
    category="Accuracy",
    reads=("metrics", "selection"),
    tables={
        "accuracy": (
            "Test scores of the final seeds under three protocols, with gains over the baseline."
        ),
    },
    figures={
        "accuracy": (
            "Test scores of the final seeds at the best validation epoch: every seed, and "
            "mean ± sample standard deviation. “↓” marks scores where lower is better, a "
            "cross an optimizer of which a seed diverged, an open diamond a published "
            "figure."
        ),
        "selection": (
            "Validation score of every grid cell over the learning rate, a line for each "
            "weight decay; the ring is the chosen setting."
        ),
    },
)

BEST = ("best_validation", "best_test")
"""The protocols that the published "best checkpoint" may mean."""


def table(manifest: Manifest) -> pd.DataFrame:
    """Test scores: one row a task, optimizer and protocol.

    Columns: task, architecture, dataset, optimizer, lr, wd, metric, unit, direction, protocol,
    seeds, diverged, mean, std, gain, relative_gain (in percent of the baseline), published_mean,
    published_std, published_gain. Mean and std are over the seeds that did not diverge.
    """
    keys = ["task", "optimizer", "lr", "wd", "metric", "unit", "direction", "protocol"]
    frame = over_seeds(load.finals(manifest), keys, "score")
    frame = with_task(manifest, frame)
    base = baseline(manifest, frame, ["task", "protocol"], "mean")
    frame["gain"] = better_by(frame["mean"], base, frame["direction"])
    frame["relative_gain"] = 100 * frame["gain"] / base.abs()
    beside = published(manifest, "accuracy", frame, {"mean": "mean", "std": "std"})
    beside = beside.where(frame["protocol"].isin(BEST))
    frame = pd.concat([frame, beside], axis=1)
    base = baseline(manifest, frame, ["task", "protocol"], "published_mean")
    frame["published_gain"] = better_by(frame["published_mean"], base, frame["direction"])
    return frame


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table of test scores as Markdown, the three protocols side by side."""
    wide = _protocols(manifest, frame)
    published = wide["published"].ne(DASH).any()
    columns = {
        "task": "task",
        "dataset": "data",
        "optimizer": "optimizer",
        "setting": "lr, wd",
        "metric": "metric",
        "seeds": "seeds",
        **titles.PROTOCOLS,
        "gain": "gain",
    }
    if published:
        columns |= {"published": "published", "published_gain": "published gain"}
    base = titles.optimizer_title(manifest.baseline)
    parts = [
        "# Test scores",
        f"Mean ± sample standard deviation over final seeds; gain over {base} at the best "
        "validation epoch, positive where better (percentage points for accuracy).",
        "*Best validation epoch* is the honest protocol. *Best test epoch* chooses on the test "
        "set, so it flatters; it is here because the publication does not say which one its "
        '"best checkpoint" means.',
        markdown(wide, columns),
        *diverged(frame[frame["protocol"] == "best_validation"]),
        *elsewhere(manifest, "accuracy", frame),
    ]
    return join(parts)


def console(manifest: Manifest) -> str:
    """The test scores at the best validation epoch, for a terminal of 100 columns."""
    from tabulate import tabulate

    frame = table(manifest)
    wide = _protocols(manifest, frame)
    columns = {
        "task": "task",
        "dataset": "data",
        "optimizer": "optimizer",
        "setting": "lr, wd",
        "metric": "metric",
        "best_validation": "test score",
        "gain": "gain",
    }
    if wide["published"].ne(DASH).any():
        columns["published"] = "published"
    base = titles.optimizer_title(manifest.baseline)
    shown = wide[list(columns)].rename(columns=columns)
    note = (
        f"Test score at the best validation epoch, mean ± std of {len(manifest.seeds)} final "
        f"seed{'s' if len(manifest.seeds) > 1 else ''}; gain over {base}."
    )
    lines = [
        tabulate(shown, headers="keys", showindex=False, tablefmt="simple", disable_numparse=True),
        note,
        *diverged(frame[frame["protocol"] == "best_validation"]),
    ]
    return "\n".join(lines)


def _protocols(manifest: Manifest, frame: pd.DataFrame) -> pd.DataFrame:
    """One row a task and optimizer, the protocols' scores as text in columns."""
    rows = []
    for _, group in frame.groupby(["task", "optimizer"], sort=False):
        cells = group.set_index("protocol")
        best = cells.loc["best_validation"]
        unit = best["unit"]
        diverged = f" ({best['diverged']} diverged)" if best["diverged"] else ""
        row = {
            "task": task_title(manifest, best),
            "dataset": titles.dataset_title(best["dataset"]),
            "optimizer": titles.optimizer_title(best["optimizer"]),
            "setting": f"{best['lr']}, {best['wd']}",
            "metric": titles.metric_title(best["metric"], unit),
            "seeds": f"{best['seeds']}{diverged}",
            "gain": gain(manifest, best, unit),
            "published": plus_minus(best["published_mean"], best["published_std"], unit),
            "published_gain": gain(manifest, best, unit, "published_gain"),
        }
        for protocol in titles.PROTOCOLS:
            cell = cells.loc[protocol]
            row[protocol] = plus_minus(cell["mean"], cell["std"], unit)
        if best["diverged"] == best["seeds"]:
            row |= dict.fromkeys(titles.PROTOCOLS, "diverged")
        rows.append(row)
    return pd.DataFrame(rows)


TABLES = {"accuracy": (table, text)}


SLOTS = 5.5
"""Room in one row: a task takes 1, the axis that tasks share LABEL more."""
LABEL = 0.6


def scores(
    manifest: Manifest,
    finals: pd.DataFrame,
    table: pd.DataFrame,
    protocol: str = "best_validation",
) -> Figure:
    """Every seed as a point, mean and standard deviation beside, one axis a data set and unit.

    Args:
        finals: from :func:`equiscape.report.load.finals`.
        table: from :func:`table`; gives means and published figures.
    """
    finals = finals[finals["protocol"] == protocol]
    table = table[table["protocol"] == protocol]
    groups = _groups(manifest, table)
    rows = _pack([len(tasks) for _, tasks in groups])
    widest = max(sum(len(groups[i][1]) for i in row) for row in rows)
    width = float(np.clip(0.9 + 1.25 * widest, 3.4, style.WIDTH))
    figure = plt.figure(figsize=(width, 0.45 + 2.35 * len(rows)))
    outer = figure.add_gridspec(len(rows), 1)
    for place, row in enumerate(rows):
        sizes = [len(groups[i][1]) for i in row]
        missing = widest - sum(sizes)  # an empty stretch keeps the columns of all rows equal
        inner = outer[place].subgridspec(
            1, len(row) + bool(missing), width_ratios=sizes + [missing] * bool(missing)
        )
        for column, index in enumerate(row):
            (dataset, metric, unit, direction), tasks = groups[index]
            axis = figure.add_subplot(inner[column])
            _scores(manifest, axis, finals, table, tasks)
            arrow = "" if direction == "max" else " ↓"  # lower is better
            axis.set_ylabel(f"test {metric_title(metric, unit)}{arrow}")
            axis.set_title(dataset_title(dataset), loc="left")
    handles = [
        *style.optimizer_handles(manifest, line=False),
        Line2D([], [], color=style.GREY, marker="_", markersize=9, linestyle="none",
               markeredgewidth=1.6, label="mean ± std"),
    ]  # fmt: skip
    if table["published_mean"].notna().any():
        handles.append(_published_handle())
    if table["diverged"].any():
        handles.append(
            Line2D([], [], color="black", marker="x", linestyle="none", label="diverged seed")
        )
    style.legend(figure, handles)
    return figure


def _scores(
    manifest: Manifest, axis: Axes, finals: pd.DataFrame, table: pd.DataFrame, tasks: list[str]
) -> None:
    color, marker = style.colors(manifest), style.markers(manifest)
    names = list(manifest.optimizers)
    step = 0.8 / len(names)
    bad = []
    for at, task in enumerate(tasks):
        for i, optimizer in enumerate(names):
            x = at + (i - (len(names) - 1) / 2) * step
            cells = finals[(finals["task"] == task) & (finals["optimizer"] == optimizer)]
            seeds = cells["score"].dropna().to_numpy()
            row = table[(table["task"] == task) & (table["optimizer"] == optimizer)].iloc[0]
            spread = np.linspace(-0.13, 0.13, len(seeds)) * step if len(seeds) > 1 else [0.0]
            axis.plot(
                x - 0.16 * step + np.asarray(spread[: len(seeds)]),
                seeds, marker[optimizer], color=color[optimizer], alpha=0.55, markersize=3.6,
                markeredgewidth=0,
            )  # fmt: skip
            axis.errorbar(
                x + 0.17 * step, row["mean"], yerr=np.nan_to_num(row["std"]), fmt="_",
                color=color[optimizer], markersize=8, markeredgewidth=1.8, capsize=2.2,
                elinewidth=1.1,
            )  # fmt: skip
            if np.isfinite(row["published_mean"]):
                axis.errorbar(
                    x + 0.38 * step, row["published_mean"], yerr=row["published_std"], fmt="D",
                    color=color[optimizer], markerfacecolor="white", markersize=3.8, capsize=1.6,
                    elinewidth=0.7, markeredgewidth=0.9,
                )  # fmt: skip
            bad += [x] * int(row["diverged"] > 0)
    if bad:  # at the bottom of the axis, since they have no score
        axis.plot(bad, [0.02] * len(bad), "x", color="black", markersize=4.5,
                  transform=axis.get_xaxis_transform(), clip_on=False)  # fmt: skip
    titles = task_titles(manifest)
    axis.set_xticks(range(len(tasks)), [_wrap(titles[task]) for task in tasks])
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(-0.55, len(tasks) - 0.45)
    axis.margins(y=0.1)
    axis.grid(axis="y")
    axis.set_axisbelow(True)


def selection(manifest: Manifest, grid: pd.DataFrame) -> Figure:
    """Validation score over the learning rate, a line for each weight decay; the choice ringed.

    Args:
        grid: from :func:`equiscape.report.load.selections`.
    """
    color, marker = style.colors(manifest), style.markers(manifest)
    decays = sorted(grid["wd"].unique(), key=float)
    dashes = dict(zip(decays, [style.DASHES[i % len(style.DASHES)] for i in range(len(decays))]))
    figure, axes = style.panels(len(manifest.tasks))
    titles = task_titles(manifest)
    for axis, task in zip(axes, manifest.tasks):
        for optimizer in manifest.optimizers:
            cells = grid[(grid["task"] == task) & (grid["optimizer"] == optimizer)]
            for decay, line in cells.groupby("wd", sort=False):
                mean = line.assign(rate=line["lr"].astype(float)).groupby("rate")
                mean = mean["validation_score"].mean()
                axis.plot(
                    mean.index, mean, linestyle=dashes[decay], color=color[optimizer],
                    marker=marker[optimizer], markersize=3.2, linewidth=1.1, alpha=0.9,
                )  # fmt: skip
            chosen = cells[cells["chosen"]]
            axis.plot(
                float(chosen["lr"].iloc[0]), chosen["validation_score"].mean(), "o", markersize=9,
                markerfacecolor="none", markeredgecolor=color[optimizer], markeredgewidth=1.3,
            )  # fmt: skip
            bad = cells.loc[cells["status"] == "diverged", "lr"].astype(float).unique()
            offset = 0.03 + 0.06 * list(manifest.optimizers).index(optimizer)
            if len(bad):  # an empty artist that is not clipped breaks the layout
                axis.plot(bad, [offset] * len(bad), "x", color=color[optimizer], markersize=4.5,
                          transform=axis.get_xaxis_transform(), clip_on=False)  # fmt: skip
        axis.margins(x=0.1, y=0.16)
        axis.set_xscale("log")
        rates = sorted(grid.loc[grid["task"] == task, "lr"].unique(), key=float)
        axis.set_xticks([float(rate) for rate in rates], rates)
        axis.minorticks_off()
        axis.set_title(titles[task], loc="left")
        axis.set_xlabel("learning rate")
        axis.grid(axis="y")
    for axis in style.leftmost(axes):
        axis.set_ylabel("validation score")
    handles = style.optimizer_handles(manifest)
    handles += [
        Line2D([], [], color=style.GREY, linestyle=dashes[decay], label=f"weight decay {decay}")
        for decay in decays
    ]
    handles.append(
        Line2D([], [], color=style.GREY, marker="o", markersize=9, markerfacecolor="none",
               linestyle="none", label="chosen")
    )  # fmt: skip
    if (grid["status"] == "diverged").any():
        handles.append(
            Line2D([], [], color=style.GREY, marker="x", linestyle="none", label="diverged")
        )
    style.legend(figure, handles)
    return figure


def _groups(manifest: Manifest, table: pd.DataFrame) -> list[tuple[tuple, list[str]]]:
    """Tasks that share data set, metric, unit and direction, in the order of the study."""
    keys = ["dataset", "metric", "unit", "direction"]
    first = table.drop_duplicates("task").fillna({"unit": ""})
    return [(key, list(rows["task"])) for key, rows in first.groupby(keys, sort=False)]


def _pack(sizes: list[int]) -> list[list[int]]:
    """Indices of ``sizes`` in rows that have room for them; a large one has a row to itself."""
    rows: list[list[int]] = []
    room = 0.0
    for index, size in enumerate(sizes):
        if size + LABEL > room or not rows:
            rows.append([])
            room = SLOTS
        rows[-1].append(index)
        room -= size + LABEL
    return rows


def _wrap(title: str) -> str:
    """A long title on two lines, broken at its first space."""
    return title.replace(" ", "\n", 1) if len(title) > 11 else title


def _published_handle() -> Line2D:
    return Line2D(
        [], [], color=style.GREY, marker="D", markerfacecolor="white", markersize=3.8,
        linestyle="none", label="published, mean ± std",
    )  # fmt: skip
