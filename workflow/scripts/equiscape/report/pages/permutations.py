"""Which representation a network ends at, and what keeps it from getting there."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from equiscape.report import style, titles
from equiscape.report.choice import choices, choices_text, wilson
from equiscape.report.load import histories, read_csv
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, significant
from equiscape.report.page import Page
from equiscape.report.text import join, markdown

PAGE = Page(
    title="Which representation does a hidden layer choose?",
    category="Permutation representations",
    reads=("history", "representation", "constrained-landscape"),
    tables={
        "permutations": (
            "How many networks solve their task, with Wilson intervals, and where they end."
        ),
        "permutations_choice": (
            "Of the networks that could leave their plane and solved their task, how many carry "
            "the teacher's representation, by optimizer."
        ),
        "permutations_ends": "From the student's representation to the one that was found.",
        "permutations_escape": "How many trapped networks escape once they are released.",
        "permutations_saddles": (
            "Minima within the equivariant plane, and their curvature across it."
        ),
    },
    figures={
        "permutations_solved": (
            "Share of the seeds that solve the task, with 95 % Wilson intervals, for each teacher "
            "(panel), student and mode (rows) and optimizer."
        ),
        "permutations_loss": (
            "Final training loss of every seed over the target's variance; the line is the "
            "threshold below which a task counts as solved."
        ),
        "permutations_ends": (
            "The representation that the hidden layer of every relaxed network ends at, for each "
            "teacher (panel), student and optimizer (rows)."
        ),
    },
)

SOLVED = 1e-5  # of the target's variance
CASE = ["group", "inputs", "teacher"]
CELL = [*CASE, "student", "mode", "optimizer"]
COLUMNS = ("task", "optimizer", "seed", *CASE, "student", "mode", "release", "layer", "loss")
COLUMNS = (*COLUMNS, "representation", "residual", "distance")
CURVATURE = ("task", "optimizer", "seed", "kind", "lowest_across", "negative_across", "coupling")
MODES = ("constrained", "unprojected", "released", "penalized", "relaxed", "free")
UNSOLVED = "not solved"


def load(manifest: Manifest) -> pd.DataFrame:
    """One row per network: the representations of its hidden layers joined by commas."""
    (product,) = manifest.analysis("representation")
    frame = read_csv(product.path, COLUMNS)
    frame["representation"] = frame["representation"].fillna("none")
    keys = ["task", "optimizer", "seed"]
    joined = frame.groupby(keys, sort=False)["representation"].agg(", ".join)
    frame = frame.drop_duplicates(keys).drop(columns="representation")
    frame = frame.merge(joined.reset_index(), on=keys)
    frame["solved"] = frame["loss"] < SOLVED
    order = {name: i for i, name in enumerate(manifest.optimizers)}
    frame["place"] = [(MODES.index(m), order[o]) for m, o in zip(frame["mode"], frame["optimizer"])]
    return frame


def table(manifest: Manifest) -> pd.DataFrame:
    """One row a teacher, student, mode and optimizer.

    ``solved`` of ``seeds``, their ``share`` with the interval ``low`` to ``high``; medians of the
    final ``loss`` and of the ``distance`` from the student's own plane; ``end``, the representation
    that most of the solved networks carry, and how many do (``ends``).
    """
    rows = []
    for cell, group in load(manifest).groupby(CELL, sort=False):
        solved = group[group["solved"]]
        counts = solved["representation"].value_counts()
        low, high = wilson(len(solved), len(group))
        rows.append(
            {
                **dict(zip(CELL, cell)),
                "seeds": len(group),
                "solved": len(solved),
                "share": len(solved) / len(group),
                "low": low,
                "high": high,
                "loss": group["loss"].median(),
                "distance": group["distance"].median(),
                "end": counts.index[0] if len(counts) else "none",
                "ends": int(counts.iloc[0]) if len(counts) else 0,
                "place": group["place"].iloc[0],
            }
        )
    frame = pd.DataFrame(rows)
    first = {case: i for i, case in enumerate(dict.fromkeys(map(tuple, frame[CASE].values)))}
    students = {name: i for i, name in enumerate(dict.fromkeys(frame["student"]))}
    frame["case"] = [first[tuple(case)] for case in frame[CASE].values]
    frame["number"] = frame["student"].map(students)
    frame = frame.sort_values(["case", "number", "place"], ignore_index=True)
    return frame.drop(columns=["case", "number", "place"])


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown, a section a teacher."""
    parts = [
        "# Which representation does a hidden layer choose?",
        f"Solved: a training loss below {SOLVED:g} of the target's variance; 95 % Wilson intervals "
        "over seeds. The end is the representation that most solved networks carry.",
    ]
    for case, group in frame.groupby(CASE, sort=False):
        rows = [
            {
                "student": row["student"],
                "mode": row["mode"],
                "optimizer": titles.optimizer_title(row["optimizer"]),
                "solved": f"{row['solved']} of {row['seeds']}",
                "share": f"{row['share']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
                "median loss": significant(row["loss"], 2),
                "end": f"{row['end']} ({row['ends']})" if row["ends"] else DASH,
            }
            for _, row in group.iterrows()
        ]
        shown = pd.DataFrame(rows)
        parts += [f"## {case_title(case)}", markdown(shown, {c: c for c in shown})]
    return join(parts)


