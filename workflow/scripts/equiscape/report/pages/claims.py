"""What the publication claims and what lies beyond it: held, refuted, undecided or not measured."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from equiscape.report import claims, claims_beyond, claims_published, style
from equiscape.report.claims import FAILS, HOLDS, UNDECIDED, UNMEASURED
from equiscape.report.evidence import Evidence
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, interval, significant
from equiscape.report.page import Page
from equiscape.report.pages import sharpness
from equiscape.report.text import join, markdown
from equiscape.report.titles import optimizer_title, task_titles

PAGE = Page(
    title="Which claims hold?",
    category="Claims",
    reads=("metrics", "history"),
    tables={
        "claims": (
            "Every published claim and what lies beyond it: effect with 95 % interval, test after "
            "Holm's adjustment, verdict, and the smallest effect that as many seeds would have "
            "shown."
        ),
    },
    figures={
        "claims": (
            "Verdict on each claim against the baseline: ✓ holds, ✗ does not hold, ? undecided at "
            "this number of seeds, blank where not measured; with the effect where there is room, "
            "a ratio or a difference."
        ),
    },
    collects=True,
)

SECTIONS = {"published": "Published claims", "beyond": "Beyond the publication"}
LOOKS = {
    HOLDS: ("✓", "#BFE3D0"),
    FAILS: ("✗", "#F3C6B0"),
    UNDECIDED: ("?", "#E6E6E6"),
    UNMEASURED: ("", "#FFFFFF"),
}
FEW_TASKS, FEW_RIVALS = 7, 3
"""Up to how many tasks and rivals are shown one by one."""


def table(manifest: Manifest) -> pd.DataFrame:
    """One row a claim and optimizer, then one a task: :data:`equiscape.report.claims.COLUMNS`."""
    evidence = Evidence(manifest)
    found = [
        claim
        for optimizer in manifest.rivals
        for module in (claims_published, claims_beyond)
        for claim in module.claims(evidence, optimizer)
    ]
    return claims.table(found)


def effect(row: pd.Series, value: str = "effect") -> str:
    """The effect of a row with its interval."""
    if not row["tasks"]:
        return DASH
    return interval(row[value], row["low"], row["high"], row["unit"])


def size(row: pd.Series, column: str) -> str:
    """A detectable effect or bound in the unit of its row: ``1.8``, ``1.4×``."""
    text = significant(row[column], 3 if row["unit"] == "ratio" else 2)
    return text if text == DASH or row["unit"] != "ratio" else f"{text}×"


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown: an optimizer after another, published claims first."""
    parts = ["# Which claims hold?", *explain(manifest)]
    if frame.empty:
        return join([parts[0], "The study has one optimizer, so there is nothing to compare."])
    for optimizer in manifest.rivals:
        mine = frame[frame["optimizer"] == optimizer]
        parts.append(
            f"## {optimizer_title(optimizer)} against {optimizer_title(manifest.baseline)}"
        )
        for section, title in SECTIONS.items():
            rows = mine[(mine["section"] == section) & _whole(mine)]
            parts += [f"### {title}", _markdown(manifest, rows, section)]
        if len(manifest.rivals) <= FEW_RIVALS and (~_whole(mine)).any():
            parts += ["### Task by task", _markdown(manifest, mine[~_whole(mine)], "task")]
    return join(parts)


def _whole(frame: pd.DataFrame) -> pd.Series:
    """The rows over all tasks of a claim, or over its only one."""
    return (frame["tasks"] != 1) | ~frame.duplicated(
        ["section", "optimizer", "claim", "measure"], keep="first"
    )


