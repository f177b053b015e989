"""What each optimizer reached for the same cost: wall time, or multiplications of the training.

Read from the histories alone. Within a budget the test score is that of the epoch with the best
validation score so far, which is what one would have kept had the training ended there. Its
schedule would have been another one, which the comparison does not know.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from equiscape.report import load, style
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, interval, plus_minus, significant
from equiscape.report.tables import baseline, better_by, gain_intervals, over_seeds, with_task
from equiscape.report.text import diverged, join, markdown, task_title
from equiscape.report.titles import metric_title, optimizer_title, task_titles

COSTS = {"seconds": ("wall time", "s", 1.0), "products": ("products", "TFLOP", 1e12)}
"""Column of the history -> its title, its unit here, and how many of its own that is."""
LONGEST = 3.0
"""The axis of :func:`curves` ends at this many times the median cost of a cell, at most."""


def spent(manifest: Manifest, histories: pd.DataFrame, finals: pd.DataFrame) -> pd.DataFrame:
    """Per epoch and seed, what was spent so far and the score that one would have kept.

    Args:
        histories: from :func:`equiscape.report.load.histories`.
        finals: from :func:`equiscape.report.load.finals`.

    Returns:
        columns ``task, optimizer, seed, epoch, cost, spent, score``, one row an evaluated epoch and
        cost that its history has; none of cells that diverged.
    """
    directions = finals.drop_duplicates("task").set_index("task")["direction"]
    healthy = finals.loc[finals["status"] == "finished", ["task", "optimizer", "seed"]]
    frames = []
    cells = histories.merge(healthy.drop_duplicates(), on=["task", "optimizer", "seed"])
    for (task, *_), cell in cells.groupby(["task", "optimizer", "seed"], sort=False):
        cell = cell.sort_values("epoch").reset_index(drop=True)
        evaluated = cell["validation_score"].notna()
        sign = 1.0 if directions[task] == "max" else -1.0
        best = (sign * cell["validation_score"]).fillna(-np.inf).to_numpy()
        kept = [int(np.argmax(best[: i + 1])) for i in range(len(best))]
        score = cell["test_score"].to_numpy()[kept]
        for cost, (*_, unit) in COSTS.items():
            if cost not in cell or cell[cost].isna().all():
                continue
            frame = cell[["task", "optimizer", "seed", "epoch"]].copy()
            frame["cost"], frame["spent"], frame["score"] = cost, cell[cost].cumsum() / unit, score
            frames.append(frame[evaluated])
    columns = ["task", "optimizer", "seed", "epoch", "cost", "spent", "score"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def within(manifest: Manifest, finals: pd.DataFrame) -> pd.DataFrame:
    """The score of every seed at the largest budget that every optimizer used up.

    Columns: task, optimizer, seed, cost, budget (in the unit of :data:`COSTS`), direction, unit,
    metric, epoch (the last within it) and score, NaN for a seed without an epoch within it.
    """
    reached = spent(manifest, load.histories(manifest), finals)
    rows = []
    for (task, cost), group in reached.groupby(["task", "cost"], sort=False):
        budget = group.groupby(["optimizer", "seed"])["spent"].max().min()
        first = finals[finals["task"] == task].iloc[0]
        for optimizer in manifest.optimizers:
            for seed in manifest.seeds:
                cell = group[(group["optimizer"] == optimizer) & (group["seed"] == seed)]
                inside = cell[cell["spent"] <= budget * (1 + 1e-9)]
                rows.append(
                    {
                        "task": task,
                        "optimizer": optimizer,
                        "seed": seed,
                        "cost": cost,
                        "budget": budget,
                        "epoch": inside["epoch"].max() if len(inside) else np.nan,
                        "score": inside["score"].iloc[-1] if len(inside) else np.nan,
                        **first[["direction", "unit", "metric"]],
                    }
                )
    columns = ["task", "optimizer", "seed", "cost", "budget", "direction", "unit", "metric"]
    return pd.DataFrame(rows, columns=[*columns, "epoch", "score"])


def at_equal_loss(histories: pd.DataFrame, finals: pd.DataFrame) -> pd.DataFrame:
    """Test score of the first epoch at the lowest training loss that every cell came to."""
    keys = ["task", "optimizer", "seed"]
    finished = finals.loc[finals["score"].notna(), keys].drop_duplicates()
    cells = histories.merge(finished, on=keys).dropna(subset=["train_loss", "test_score"])
    lowest = cells.groupby(keys, sort=False)["train_loss"].min().groupby("task").max()
    rows = []
    for values, cell in cells.groupby(keys, sort=False):
        reached = cell.sort_values("epoch")
        reached = reached[reached["train_loss"] <= lowest[values[0]]]
        rows.append((*values, reached["test_score"].iloc[0]))
    return pd.DataFrame(rows, columns=[*keys, "equal_loss_score"])


def table(manifest: Manifest) -> pd.DataFrame:
    """Test score at the largest budget that every optimizer used up, one row each.

    Columns: task, architecture, dataset, optimizer, cost, budget (in the unit of :data:`COSTS`),
    epochs (mean number within it), seeds, diverged, unreached (seeds without an epoch within it),
    mean, std, direction, unit, metric, gain, gain_low, gain_high (95 %, Welch).
    """
    finals = load.finals(manifest, None)
    frame = within(manifest, finals)
    keys = ["task", "optimizer", "cost", "budget", "direction", "unit", "metric"]
    epochs = frame.groupby(keys, sort=False)["epoch"].mean().reset_index(name="epochs")
    found = with_task(manifest, over_seeds(frame, keys, "score").merge(epochs, on=keys))
    bad = finals[finals["status"] != "finished"].drop_duplicates(["task", "optimizer", "seed"])
    bad = bad.groupby(["task", "optimizer"]).size()
    cells = zip(found["task"], found["optimizer"])
    found["unreached"] = found["diverged"]
    found["diverged"] = [int(bad.get(cell, 0)) for cell in cells]
    found["unreached"] -= found["diverged"]
    base = baseline(manifest, found, ["task", "cost"], "mean")
    found["gain"] = better_by(found["mean"], base, found["direction"])
    ends = gain_intervals(manifest, frame, found, ["task", "cost"])
    found["gain_low"], found["gain_high"] = ends
    return found


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown."""
    rows = []
    for _, row in frame.iterrows():
        title, unit, _ = COSTS[row["cost"]]
        rows.append(
            {
                "task": task_title(manifest, row),
                "equal": f"{title}, {significant(row['budget'], 3)} {unit}",
                "optimizer": optimizer_title(row["optimizer"]),
                "epochs": significant(row["epochs"], 3),
                "metric": metric_title(row["metric"], row["unit"]),
                "seeds": row["seeds"] - row["diverged"] - row["unreached"],
                "test score": plus_minus(row["mean"], row["std"], row["unit"]),
                "gain": DASH
                if row["optimizer"] == manifest.baseline
                else interval(row["gain"], row["gain_low"], row["gain_high"], row["unit"]),
            }
        )
    made = pd.DataFrame(rows)
    parts = [
        "# Scores at equal cost",
        "Test score of the best validation epoch within a budget: the most that every optimizer "
        f"used up. Mean ± sample standard deviation over seeds; gain over "
        f"{optimizer_title(manifest.baseline)} with the 95 % interval of Welch's t, "
        "positive where better. *Wall time* is of the "
        "machine that each cell ran on, evaluation included. *Products* are the multiplications "
        "and additions of the training's matrix products, the optimizer's own included; they are "
        "there where `training.recorders` lists `products`. A training that is cut off has not "
        "run its schedule to the end; a seed without a whole epoch in the budget has no score.",
    ]
    if rows:
        parts.append(markdown(made, {c: c for c in made}))
    return join([*parts, *diverged(frame)])