def case_title(case: tuple[str, str, str]) -> str:
    """``S3 on natural, teacher natural``."""
    group, inputs, teacher = case
    return f"{group} on {inputs}, teacher {teacher}"


def choice(manifest: Manifest) -> pd.DataFrame:
    """Whether optimizers end at different representations, see :func:`choices`."""
    return choices(load(manifest))


def choice_text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown, and what it says."""
    return choices_text(frame, titles.optimizer_title)


def ends(manifest: Manifest) -> pd.DataFrame:
    """How many relaxed networks of a student end at each representation, or are not solved."""
    frame = load(manifest)
    frame = frame[frame["mode"] == "relaxed"].copy()
    frame["end"] = frame["representation"].where(frame["solved"], UNSOLVED)
    keys = [*CASE, "student", "optimizer", "end"]
    counts = frame.groupby(keys, sort=False).size().rename("networks").reset_index()
    total = counts.groupby(keys[:-1], sort=False)["networks"].transform("sum")
    return counts.assign(share=counts["networks"] / total)


def ends_text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown: a matrix from start to end for each teacher."""
    parts = ["# From the student's representation to the end", "Relaxed networks, all seeds."]
    for case, group in frame.groupby(CASE, sort=False):
        wide = group.pivot_table(
            index=["student", "optimizer"], columns="end", values="networks", fill_value=0,
            aggfunc="sum", sort=False,
        )  # fmt: skip
        shown = wide.astype(int).reset_index()
        shown["optimizer"] = shown["optimizer"].map(titles.optimizer_title)
        parts += [f"## {case_title(case)}", markdown(shown, {c: c for c in shown})]
    return join(parts)


def escape(manifest: Manifest) -> pd.DataFrame:
    """Relaxed networks that were not solved when they were released: how many solve it then.

    ``epochs`` is the median over the escaped, from the release to half the loss that it had.
    """
    frame = load(manifest)
    frame = frame[frame["mode"] == "relaxed"]
    curves = dict(iter(histories(manifest).groupby(["task", "optimizer", "seed"], sort=False)))
    rows = []
    for _, row in frame.iterrows():
        loss = curves[row["task"], row["optimizer"], row["seed"]]["train_loss"].to_numpy()
        release = max(1, round(row["release"] * len(loss)))
        held = loss[release - 1]
        below = np.flatnonzero(loss[release:] < held / 2)
        rows.append({"held": held, "epochs": below[0] + 1 if len(below) else np.nan})
    frame = pd.concat([frame.reset_index(drop=True), pd.DataFrame(rows)], axis=1)
    keys, found = [*CASE, "student", "optimizer"], []
    for cell, group in frame.groupby(keys, sort=False):
        trapped = group[group["held"] >= SOLVED]
        escaped = trapped[trapped["solved"]]
        low, high = wilson(len(escaped), len(trapped))
        found.append(
            {
                **dict(zip(keys, cell)),
                "seeds": len(group),
                "trapped": len(trapped),
                "escaped": len(escaped),
                "share": len(escaped) / len(trapped) if len(trapped) else np.nan,
                "low": low,
                "high": high,
                "held_loss": trapped["held"].median(),
                "epochs": escaped["epochs"].median(),
            }
        )
    return pd.DataFrame(found)


