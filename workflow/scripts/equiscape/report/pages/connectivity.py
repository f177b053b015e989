"""Whether the solutions of the optimizers are connected: barriers on paths between them."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from equiscape.io import read_json
from equiscape.report import style, surface
from equiscape.report.load import number, read_csv, reading
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import significant
from equiscape.report.page import Page
from equiscape.report.text import join, markdown
from equiscape.report.titles import optimizer_title, short_title, task_title, task_titles

PAGE = Page(
    title="Are the solutions connected?",
    category="Landscape",
    reads=("connectivity",),
    tables={
        "connectivity": "Barrier of the training and test loss on paths between final solutions.",
    },
    figures={
        "connectivity": (
            "Barrier of the test loss between two solutions, one point per pair: on the straight "
            "line as trained, on the line after channels were aligned by weights, and on a learned "
            "Bezier curve between the aligned ends. Batch-norm statistics are recomputed on the "
            "path where the network has them."
        ),
        "connectivity_{task}": (
            "Training loss along the paths between solutions, mean over pairs with their range; "
            "0 and 1 are the two solutions."
        ),
        "connectivity_plane_{task}": (
            "Training loss in the plane through two solutions (circles) and the bend of the curve "
            "between them (triangle), with the second solution as trained and aligned; axes in "
            "distances of parameters. The dashed curve is the learned one."
        ),
    },
)

COLUMNS = (
    "task",
    "pair",
    "first",
    "second",
    "alignment",
    "reset",
    "curve",
    "t",
    "split",
    "loss",
    "x",
    "y",
)
BEYOND = 3.0  # times the worse end's loss: levels of a plane reach there at least
PATHS = {
    ("none", "line"): "line, as trained",
    ("weights", "line"): "line, aligned",
    ("weights", "bezier"): "curve, aligned",
}
DASHES: dict[str, Any] = {"line, as trained": ":", "line, aligned": "--", "curve, aligned": "-"}
MARKERS = {"line, as trained": "o", "line, aligned": "s", "curve, aligned": "D"}
KEYS = ["task", "pair", "first", "second", "first_seed", "second_seed"]


def load(manifest: Manifest) -> pd.DataFrame:
    """Loss and score on every path; ``reset`` is a boolean."""
    frames = [read_csv(product.path, COLUMNS) for product in manifest.analysis("connectivity")]
    frame = pd.concat([f for f in frames if len(f)] or frames, ignore_index=True)
    return frame.astype({"reset": bool})


def heights(manifest: Manifest) -> pd.DataFrame:
    """The barrier of every path, as the analysis wrote it beside the losses."""
    keys = [*KEYS, "alignment", "reset", "curve", "split"]
    rows: list[tuple] = []
    for product in manifest.analysis("connectivity"):
        path = product.path.with_suffix(".json")
        data = read_json(path, "connectivity")
        with reading(path):
            found = data.get("barriers", [])  # none where every seed diverged
            rows += [(*(entry[key] for key in keys), number(entry["loss"])) for entry in found]
    return pd.DataFrame(rows, columns=[*keys, "barrier"]).astype({"reset": bool})


def table(manifest: Manifest) -> pd.DataFrame:
    """One row per task, two optimizers, kind of pair and of path: n, mean and range of barriers."""
    frame = heights(manifest)
    keys = ["task", "first", "second", "pair", "alignment", "curve", "reset", "split"]
    groups = frame.groupby(keys, sort=False)["barrier"]
    found = groups.agg(["size", "mean", "min", "max"]).reset_index()
    return found.rename(columns={"size": "pairs", "min": "least", "max": "largest"})


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown, with what it shows in a sentence a task."""
    shown = frame[(frame["split"] == "test") & frame.apply(_is_shown, axis=1)]
    shown = shown[shown["reset"] == shown.groupby("task")["reset"].transform("any")]
    rows = [
        {
            "task": task_title(row["task"], manifest.tasks[row["task"]]),
            "pair": _pair_title(row["first"], row["second"], row["pair"]),
            "path": PATHS[row["alignment"], row["curve"]],
            "n": row["pairs"],
            "barrier": significant(row["mean"], 3),
            "range": f"{significant(row['least'], 3)} to {significant(row['largest'], 3)}",
        }
        for _, row in shown.iterrows()
    ]
    columns = {
        "task": "task",
        "pair": "solutions",
        "path": "path",
        "n": "pairs",
        "barrier": "barrier of the test loss",
        "range": "least to largest",
    }
    parts = [
        "# Are the solutions connected?",
        markdown(pd.DataFrame(rows, columns=list(columns)), columns),
        *findings(manifest, shown),
        "A barrier is the largest loss on the path above the straight line between the losses of "
        "its ends; 0 means that the path never rises. All paths, both splits and statistics left "
        "as they were: connectivity.csv.",
    ]
    return join(parts)


