"""Whether solutions at different representations are connected: barriers on paths between them."""

import pandas as pd
from matplotlib.figure import Figure

from equiscape.report import style
from equiscape.report.load import read_csv
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import significant
from equiscape.report.page import Page
from equiscape.report.pages.connectivity import MARKERS, PATHS, legend_of_paths
from equiscape.report.pages.permutations import CASE, case_title, panels_of_cases
from equiscape.report.text import join, markdown

PAGE = Page(
    title="Are representations connected?",
    category="Permutation representations",
    reads=("representation-connectivity",),
    tables={
        "representation_paths": (
            "Barrier of the training loss on paths between networks of one teacher, by the "
            "representations at both ends."
        ),
    },
    figures={
        "representation_paths": (
            "Barrier of the training loss between two networks, one point per pair, for each "
            "teacher (panel) and the representations at both ends (rows): on the straight line as "
            "trained, on the line after the hidden units of one were reordered and flipped, and on "
            "a learned Bezier curve between the aligned ends. Pairs of which neither network "
            "solved its task are left out where any did; the table has them."
        ),
    },
)

ENDS = ["first", "first_solved", "second", "second_solved"]
KEYS = [*CASE, "width", "kind", *ENDS]
COLUMNS = (*KEYS, "alignment", "curve", "split", "loss_first", "loss_second", "peak", "barrier")
LINEAR = 1e-6  # barriers below are drawn on a linear scale
UNSOLVED = "not solved"


def load(manifest: Manifest) -> pd.DataFrame:
    """The barrier of the training loss on every path."""
    (product,) = manifest.analysis("representation-connectivity")
    frame = read_csv(product.path, COLUMNS)
    return frame[frame["split"] == "train"].astype({"width": str})


def table(manifest: Manifest) -> pd.DataFrame:
    """One row a teacher, two classes of ends and a path: pairs, median and range of barriers.

    ``peak`` is the median of the largest loss on the path, ``loss_first`` and ``loss_second`` are
    those of the losses at the ends.
    """
    groups = load(manifest).groupby([*KEYS, "alignment", "curve"], sort=False)
    return groups.agg(
        pairs=("barrier", "size"),
        barrier=("barrier", "median"),
        least=("barrier", "min"),
        largest=("barrier", "max"),
        peak=("peak", "median"),
        loss_first=("loss_first", "median"),
        loss_second=("loss_second", "median"),
    ).reset_index()


def ends_title(row: pd.Series) -> str:
    """``natural – 2 trivial (not solved)``."""
    sides = [
        row[side] if row[f"{side}_solved"] else f"{row[side]} ({UNSOLVED})"
        for side in ("first", "second")
    ]
    return " – ".join(sides)


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown, a section a teacher and a column a path."""
    parts = [
        "# Are representations connected?",
        "The barrier of a path is the largest loss on it above the straight line between the "
        "losses of its ends, over the target's variance; 0 means that it never rises. Median over "
        "pairs, then the least and the largest.",
    ]
    for case, group in frame.groupby(CASE, sort=False):
        rows = []
        for _, own in group.groupby([*ENDS, "width"], sort=False):
            first = own.iloc[0]
            row = {"ends": ends_title(first), "pairs": first["pairs"]}
            for _, path in own.iterrows():
                spread = f"{significant(path['least'], 2)} to {significant(path['largest'], 2)}"
                row[PATHS[path["alignment"], path["curve"]]] = (
                    f"{significant(path['barrier'], 2)} ({spread})"
                )
            rows.append(row)
        columns = ["ends", "pairs", *PATHS.values()]
        shown = pd.DataFrame(rows).reindex(columns=columns)
        parts += [f"## {case_title(case)}", markdown(shown, {c: c for c in columns})]
    return join(parts)


TABLES = {"representation_paths": (table, text)}


def barriers(manifest: Manifest, frame: pd.DataFrame) -> Figure:
    """A panel a teacher, a row for each two classes; ``frame`` from :func:`load`.

    Pairs of which neither network solved its task are left out where any did.
    """
    solved = frame["first_solved"].astype(bool) | frame["second_solved"].astype(bool)
    frame = frame[solved] if solved.any() else frame
    frame = frame.assign(ends=[ends_title(row) for _, row in frame.iterrows()])
    figure, panels = panels_of_cases(frame, ["ends"])
    for axis, _, group, labels in panels:
        for offset, ((alignment, curve), name) in enumerate(PATHS.items()):
            own = group[(group["alignment"] == alignment) & (group["curve"] == curve)]
            places = [labels.index((ends,)) + 0.25 * (offset - 1) for ends in own["ends"]]
            axis.plot(
                own["barrier"], places, MARKERS[name], color=style.PALETTE[offset], markersize=3.2,
                markerfacecolor="none", linestyle="none",
            )  # fmt: skip
        axis.set_xscale("symlog", linthresh=LINEAR)
        axis.set_xlim(left=-LINEAR / 3)
    if panels:
        style.symlog_ticks(panels[-1][0])
        panels[-1][0].set_xlabel("barrier, training loss / variance of the target")
    legend_of_paths(figure)
    return figure
