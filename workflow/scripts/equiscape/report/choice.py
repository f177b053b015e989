"""Whether optimizers end at different representations, counted with Wilson intervals."""

from collections.abc import Callable

import pandas as pd
from scipy.stats import binomtest

from equiscape.groups import parse_group, parse_representation
from equiscape.report.text import join, markdown

HELD = ("constrained",)  # cannot leave its student's plane
ALL = "all"
COLUMNS = ["optimizer", "mode", "networks", "solved", "solved_low", "solved_high", "teacher",
           "another", "none", "low", "high"]  # fmt: skip


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); NaN for no trials."""
    if trials == 0:
        return float("nan"), float("nan")
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def spelled(group: str, text: str) -> str:
    """A layer's representation, or several joined by commas, as they are spelled where found."""
    parsed = parse_group(group)
    return ", ".join(parse_representation(parsed, one.strip()).text for one in text.split(","))


def choices(frame: pd.DataFrame) -> pd.DataFrame:
    """Of the networks that could leave their plane, how many solve and with which representation.

    Args:
        frame: one row a network, with columns group, inputs, teacher, student, mode, optimizer,
            solved and representation (``none`` where none was found).

    Returns:
        A row an optimizer and mode, then one of all modes: ``networks``, ``solved``, the share
        of these from ``solved_low`` to ``solved_high``; of the solved, how many carry the
        representation of the ``teacher``, ``another`` or ``none``, and the interval ``low`` to
        ``high`` of the teacher's share.
    """
    free = frame[~frame["mode"].isin(HELD)]
    rows = []
    for optimizer, own in free.groupby("optimizer", sort=False):
        for mode, group in [*own.groupby("mode", sort=False), (ALL, own)]:
            solved = group[group["solved"]]
            ends = [
                (end, spelled(name, teacher))
                for name, teacher, end in zip(
                    solved["group"], solved["teacher"], solved["representation"]
                )
            ]
            same = sum(end == teacher for end, teacher in ends)
            unnamed = sum(end == "none" for end, _ in ends)
            solved_low, solved_high = wilson(len(solved), len(group))
            low, high = wilson(same, len(solved))
            rows.append(
                {
                    "optimizer": optimizer, "mode": mode, "networks": len(group),
                    "solved": len(solved), "solved_low": solved_low, "solved_high": solved_high,
                    "teacher": same, "another": len(solved) - same - unnamed, "none": unnamed,
                    "low": low, "high": high,
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)  # without rows too, where all are held


def sentences(frame: pd.DataFrame, title: Callable[[str], str]) -> str:
    """What the counts of :func:`choices` say about the question, with the numbers."""
    rows = [row for _, row in frame[frame["mode"] == ALL].iterrows()]
    if not any(row["solved"] for row in rows):
        return "No network that could leave its plane solved its task."
    found = [row for row in rows if row["solved"]]
    counts = "; ".join(
        f"{title(row['optimizer'])} {row['teacher']} of {row['solved']} "
        f"[{row['low']:.3f}, {row['high']:.3f}]"
        for row in found
    )
    total, same = (sum(row[name] for row in rows) for name in ("solved", "teacher"))
    ends = (
        f"Of the {total} networks that could leave their plane and solved their task, {same} carry "
        f"the teacher's representation: {counts}."
    )
    differ = _apart(found, "low", "high", title)
    if same == total:
        answer = "So no optimizer chose another representation."
    elif differ:
        answer = f"The intervals of {differ} do not overlap, so the optimizer matters here."
    else:
        answer = "The intervals overlap: no difference between optimizers was found."
    reached = "; ".join(
        f"{title(row['optimizer'])} {row['solved']} of {row['networks']} "
        f"[{row['solved_low']:.2f}, {row['solved_high']:.2f}]"
        for row in rows
    )
    apart = _apart(rows, "solved_low", "solved_high", title)
    how = f"the intervals of {apart} do not overlap" if apart else "the intervals overlap"
    return f"{ends} {answer} How many solve it: {reached}; {how}."


def _apart(rows: list, low: str, high: str, title: Callable[[str], str]) -> str:
    """The pairs of optimizers whose intervals have nothing in common."""
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    return ", ".join(
        f"{title(a['optimizer'])} and {title(b['optimizer'])}"
        for a, b in pairs
        if a[high] < b[low] or b[high] < a[low]
    )


def choices_text(frame: pd.DataFrame, title: Callable[[str], str]) -> str:
    """The table as Markdown below its sentences."""
    rows = [
        {
            "optimizer": title(row["optimizer"]),
            "mode": row["mode"],
            "solved": f"{row['solved']} of {row['networks']}",
            "the teacher's": row["teacher"],
            "another": row["another"],
            "none found": row["none"],
            "share of the teacher's": f"[{row['low']:.3f}, {row['high']:.3f}]"
            if row["solved"]
            else "–",
        }
        for _, row in frame.iterrows()
    ]
    shown = pd.DataFrame(rows)
    return join(
        [
            "# Does the optimizer choose the representation?",
            sentences(frame, title),
            "95 % Wilson intervals over networks, which are pooled over teachers and students.",
            markdown(shown, {c: c for c in shown}),
        ]
    )