def curves(manifest: Manifest, reached: pd.DataFrame, finals: pd.DataFrame) -> Figure:
    """The score that one would have kept against what was spent: thin seeds, thick their median.

    Args:
        reached: from :func:`spent`.
        finals: gives the metrics' names and units.
    """
    color, marker = style.colors(manifest), style.markers(manifest)
    names = task_titles(manifest)
    costs = [cost for cost in COSTS if (reached["cost"] == cost).any()] or ["seconds"]
    metrics = finals.drop_duplicates("task").set_index("task")
    places = [(task, cost) for task in manifest.tasks for cost in costs]
    figure, axes = style.panels(len(places))
    for axis, (task, cost) in zip(axes, places):
        title, unit, _ = COSTS[cost]
        for optimizer in manifest.optimizers:
            chosen = (reached["task"] == task) & (reached["optimizer"] == optimizer)
            cells = reached[chosen & (reached["cost"] == cost)]
            for _, seed in cells.groupby("seed"):
                axis.plot(seed["spent"], seed["score"], color=color[optimizer], alpha=0.3, lw=0.7)
            middle = cells.groupby("epoch")[["spent", "score"]].median()
            axis.plot(
                middle["spent"], middle["score"], color=color[optimizer],
                marker=marker[optimizer], markersize=3.2, markevery=max(1, len(middle) // 8),
            )  # fmt: skip
        metric = metric_title(*metrics.loc[task, ["metric", "unit"]])
        axis.set_title(f"{names[task]}\ntest {metric}", loc="left", fontsize=7.5)
        axis.set_xlabel(f"{title} ({unit})")
        cells = reached[(reached["task"] == task) & (reached["cost"] == cost)]
        ends = cells.groupby(["optimizer", "seed"])["spent"].max()
        # a cell that the machine let wait for an hour must not squeeze the others
        axis.set_xlim(0, min(ends.max(), LONGEST * ends.median()) * 1.03 if len(ends) else None)
        axis.grid(axis="y")
    style.legend(figure, style.optimizer_handles(manifest))
    return figure
