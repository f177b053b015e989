"""The page results.md, from results.csv and parts.csv alone."""

from pathlib import Path

import pandas as pd
from targets import ELSEWHERE, is_rate, judged
from timing import CLOCKS, OURS

COLUMNS = ("part", "case", "rival", "quantity", "median", "low", "high")
CONDITIONS = ("part", "date", "commit", "threads", "clock", "device", "torch", "repetitions")
OPERATION = "% of the time in "
NOTES = """\
Judged by the median on the clock of each part: CPU seconds are those of user and kernel of one
process, which tell what a program needs where others use the machine too; wall seconds are for an
idle one. Rivals took turns in one process. It kept the memory that it freed, as every job does and
as few scripts do, so rivals gained from that too; only `models` and `models-32` ran without.
"""


def report(folder: Path, titles: dict[str, str]) -> str:
    """The page.

    Args:
        folder: of the two files.
        titles: what each part measures, in the page's order.
    """
    parts = pd.read_csv(folder / "parts.csv", dtype=str).set_index("part")
    frame = with_factors(pd.read_csv(folder / "results.csv"))
    clocks = parts["clock"].to_dict()
    lines = ["# Benchmarks", "", "Written by `python benchmarks/run.py`; see its `--help`.", ""]
    lines += ["## Targets", "", NOTES, table(judged(frame, clocks)), ""]
    lines += ["Targets that no part measures:", ""]
    lines += [f"- {target}: {why}." for target, why in ELSEWHERE]
    for part in [name for name in titles if name in parts.index]:
        rows = frame[frame.part == part]
        lines += ["", f"## {part}", "", titles[part], "", condition(parts.loc[part]), ""]
        lines += [
            table(bounds(rows) if part.startswith("bounds") else of_clock(rows, clocks[part]))
        ]
    return "\n".join(lines) + "\n"


def condition(row: pd.Series) -> str:
    """When and how a part was measured."""
    threads = f"{row['threads']} thread" + ("s" if row["threads"] != "1" else "")
    return (
        f"{row['date']}, commit {row['commit']}, {threads}, judged by {row['clock']} time, "
        f"{row['device']}, torch {row['torch']}, {row['repetitions']} repetitions."
    )


def with_factors(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows, each rival's with the factor by which ours is ahead."""
    key = ["part", "case", "quantity"]
    ours = frame[frame.rival == OURS].set_index(key)["median"]
    base = pd.Series([ours.get(tuple(k)) for k in frame[key].itertuples(index=False)], frame.index)
    ahead = frame["median"] / base
    ahead = ahead.where(~frame.quantity.map(is_rate), 1 / ahead)
    return frame.assign(factor=ahead.where(frame.rival != OURS))


def of_clock(rows: pd.DataFrame, clock: str) -> pd.DataFrame:
    """The rows without those of the other clock where there are both; without empty columns."""
    (other,) = set(CLOCKS) - {clock}
    twins = rows.quantity.str.replace(other, clock, regex=False)
    known = set(zip(rows.case, rows.rival, rows.quantity))
    twin = [
        quantity != mine and (case, rival, quantity) in known
        for case, rival, mine, quantity in zip(rows.case, rows.rival, rows.quantity, twins)
    ]
    rows = rows[[not found for found in twin]].drop(columns="part")
    return rows.dropna(axis=1, how="all")


def bounds(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a piece of work, with the operations that most of its time is spent in."""
    found = []
    for (case, rival), group in rows.groupby(["case", "rival"], sort=False):
        values = group.set_index("quantity")["median"]
        mostly = [
            f"{name.removeprefix(OPERATION)} {share:.0f} %"
            for name, share in values.items()
            if name.startswith(OPERATION)
        ]
        if not mostly:  # the machine's best
            found += [(case, quantity, None, value, "") for quantity, value in values.items()]
            continue
        count = values.get("GFLOP")
        share = values.get("% of the time, products at the ceiling")
        found.append((case.removeprefix("bounds of "), rival, count, share, ", ".join(mostly)))
    names = ["work", "rival", "GFLOP", "products at the ceiling, % of the time", "mostly"]
    return pd.DataFrame(found, columns=names)


def table(frame: pd.DataFrame) -> str:
    """As Markdown, numbers to four digits."""
    shown = frame.astype(object).where(frame.notna(), None)
    return shown.to_markdown(index=False, floatfmt=".4g", missingval="")