def _who(row: pd.Series) -> dict[str, str]:
    """The first cells of a row: teacher, student and optimizer."""
    return {
        "teacher": case_title(tuple(row[CASE])),
        "student": row["student"],
        "optimizer": titles.optimizer_title(row["optimizer"]),
    }


def escape_text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown."""
    rows = [
        {
            **_who(row),
            "trapped": f"{row['trapped']} of {row['seeds']}",
            "escaped": f"{row['escaped']} of {row['trapped']}",
            "share": DASH
            if row["trapped"] == 0
            else f"{row['share']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
            "loss while held": significant(row["held_loss"], 2),
            "epochs to half of it": significant(row["epochs"], 2),
        }
        for _, row in frame.iterrows()
    ]
    heading = [
        "# Escape from the equivariant plane",
        "Trapped: not solved when the projection ended. Median epochs over the escaped.",
    ]
    shown = pd.DataFrame(rows)
    return join([*heading, markdown(shown, {c: c for c in shown})])


def saddles(manifest: Manifest) -> pd.DataFrame:
    """What the constrained networks' end points are: minima, or saddles within or across the plane.

    ``lowest_across`` and ``negative_across`` (how many directions) are medians; ``coupling`` is the
    largest seen.
    """
    (product,) = manifest.analysis("constrained-landscape")
    curvature = read_csv(product.path, CURVATURE)
    frame = load(manifest)
    frame = frame[frame["mode"] == "constrained"].drop(columns=["place"])
    frame = frame.merge(curvature.drop(columns="loss", errors="ignore"), how="inner",
                        on=["task", "optimizer", "seed"])  # fmt: skip
    rows = []
    for cell, group in frame.groupby([*CASE, "student", "optimizer"], sort=False):
        kinds = group["kind"].value_counts()
        rows.append(
            {
                **dict(zip([*CASE, "student", "optimizer"], cell)),
                "networks": len(group),
                "solved": int(group["solved"].sum()),
                "minimum": int(kinds.get("minimum", 0)),
                "saddle_across": int(kinds.get("saddle across", 0)),
                "saddle_within": int(kinds.get("saddle within", 0)),
                "lowest_across": group["lowest_across"].median(),
                "negative_across": group["negative_across"].median(),
                "coupling": group["coupling"].max(),
            }
        )
    return pd.DataFrame(rows)


def saddles_text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown."""
    rows = [
        {
            **_who(row),
            "solved": f"{row['solved']} of {row['networks']}",
            "minima": row["minimum"],
            "saddles across": row["saddle_across"],
            "saddles within": row["saddle_within"],
            "lowest λ across": significant(row["lowest_across"], 2),
            "negative directions": significant(row["negative_across"], 2),
        }
        for _, row in frame.iterrows()
    ]
    heading = [
        "# Where constrained networks stop",
        "Saddles across are minima among the equivariant networks only; medians over seeds.",
    ]
    shown = pd.DataFrame(rows)
    return join([*heading, markdown(shown, {c: c for c in shown})])


TABLES = {
    "permutations": (table, text),
    "permutations_choice": (choice, choice_text),
    "permutations_ends": (ends, ends_text),
    "permutations_escape": (escape, escape_text),
    "permutations_saddles": (saddles, saddles_text),
}


def panels_of_cases(frame: pd.DataFrame, rows: list[str]) -> tuple[Figure, list[tuple]]:
    """A panel a teacher, as high as it has rows; (axis, case, its part, its rows) of each.

    ``rows`` are the columns whose values, joined by commas, are a row's label.
    """
    cases = list(frame.groupby(CASE, sort=False))
    counts = [len(group.drop_duplicates(rows)) for _, group in cases]
    figure, axes = plt.subplots(
        len(cases), 1, figsize=(style.WIDTH, 0.6 + 0.42 * len(cases) + 0.2 * sum(counts)),
        squeeze=False, sharex=True, gridspec_kw={"height_ratios": [n + 1.2 for n in counts]},
    )  # fmt: skip
    found = []
    for axis, (case, group) in zip(axes[:, 0], cases):
        labels = list(dict.fromkeys(map(tuple, group[rows].to_numpy())))
        axis.set_yticks(range(len(labels)), [", ".join(label) for label in labels], fontsize=6.5)
        axis.set_ylim(len(labels) - 0.4, -0.6)
        axis.set_title(case_title(case), loc="left")
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="both")
        axis.set_axisbelow(True)
        found.append((axis, case, group, labels))
    return figure, found


