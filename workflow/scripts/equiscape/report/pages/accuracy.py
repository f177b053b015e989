"""Test scores of the final seeds."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from equiscape.report import load, more_metrics, style, titles
from equiscape.report.comparisons import Comparison, of_scores
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, interval, plus_minus, signed
from equiscape.report.page import Page
from equiscape.report.tables import (
    baseline,
    better_by,
    gain_intervals,
    over_seeds,
    published,
    with_task,
)
from equiscape.report.text import diverged, elsewhere, gain, join, markdown, task_title
from equiscape.report.titles import metric_title, optimizer_title, short_title, task_titles

PAGE = Page(
    title="Does the optimizer change the test score?",
    category="Accuracy",
    reads=("metrics",),
    tables={
        "accuracy": (
            "Test scores of the final seeds under three protocols, with gains over the baseline."
        ),
        "metrics": "Further metrics of the test split, such as mean class accuracy.",
    },
    figures={
        "accuracy": (
            "Test scores of the final seeds at the best validation epoch: every seed, and "
            "mean ± sample standard deviation. “↓” marks scores where lower is better, a "
            "cross an optimizer of which a seed diverged, an open diamond a published "
            "figure."
        ),
    },
)

BEST = ("best_validation", "best_test")
"""The protocols that the published "best checkpoint" may mean."""


def table(manifest: Manifest) -> pd.DataFrame:
    """Test scores: one row per task, optimizer and protocol.

    Columns: task, architecture, dataset, optimizer, lr, wd, metric, unit, direction, protocol,
    seeds, diverged, mean, std, gain, gain_low, gain_high (95 %, Welch), relative_gain (in percent
    of the baseline), published_mean, published_std, published_gain. Mean and std are over the
    seeds that did not diverge.
    """
    keys = ["task", "optimizer", "lr", "wd", "metric", "unit", "direction", "protocol"]
    finals = load.finals(manifest)
    frame = over_seeds(finals, keys, "score")
    frame = with_task(manifest, frame)
    base = baseline(manifest, frame, ["task", "protocol"], "mean")
    frame["gain"] = better_by(frame["mean"], base, frame["direction"])
    frame["gain_low"], frame["gain_high"] = gain_intervals(
        manifest, finals, frame, ["task", "protocol"]
    )
    frame["relative_gain"] = 100 * frame["gain"] / base.abs()
    beside = published(manifest, "accuracy", frame, {"mean": "mean", "std": "std"})
    beside = beside.where(frame["protocol"].isin(BEST))
    frame = pd.concat([frame, beside], axis=1)
    base = baseline(manifest, frame, ["task", "protocol"], "published_mean")
    frame["published_gain"] = better_by(frame["published_mean"], base, frame["direction"])
    return frame


def comparisons(manifest: Manifest) -> list[Comparison]:
    """Every optimizer against the baseline, by its seeds' test scores at the honest protocol."""
    finals = load.finals(manifest)
    finals = finals[finals["protocol"] == "best_validation"]
    found = []
    for task in manifest.tasks:
        cells = finals[finals["task"] == task]
        sign = 1.0 if cells["direction"].iloc[0] == "max" else -1.0
        scores = {o: c.set_index("seed")["score"] for o, c in cells.groupby("optimizer")}
        for optimizer in manifest.rivals:
            found += of_scores(
                f"test {cells['metric'].iloc[0]}", task, optimizer, cells["unit"].iloc[0],
                scores[manifest.baseline], scores[optimizer], sign,
            )  # fmt: skip
    return found


def highlights(manifest: Manifest) -> list[str]:
    """Who is ahead in test score, by how much, and where the interval settles it."""
    frame = table(manifest)
    frame = frame[frame["protocol"] == "best_validation"]
    names, base = task_titles(manifest), optimizer_title(manifest.baseline)
    parts = []
    for optimizer in manifest.rivals:
        rows = frame[(frame["optimizer"] == optimizer) & frame["gain"].notna()]
        name = optimizer_title(optimizer)
        for word, chosen in (("ahead of", rows["gain"] > 0), ("behind", rows["gain"] < 0)):
            found = rows[chosen]
            if not len(found):
                continue
            settled = ((found["gain_low"] > 0) | (found["gain_high"] < 0)).sum()
            each = "; ".join(
                f"{names[row['task']]} "
                + interval(row["gain"], row["gain_low"], row["gain_high"], row["unit"])
                + f" {titles.metric_title(row['metric'], row['unit'])}"
                for _, row in found.iterrows()
            )
            parts.append(
                f"**In mean test score {name} is {word} {base} on {len(found)} of {len(rows)} "
                f"tasks; {_settled(settled, len(found))}.** Gains with 95 % intervals, positive is "
                f"better: {each}."
            )
    return parts


def _settled(count: int, of: int) -> str:
    """On how many tasks the seeds settle the sign, in words."""
    if count == 0:
        return "so few seeds settle none of this, since every interval includes zero"
    return f"the seeds settle it on {count} of {of}, where the interval leaves zero out"


def warnings(manifest: Manifest) -> list[str]:
    """The seeds that diverged."""
    frame = table(manifest)
    return diverged(frame[frame["protocol"] == "best_validation"])


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
    }
    if published:
        columns |= {"published": "published"}
    parts = [
        "# Test scores",
        "Mean ± sample standard deviation over final seeds.",
        "*Best validation epoch* is the honest protocol. *Best test epoch* chooses on the test "
        "set, so it flatters; it is here because the publication does not say which one its "
        '"best checkpoint" means.',
        markdown(wide, columns),
        *diverged(frame[frame["protocol"] == "best_validation"]),
        *_gains(manifest, frame),
        *elsewhere(manifest, "accuracy", frame),
    ]
    return join(parts)