def _markdown(manifest: Manifest, rows: pd.DataFrame, kind: str) -> str:
    names = task_titles(manifest)
    shown = []
    for _, row in rows.iterrows():
        cells = {"claim": row["claim"]}
        if kind == "task":
            cells["task"] = names[row["task"]]
        else:
            cells["measure"] = row["measure"]
            cells["tasks"] = names[row["task"]] if row["task"] else str(row["tasks"] or DASH)
        shown.append(
            cells
            | {
                "n": row["n"] or DASH,
                "effect [95 %]": effect(row),
                "verdict": row["verdict"] + (" at this n" if row["verdict"] == UNDECIDED else ""),
                "this n finds": size(row, "detectable"),
                "worth claiming": size(row, "bound") if row["tasks"] else DASH,
                "p": significant(row["p"], 2),
                "p, Holm": significant(row["p_holm"], 2),
                "against, Holm": significant(row["p_against_holm"], 2),
            }
        )
    made = pd.DataFrame(shown)
    missing = [f"- {row['claim']}: add {row['add']}" for _, row in rows.iterrows() if row["add"]]
    table = markdown(made, {c: c for c in made})
    return "\n\n".join([table, *(["Not measured:", "\n".join(missing)] if missing else [])])


def explain(manifest: Manifest) -> list[str]:
    """How the table comes to its verdicts."""
    base = optimizer_title(manifest.baseline)
    return [
        f"Effects are against {base}: differences (points of accuracy) or ratios of geometric "
        "means, over several tasks their mean; n counts seeds a side, the smallest of the tasks. "
        "Intervals are of Welch's t (on logarithms for ratios), for a ratio of standard deviations "
        "of the F distribution.",
        "*p* is the exact permutation test of no effect, seeds relabeled within each task "
        "(variances: F; a slope: t; *same* and *about*: two one-sided t tests). *Against* tests "
        "that the effect is as large as what is *worth claiming*, a size set before looking. "
        f"Holm's adjustment runs over the claims of one optimizer and section; task by task, over "
        f"the tasks of a claim. A claim **holds** where the adjusted p is below {claims.ALPHA:g} "
        "on the claimed side, **does not hold** where that against it is, and is undecided else. "
        "*This n finds*: the smallest effect that as many seeds, with the spread seen, show with a "
        "power of 80 % (two-sided 5 %, before adjustment; noncentral t).",
    ]


TABLES = {"claims": (table, text)}


def highlights(manifest: Manifest) -> list[str]:
    """How many claims hold, do not, and are open; and whether folding turns a ratio around."""
    frame = table(manifest)
    whole = frame[_whole(frame)]
    base, parts = optimizer_title(manifest.baseline), []
    for optimizer in manifest.rivals:
        name = optimizer_title(optimizer)
        for section, title in SECTIONS.items():
            rows = whole[(whole["optimizer"] == optimizer) & (whole["section"] == section)]
            counts = rows["verdict"].value_counts()
            head = (
                f"{title}, {name} against {base}: {counts.get(HOLDS, 0)} hold, "
                f"{counts.get(FAILS, 0)} do not, {counts.get(UNDECIDED, 0)} are undecided at this "
                f"number of seeds, {counts.get(UNMEASURED, 0)} were not measured."
            )
            if len(manifest.rivals) <= FEW_RIVALS:
                head = (
                    f"**{head}**{_named(rows)}" if section == "published" else head + _named(rows)
                )
            parts.append(head)
    if manifest.has("sharpness") and len(manifest.rivals) <= FEW_RIVALS:
        parts += folding(manifest)
    return parts


def _named(rows: pd.DataFrame) -> str:
    parts = []
    for verdict, word in ((HOLDS, "Hold"), (FAILS, "Do not hold"), (UNDECIDED, "Undecided")):
        chosen = rows[rows["verdict"] == verdict]
        if len(chosen):
            each = "; ".join(
                f"{row['claim']} {effect(row)}"
                + (
                    f", this n finds {size(row, 'detectable')}"
                    if verdict == UNDECIDED and np.isfinite(row["detectable"])
                    else ""
                )
                for _, row in chosen.iterrows()
            )
            parts.append(f" {word}: {each}.")
    return "".join(parts)