def findings(manifest: Manifest, shown: pd.DataFrame) -> list[str]:
    """For each task, how unlike optimizers compare with two seeds of one, on aligned lines."""
    lines = []
    aligned = shown[(shown["alignment"] == "weights") & (shown["curve"] == "line")]
    for task, rows in aligned.groupby("task", sort=False):
        same = rows[rows["first"] == rows["second"]]["mean"]
        unlike = rows[(rows["first"] != rows["second"]) & (rows["pair"] == "other seed")]["mean"]
        if not len(same) or not len(unlike):
            continue
        inside = same.min() <= unlike.mean() <= same.max()
        place = "within" if inside else ("below" if unlike.mean() < same.min() else "above")
        lines.append(
            f"{task_titles(manifest)[task]}: between optimizers (other seeds, aligned) the barrier "
            f"is {significant(unlike.mean(), 3)}, {place} those between two seeds of one optimizer "
            f"({significant(same.min(), 3)} to {significant(same.max(), 3)}; means over pairs)."
        )
    return lines


def highlights(manifest: Manifest) -> list[str]:
    """The findings of the table as it is shown."""
    frame = table(manifest)
    shown = frame[(frame["split"] == "test") & frame.apply(_is_shown, axis=1)]
    shown = shown[shown["reset"] == shown.groupby("task")["reset"].transform("any")]
    return findings(manifest, shown)


TABLES = {"connectivity": (table, text)}


def _is_shown(row: pd.Series) -> bool:
    return (row["alignment"], row["curve"]) in PATHS


def _pair_title(first: str, second: str, kind: str) -> str:
    names = _pair_names(first, second)
    return names if first == second else f"{names}, {kind}"


def _pair_names(first: str, second: str) -> str:
    return f"{optimizer_title(first)} - {optimizer_title(second)}"


def barriers(manifest: Manifest) -> Figure:
    """Barrier of the test loss, a panel per task, a row per kind of pair, a point per pair."""
    found = heights(manifest)
    found = found[(found["split"] == "test") & found.apply(_is_shown, axis=1)]
    titles = task_titles(manifest)
    tasks = list(found["task"].unique())
    kinds = list(dict.fromkeys(zip(found["first"], found["second"], found["pair"])))
    figure, axes = style.panels(len(tasks), height=0.6 + 0.21 * len(kinds), first=1.2, sharey=True)
    for axis, task in zip(axes, tasks):
        rows = found[found["task"] == task]
        rows = rows[rows["reset"] == rows["reset"].any()]
        for place, (first, second, kind) in enumerate(kinds):
            mine = rows[
                (rows["first"] == first) & (rows["second"] == second) & (rows["pair"] == kind)
            ]
            for offset, (key, name) in enumerate(PATHS.items()):
                points = mine[(mine["alignment"] == key[0]) & (mine["curve"] == key[1])]["barrier"]
                axis.plot(
                    points, [place + 0.22 * (offset - 1)] * len(points),
                    MARKERS[name], color=style.PALETTE[offset], markersize=4,
                    markerfacecolor="none", linestyle="none",
                )  # fmt: skip
        axis.set_yticks(range(len(kinds)), [_tick(*kind) for kind in kinds])
        axis.set_ylim(len(kinds) - 0.5, -0.5)
        axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))
        axis.xaxis.set_major_locator(MaxNLocator(3))
        axis.tick_params(axis="y", length=0)
        axis.set_title(titles[task], loc="left")
        axis.grid(axis="x")
    style.label_outer(axes, "barrier, test loss", "")
    legend_of_paths(figure)
    return figure


def legend_of_paths(figure: Figure) -> None:
    """The hollow marker of each kind of path."""
    style.legend(
        figure,
        [
            Line2D([], [], color=style.PALETTE[i], marker=MARKERS[name], linestyle="none",
                   markerfacecolor="none", label=name)
            for i, name in enumerate(PATHS.values())
        ],
    )  # fmt: skip


def _tick(first: str, second: str, kind: str) -> str:
    """``Adam–Muon, same seed``: short enough for an axis or a panel's title."""
    names = "–".join(short_title(name) for name in (first, second))
    return f"{names}, {kind}"