def _gains(manifest: Manifest, frame: pd.DataFrame) -> list[str]:
    """The gains under each protocol, with their intervals."""
    rows = []
    rivals = frame[frame["optimizer"] != manifest.baseline]
    for _, group in rivals.groupby(["task", "optimizer"], sort=False):
        cells = group.set_index("protocol")
        best = cells.loc["best_validation"]
        metric = titles.metric_title(best["metric"], best["unit"])
        row = {
            "task": task_title(manifest, best),
            "optimizer": titles.optimizer_title(best["optimizer"]),
            "metric": metric + ("" if best["direction"] == "max" else ", lower is better"),
            "n": best["seeds"] - best["diverged"],
        }
        for protocol, title in titles.PROTOCOLS.items():
            c = cells.loc[protocol]
            row[title] = interval(c["gain"], c["gain_low"], c["gain_high"], c["unit"])
        row["published gain"] = signed(best["published_gain"], best["unit"])
        rows.append(row)
    if not rows:
        return []
    table = pd.DataFrame(rows)
    if table["published gain"].eq(DASH).all():
        table = table.drop(columns="published gain")
    base = titles.optimizer_title(manifest.baseline)
    return [
        f"## Gain over {base}",
        "Positive where better, whatever the direction of the metric (percentage points for "
        "accuracy), with the 95 % interval of Welch's t.",
        markdown(table, {c: c for c in table}),
    ]


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
    """One row per task and optimizer, the protocols' scores as text in columns."""
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
            "setting": f"{best['lr']}, {best['wd']}" if best["lr"] else DASH,
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


TABLES = {"accuracy": (table, text), "metrics": (more_metrics.table, more_metrics.text)}


def scores(
    manifest: Manifest,
    finals: pd.DataFrame,
    table: pd.DataFrame,
    protocol: str = "best_validation",
) -> Figure:
    """Every seed as a point, mean and standard deviation beside; a panel per task, in its own unit.

    Args:
        finals: from :func:`equiscape.report.load.finals`.
        table: from :func:`table`; gives means and published figures.
    """
    finals = finals[finals["protocol"] == protocol]
    table = table[table["protocol"] == protocol]
    slanted = len(manifest.optimizers) > 3
    letters = max(len(short_title(name)) for name in manifest.optimizers)
    figure, axes = style.panels(len(manifest.tasks), height=1.5 + 0.036 * letters * slanted)
    names = task_titles(manifest)
    for axis, task in zip(axes, manifest.tasks):
        row = table[table["task"] == task].iloc[0]
        _scores(manifest, axis, finals[finals["task"] == task], table[table["task"] == task])
        arrow = " ↓" if row["direction"] == "min" else ""  # lower is better
        metric = metric_title(row["metric"], row["unit"])
        axis.set_title(f"{names[task]}\n{metric}{arrow}", loc="left", fontsize=7.5)
    style.label_outer(axes, "", "test score")
    handles = [
        *style.optimizer_handles(manifest, line=False),
        Line2D([], [], color=style.GRAY, marker="_", markersize=9, linestyle="none",
               markeredgewidth=1.6, label=f"mean ± std (n = {len(manifest.seeds)})"),
    ]  # fmt: skip
    if table["published_mean"].notna().any():
        handles.append(_published_handle())
    if table["diverged"].any():
        handles.append(
            Line2D([], [], color="black", marker="x", linestyle="none", label="diverged seed")
        )
    style.legend(figure, handles)
    return figure


def _scores(manifest: Manifest, axis: Axes, finals: pd.DataFrame, table: pd.DataFrame) -> None:
    """One task: a place an optimizer, its seeds left of the mean and its spread."""
    color, marker = style.colors(manifest), style.markers(manifest)
    for x, optimizer in enumerate(manifest.optimizers):
        seeds = finals.loc[finals["optimizer"] == optimizer, "score"].dropna().to_numpy()
        row = table[table["optimizer"] == optimizer].iloc[0]
        spread = np.linspace(-0.1, 0.1, len(seeds)) if len(seeds) > 1 else np.zeros(len(seeds))
        axis.plot(
            x - 0.2 + spread, seeds, marker[optimizer], color=color[optimizer], alpha=0.55,
            markersize=3.6, markeredgewidth=0,
        )  # fmt: skip
        axis.errorbar(
            x + 0.08, row["mean"], yerr=np.nan_to_num(row["std"]), fmt="_",
            color=color[optimizer], markersize=8, markeredgewidth=1.8, capsize=2.2,
            elinewidth=1.1,
        )  # fmt: skip
        if np.isfinite(row["published_mean"]):
            axis.errorbar(
                x + 0.3, row["published_mean"], yerr=row["published_std"], fmt="D",
                color=color[optimizer], markerfacecolor="white", markersize=3.8, capsize=1.6,
                elinewidth=0.7, markeredgewidth=0.9,
            )  # fmt: skip
        if row["diverged"]:  # at the bottom of the axis, since they have no score
            axis.plot([x], [0.02], "x", color="black", markersize=4.5, clip_on=False,
                      transform=axis.get_xaxis_transform())  # fmt: skip
    names = [short_title(name) for name in manifest.optimizers]
    axis.set_xticks(range(len(names)), names)
    if len(names) > 3:
        axis.tick_params(axis="x", labelrotation=45, labelsize=6.5)
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axis.margins(y=0.12)
    axis.grid(axis="y")
    axis.set_axisbelow(True)


def _published_handle() -> Line2D:
    return Line2D(
        [], [], color=style.GRAY, marker="D", markerfacecolor="white", markersize=3.8,
        linestyle="none", label="published, mean ± std",
    )  # fmt: skip