def folding(manifest: Manifest) -> list[str]:
    """Whether the ratio of largest eigenvalues turns around once batch norms are folded."""
    frame = sharpness.table(manifest)
    frame = frame[frame["task"].isin(sharpness.with_norms(sharpness.load(manifest)))]
    frame = frame[(frame["measure"] == "hessian_largest") & (frame["layer"] == "all")]
    names, base, parts = task_titles(manifest), optimizer_title(manifest.baseline), []
    for (task, optimizer), rows in frame.groupby(["task", "optimizer"], sort=False):
        rows = rows.set_index("folded")
        if optimizer == manifest.baseline or not {True, False} <= set(rows.index):
            continue
        raw, own = rows.loc[False], rows.loc[True]
        if not np.isfinite(raw["ratio"] + own["ratio"]):
            continue
        if raw["ratio_low"] > 1 > own["ratio_high"] or raw["ratio_high"] < 1 < own["ratio_low"]:
            verdict = "the ratio turns around, each interval on its side of 1"
        elif (raw["ratio"] - 1) * (own["ratio"] - 1) < 0:
            verdict = "the ratio is on the other side of 1, which the intervals do not settle"
        else:
            verdict = "the ratio stays on its side of 1"
        ends = [interval(r["ratio"], r["ratio_low"], r["ratio_high"], "ratio") for r in (raw, own)]
        parts.append(
            f"Largest λ of H, {names[str(task)]}, {optimizer_title(str(optimizer))} over {base}: "
            f"{ends[0]} as it is, {ends[1]} folded; {verdict}."
        )
    return parts


def verdicts(manifest: Manifest, frame: pd.DataFrame) -> Figure:
    """A cell a claim: with one rival a column a task, with several a column a rival.

    Args:
        frame: from :func:`table`.
    """
    rivals, names = manifest.rivals, task_titles(manifest)
    rows = list(dict.fromkeys(zip(frame["section"], frame["claim"])))
    if len(rivals) == 1 and len(names) <= FEW_TASKS:
        columns = {(rivals[0], ""): "all tasks"} if len(names) > 1 else {}
        columns |= {(rivals[0], task): title for task, title in names.items()}
    else:
        columns = {(rival, ""): optimizer_title(rival) for rival in rivals}
    figure, axis = style.single(1.3 + 0.17 * max(len(rows), 3), wide=True)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.012, 0, 0.988, 1))  # room for the longest claim
    if not rows:
        axis.text(0, 0, "one optimizer: nothing to compare", ha="center", va="center")
    whole = frame[_whole(frame)]
    for x, (rival, task) in enumerate(columns):
        cells = whole if not task else frame[frame["task"] == task]
        cells = cells[cells["optimizer"] == rival].drop_duplicates(["section", "claim"])
        for _, row in cells.iterrows():
            y = rows.index((row["section"], row["claim"]))
            _cell(axis, x, y, row, wide=len(columns) <= FEW_TASKS + 1)
    axis.set_xlim(-0.5, max(len(columns), 1) - 0.5)
    axis.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axis.set_yticks(range(len(rows)), [claim for _, claim in rows], fontsize=6.5)
    turned: dict[str, Any] = {"rotation": 60, "ha": "left"} if len(columns) > FEW_TASKS + 1 else {}
    axis.xaxis.tick_top()
    labels = [title if turned else title.replace(" ", "\n", 1) for title in columns.values()]
    axis.set_xticks(range(len(columns)), labels, fontsize=6.5, **turned)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    split = next((i for i, (section, _) in enumerate(rows) if section != "published"), None)
    if split:
        axis.axhline(split - 0.5, color="black", linewidth=0.8)
    handles = [Patch(facecolor=color, edgecolor="#999999", label=f"{sign} {verdict}".strip())
               for verdict, (sign, color) in LOOKS.items()]  # fmt: skip
    title = (
        " ".join([*map(optimizer_title, rivals[:1]), "against"]) if len(rivals) == 1 else "against"
    )
    style.legend(figure, handles, title=f"{title} {optimizer_title(manifest.baseline)}")
    return figure


def _cell(axis: Axes, x: int, y: int, row: pd.Series, wide: bool) -> None:
    sign, color = LOOKS[row["verdict"]]
    axis.add_patch(
        Rectangle((x - 0.48, y - 0.45), 0.96, 0.9, facecolor=color, edgecolor="#BBBBBB", lw=0.4)
    )
    value = ""
    if wide and row["tasks"]:
        value = interval(row["effect"], np.nan, np.nan, row["unit"])
    axis.text(x, y, f"{sign} {value}".strip(), ha="center", va="center_baseline", fontsize=6)