def along(manifest: Manifest, task: str, measured: pd.DataFrame) -> Figure:
    """Training loss along the paths of a task, a panel for each two optimizers and kind of pair."""
    rows = measured[(measured["task"] == task) & (measured["split"] == "train")]
    rows = rows[(rows["reset"] == rows["reset"].any()) & rows.apply(_is_shown, axis=1)]
    kinds = list(dict.fromkeys(zip(rows["first"], rows["second"], rows["pair"])))
    figure, axes = style.panels(len(kinds), columns=2, height=2.0, sharey=True)
    for axis, (first, second, kind) in zip(axes, kinds):
        mine = rows[(rows["first"] == first) & (rows["second"] == second) & (rows["pair"] == kind)]
        for offset, (key, name) in enumerate(PATHS.items()):
            path = mine[(mine["alignment"] == key[0]) & (mine["curve"] == key[1])]
            if not len(path):
                continue
            at = path.groupby("t")["loss"]
            color = style.PALETTE[offset]
            axis.fill_between(at.min().index, at.min(), at.max(), color=color, alpha=0.15, lw=0)
            axis.plot(at.mean().index, at.mean(), DASHES[name], color=color)
        axis.set_title(_tick(first, second, kind), loc="left", fontsize=8)
        axis.grid(axis="y")
        axis.set_xlabel("place on the path")
    for axis in style.leftmost(axes, columns=2):
        axis.set_ylabel("training loss")
    style.legend(
        figure,
        [
            Line2D([], [], color=style.PALETTE[i], linestyle=DASHES[name], label=name)
            for i, name in enumerate(PATHS.values())
        ],
        title=task_titles(manifest)[task],
    )
    return figure


def plane(manifest: Manifest, task: str, measured: pd.DataFrame) -> Figure:
    """The plane of a task's first pair of unlike optimizers, else of its first pair.

    One panel as trained and one aligned; a note where no plane was measured.
    """
    rows = measured[(measured["task"] == task) & measured["curve"].isin(["plane", "corner"])]
    unlike = rows[rows["first"] != rows["second"]]
    rows = unlike if len(unlike) else rows
    if not len(rows):
        figure, axis = style.single(1.0)
        axis.text(0.5, 0.5, "no plane was measured", ha="center", va="center")
        axis.set_axis_off()
        return figure
    rows = rows[(rows[KEYS] == rows[KEYS].iloc[0]).all(axis=1)]
    kinds = list(dict.fromkeys(rows["alignment"]))
    first = rows.iloc[0]
    ends = rows[rows["curve"] == "corner"].groupby("alignment", sort=False)["loss"].head(2)
    cap = max(BEYOND * float(ends.max()), float(rows["loss"].quantile(0.6)))
    levels = surface.even(float(rows["loss"].min()), cap)
    figure, axes = style.panels(len(kinds), columns=2, height=1.7, width=style.WIDTH)
    for axis, kind in zip(axes, kinds):
        mine = rows[rows["alignment"] == kind]
        grid = mine[mine["curve"] == "plane"].pivot(index="y", columns="x", values="loss")
        filled = surface.contours(axis, grid.columns, grid.index, grid.to_numpy(), levels)
        corners = mine[mine["curve"] == "corner"][["x", "y"]].to_numpy()
        _corners(axis, corners, learned=kind == kinds[-1])
        axis.set_title("aligned" if kind == "weights" else "as trained", loc="left", fontsize=8)
        axis.set_xlabel("distance of parameters")
    surface.color_bar(figure, filled, axes, levels, "training loss")
    seeds = f"seeds {int(first['first_seed'])} and {int(first['second_seed'])}"
    pair = _pair_names(first["first"], first["second"])
    figure.suptitle(f"{task_titles(manifest)[task]}: {pair}, {seeds}", fontsize=8)
    return figure


def _corners(axis: Axes, corners: np.ndarray, learned: bool) -> None:
    """Mark both ends and the bend, and the curve where it lies in this plane."""
    axis.plot(*corners[:2].T, "o", color="white", markeredgecolor="black", markersize=5)
    axis.plot(*corners[2], "^", color="white", markeredgecolor="black", markersize=5)
    if learned:
        t = np.linspace(0, 1, 50)[:, None]
        curve = (1 - t) ** 2 * corners[0] + 2 * t * (1 - t) * corners[2] + t**2 * corners[1]
        axis.plot(*curve.T, "--", color="white", linewidth=1)