def _shift(manifest: Manifest, optimizer: str) -> float:
    names = list(manifest.optimizers)
    return 0.22 * (names.index(optimizer) - (len(names) - 1) / 2)


def solved(manifest: Manifest, frame: pd.DataFrame) -> Figure:
    """Shares with intervals; ``frame`` from :func:`table`."""
    color, marker = style.colors(manifest), style.markers(manifest)
    figure, panels = panels_of_cases(frame, ["student", "mode"])
    for axis, _, group, labels in panels:
        for _, row in group.iterrows():
            y = labels.index((row["student"], row["mode"])) + _shift(manifest, row["optimizer"])
            own = color[row["optimizer"]]
            axis.plot([row["low"], row["high"]], [y, y], color=own, linewidth=1)
            axis.plot(row["share"], y, marker[row["optimizer"]], color=own, markersize=3.6)
        axis.set_xlim(-0.03, 1.03)
    panels[-1][0].set_xlabel("share of seeds that solve the task")
    style.legend(figure, style.optimizer_handles(manifest, line=False))
    return figure


def losses(manifest: Manifest, frame: pd.DataFrame) -> Figure:
    """The final loss of every network; ``frame`` from :func:`load`."""
    color, marker = style.colors(manifest), style.markers(manifest)
    order = table(manifest)[[*CELL]].drop_duplicates()
    frame = order.merge(frame, on=CELL)
    figure, panels = panels_of_cases(frame, ["student", "mode"])
    for axis, _, group, labels in panels:
        for (student, mode, optimizer), own in group.groupby(["student", "mode", "optimizer"]):
            y = labels.index((student, mode)) + _shift(manifest, optimizer)
            axis.plot(
                own["loss"].clip(lower=1e-16), np.full(len(own), y), marker[optimizer],
                color=color[optimizer], markersize=2.4, alpha=0.6, markeredgewidth=0,
            )  # fmt: skip
        axis.axvline(SOLVED, color="black", linewidth=0.7)
        axis.set_xscale("log")
    panels[-1][0].set_xlabel("final training loss / variance of the target (below 1e−16 at 1e−16)")
    style.legend(figure, style.optimizer_handles(manifest, line=False))
    return figure


def arrivals(manifest: Manifest, frame: pd.DataFrame) -> Figure:
    """Stacked bars from start to end; ``frame`` from :func:`ends`."""
    frame = frame.assign(optimizer_title=frame["optimizer"].map(titles.optimizer_title))
    known = [end for end in dict.fromkeys(frame["end"]) if end not in (UNSOLVED, "none")]
    color = {end: style.PALETTE[i % len(style.PALETTE)] for i, end in enumerate(known)}
    color |= {"none": "#B0B0B0", UNSOLVED: "#E6E6E6"}
    figure, panels = panels_of_cases(frame, ["student", "optimizer_title"])
    for axis, _, group, labels in panels:
        _bars(axis, group, labels, color)
    panels[-1][0].set_xlabel("share of seeds")
    shown = [end for end in color if (frame["end"] == end).any()]
    names = {"none": "solved, no representation found"}
    style.legend(figure, [Patch(color=color[end], label=names.get(end, end)) for end in shown])
    return figure


def _bars(axis: Axes, group: pd.DataFrame, labels: list[tuple], color: dict[str, str]) -> None:
    ranks = {end: i for i, end in enumerate(color)}
    for label, own in group.groupby(["student", "optimizer_title"], sort=False):
        left = 0.0
        for _, row in own.sort_values("end", key=lambda ends: ends.map(ranks)).iterrows():
            axis.barh(labels.index(label), row["share"], 0.72, left, color=color[row["end"]])
            left += row["share"]
    axis.set_xlim(0, 1)
    axis.grid(visible=False)
