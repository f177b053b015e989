"""Whether accuracy follows the spectrum: dose, matched ranks and placebos, truncation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from equiscape.report import load, statistics, style
from equiscape.report.budget import at_equal_loss
from equiscape.report.load import read_csv
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import plus_minus, signed, significant
from equiscape.report.page import Page
from equiscape.report.pages import sharpness
from equiscape.report.tables import with_task
from equiscape.report.text import join, markdown, task_title
from equiscape.report.titles import metric_title, optimizer_title, task_titles

PAGE = Page(
    title="Does accuracy follow the spectrum?",
    category="Spectra",
    reads=("metrics", "history", "rank", "truncation"),
    tables={
        "interventions": (
            "Test score, stable ranks and the score at equal training loss of every arm, with "
            "intervals over seeds."
        ),
        "interventions_claims": (
            "Whether rank and score are monotone in the power of the updates' spectrum, "
            "whether held ranks move the score against their placebo, and what may be said."
        ),
    },
    figures={
        "interventions": (
            "Test score against the median stable rank of hidden weights, one point per seed and "
            "arm; crosses are means with 95 % intervals over seeds."
        ),
        "interventions_representations": (
            "Test score against the median stable rank of representations, as above."
        ),
        "interventions_s_m": (
            "Test score against S_M, the largest curvature of a step whose matrices are "
            "orthogonal (batch norms folded), as above; empty where the study does not measure "
            "it (analysis sharpness)."
        ),
        "interventions_truncation": (
            "Test score at the representative checkpoint with only the largest singular values of "
            "every hidden matrix kept: robustness, not cause."
        ),
    },
    collects=True,  # the analysis sharpness, where the study has it
)

RANKS = ("layer", "kind", "rows", "columns", "stable_rank")
MEASURES = {
    "weight_rank": "median stable rank of hidden weights",
    "representation_rank": "median stable rank of representations",
    "s_m": "S_M: curvature of orthogonalized steps",
}
MIN_SIDE = 8  # matrices with a shorter side are not hidden ones


def roles(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """What each optimizer is in the design of the study.

    ``dose``: the power of the updates' spectrum, if it is such an arm. ``held``: the optimizer
    whose ranks its weights are held to. ``placebo``: whether those are its own kind's.
    """
    found = {}
    for name, entry in manifest.optimizers.items():
        constraints = (entry.get("training") or {}).get("constraints") or []
        held = [c["ranks_of"] for c in constraints if isinstance(c, Mapping) and c.get("ranks_of")]
        source = held[0] if held else None
        found[name] = {
            "dose": (entry.get("settings") or {}).get("spectrum"),
            "held": source,
            "placebo": source is not None
            and manifest.optimizers[source]["class"] == entry["class"],
        }
    return found


def placebos(manifest: Manifest) -> dict[str, str]:
    """Optimizer held to another's ranks -> the one of its class that is held to its own."""
    role = roles(manifest)
    found: dict[str, str] = {}
    for held, entry in manifest.optimizers.items():
        if role[held]["held"] and not role[held]["placebo"]:
            own = [
                name
                for name, other in manifest.optimizers.items()
                if role[name]["placebo"] and other["class"] == entry["class"]
            ]
            found |= dict.fromkeys([held], own[0]) if own else {}
    return found


def points(manifest: Manifest) -> pd.DataFrame:
    """One row per task, optimizer and seed.

    Columns: task, optimizer, seed, score (test, best validation epoch), direction, unit, metric,
    train_loss (of the last epoch), equal_loss_score, weight_rank, representation_rank, and s_m
    (folded, at the step's own scale; NaN without the analysis ``sharpness``). Ranks are
    NaN where the analysis ``rank`` has only the representative (``seeds: all`` gives every seed).
    """
    finals = load.finals(manifest)
    frame = finals[finals["protocol"] == "best_validation"]
    keys = ["task", "optimizer", "seed"]
    frame = frame[[*keys, "score", "direction", "unit", "metric"]].reset_index(drop=True)
    histories = load.histories(manifest)
    last = histories.dropna(subset="train_loss").groupby(keys, sort=False)["train_loss"].last()
    frame = frame.merge(last.reset_index(), on=keys, how="left")
    frame = frame.merge(at_equal_loss(histories, frame), on=keys, how="left")
    ranks = []
    for product in manifest.analysis("rank"):
        table = read_csv(product.path, RANKS)
        hidden = (table["kind"] == "weight") & (table[["rows", "columns"]].min(axis=1) >= MIN_SIDE)
        ranks.append(
            {
                "task": product.task,
                "optimizer": product.optimizer,
                "seed": product.seed if product.seed is not None else np.nan,
                "weight_rank": table.loc[hidden, "stable_rank"].median(),
                "representation_rank": table.loc[
                    table["kind"] == "representation", "stable_rank"
                ].median(),
            }
        )
    frame = frame.merge(pd.DataFrame(ranks), on=keys, how="left")
    return frame.merge(_step_sharpness(manifest), on=keys, how="left")


def _step_sharpness(manifest: Manifest) -> pd.DataFrame:
    """S_M of the folded network at the measured seeds; no rows where it was not measured."""
    keys = ["task", "optimizer", "seed"]
    if not manifest.has("sharpness"):
        return pd.DataFrame({key: pd.Series(dtype=t) for key, t in zip(keys, ("O", "O", int))}
                            | {"s_m": pd.Series(dtype=float)})  # fmt: skip
    cells = sharpness.load(manifest)
    cells = cells[cells["folded"] & (cells["measure"] == "spectral_step")]
    return cells[[*keys, "value"]].rename(columns={"value": "s_m"})


def interval(values: pd.Series) -> tuple[float, float]:
    """Mean of a sample and the half width of its 95 % t interval; NaN where there is none."""
    found = statistics.mean_interval(values)
    return found.value, (found.high - found.low) / 2


def table(manifest: Manifest) -> pd.DataFrame:
    """One row per task and optimizer: mean and half width of the 95 % interval of each measure.

    Columns: task, architecture, dataset, optimizer, held (whose ranks), dose, placebo, seeds,
    diverged, metric, unit, direction, and for score, equal_loss_score, train_loss, weight_rank and
    representation_rank ``<name>`` and ``<name>_half``.
    """
    role, rows = roles(manifest), []
    for (task, optimizer), group in points(manifest).groupby(["task", "optimizer"], sort=False):
        first = group.iloc[0]
        what = role[optimizer]
        row = {"task": task, "optimizer": optimizer, "held": what["held"] or "free"}
        row |= {"dose": np.nan if what["dose"] is None else float(what["dose"])}
        row |= {"placebo": what["placebo"]}
        row |= {"seeds": len(group), "diverged": int(group["score"].isna().sum())}
        row |= {key: first[key] for key in ("metric", "unit", "direction")}
        for name in ("score", "equal_loss_score", "train_loss", *MEASURES):
            row[name], row[f"{name}_half"] = interval(group[name])
        rows.append(row)
    return with_task(manifest, pd.DataFrame(rows))


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown."""
    rows = [
        {
            "task": task_title(manifest, row),
            "arm": optimizer_title(row["optimizer"]),
            "seeds": row["seeds"] - row["diverged"],
            "test score": plus_minus(row["score"], row["score_half"], row["unit"]),
            "at equal training loss": plus_minus(
                row["equal_loss_score"], row["equal_loss_score_half"], row["unit"]
            ),
            "training loss": plus_minus(row["train_loss"], row["train_loss_half"]),
            "rank of weights": plus_minus(row["weight_rank"], row["weight_rank_half"]),
            "of representations": plus_minus(
                row["representation_rank"], row["representation_rank_half"]
            ),
            "S_M": plus_minus(row["s_m"], row["s_m_half"]),
        }
        for _, row in frame.iterrows()
    ]
    made = pd.DataFrame(rows)
    return join(
        [
            "# Interventions",
            "Mean over seeds ± half of its 95 % t interval. Test score of the best validation "
            "epoch; the same of the first epoch at the lowest training loss that every cell of the "
            "task came to; training loss as minimized, last epoch; medians of stable ranks over "
            "hidden weight matrices and over pooled representations.",
            markdown(made, {c: c for c in made}),
        ]
    )


def claims(manifest: Manifest) -> pd.DataFrame:
    """Per task, what the arms allow to be said.

    A causal sentence needs both: mean rank of weights and mean score are strictly monotone in the
    power of the updates' spectrum, and every optimizer that was held to another's ranks has
    another score than its placebo (95 % Welch interval without zero), on the side
    that the doses say.

    Columns: task, architecture, dataset, doses (powers, descending), rank_monotone,
    score_monotone, direction_of_dose (+1: better with rank), and one row per held arm and
    placebo: held, placebo, rank_difference, estimate, low, high, moved; causal (of the task).
    """
    role, frame, rows = roles(manifest), points(manifest), []
    for task, cells in frame.groupby("task", sort=False):
        doses = sorted(
            (n for n in manifest.optimizers if role[n]["dose"] is not None),
            key=lambda name: -float(role[name]["dose"]),
        )
        means = cells.groupby("optimizer")[["score", "weight_rank"]].mean()
        sign = 1.0 if cells["direction"].iloc[0] == "max" else -1.0
        ranks = means["weight_rank"].reindex(doses).to_numpy()
        scores = sign * means["score"].reindex(doses).to_numpy()
        along = {"rank": _monotone(ranks), "score": _monotone(scores)}
        towards = along["rank"] * along["score"]
        pairs = []
        for held, placebo in placebos(manifest).items():
            values = [
                sign * cells.loc[cells["optimizer"] == name, "score"].dropna()
                for name in (placebo, held)
            ]
            found = statistics.welch(*values)
            estimate, low, high = found.value, found.low, found.high
            rank_difference = means["weight_rank"].get(held, np.nan) - means["weight_rank"].get(
                placebo, np.nan
            )
            excludes = low > 0 or high < 0
            moved = bool(
                excludes and towards and np.sign(estimate) == towards * np.sign(rank_difference)
            )
            pairs.append(
                {
                    "held": held,
                    "placebo": placebo,
                    "rank_difference": rank_difference,
                    "estimate": estimate,
                    "low": low,
                    "high": high,
                    "moved": moved,
                }
            )
        causal = bool(towards) and bool(pairs) and all(pair["moved"] for pair in pairs)
        shared = {
            "task": task,
            "doses": " ".join(f"{float(role[name]['dose']):g}" for name in doses) or "none",
            "rank_monotone": bool(along["rank"]),
            "score_monotone": bool(along["score"]),
            "direction_of_dose": int(towards),
            "unit": cells["unit"].iloc[0],
        }
        rows += [{**shared, **pair, "causal": causal} for pair in pairs or [{}]]
    return with_task(manifest, pd.DataFrame(rows))


def _monotone(values: np.ndarray) -> int:
    """1 for strictly rising, -1 for strictly falling, 0 for neither or fewer than three values."""
    steps = np.sign(np.diff(values))
    if len(steps) < 2 or not np.isfinite(values).all():
        return 0
    return int(steps[0]) if steps[0] and (steps == steps[0]).all() else 0


def claims_text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The claims as sentences."""
    parts = [
        "# What the interventions allow to be said",
        "The rule, fixed beforehand: that accuracy *follows* the spectrum may be said of a task "
        "only if the mean rank of weights and the mean score are both strictly monotone in the "
        "power p of the updates' spectrum, and if each optimizer held to the other's stable ranks "
        "scores otherwise than its placebo, held to its own (95 % Welch interval without zero), "
        "on the side that the doses say. "
        "Truncation after training tests robustness, not cause, and enters no claim.",
    ]
    for _, group in frame.groupby("task", sort=False):
        first = group.iloc[0]
        lines = [f"## {task_title(manifest, first)}"]
        if first["doses"] == "none":
            lines.append("The study has no arms with a power of the updates' spectrum.")
        else:
            words = {True: "is", False: "is not"}
            lines.append(
                f"Over p = {first['doses'].replace(' ', ', ')} the rank of weights "
                f"{words[bool(first['rank_monotone'])]} monotone, the score "
                f"{words[bool(first['score_monotone'])]}."
            )
        for _, row in group.iterrows():
            if not isinstance(row.get("held"), str):
                continue
            names = [optimizer_title(row[name]) for name in ("held", "placebo")]
            found = [signed(row[name], row["unit"]) for name in ("estimate", "low", "high")]
            lines.append(
                f"- {names[0]} against {names[1]}: rank {signed(row['rank_difference'])}, score "
                f"{found[0]} [{found[1]}, {found[2]}], positive where better."
            )
        if first["causal"]:
            side = "higher" if first["direction_of_dose"] > 0 else "lower"
            lines.append(
                "**Both conditions hold: in this task the score follows the spectrum of the "
                f"weights, better with {side} stable rank.**"
            )
        else:
            lines.append(
                "The conditions do not hold together: ranks and scores go along with each other at "
                "most; no causal sentence is warranted."
            )
        parts.append("\n\n".join(lines))
    return join(parts)


TABLES = {"interventions": (table, text), "interventions_claims": (claims, claims_text)}


def dose_response(manifest: Manifest, frame: pd.DataFrame, measure: str = "weight_rank") -> Figure:
    """Score against a rank: one point per seed and arm, a cross of intervals for each arm.

    Args:
        frame: from :func:`points`.
        measure: of :data:`MEASURES`.
    """
    manifest = manifest.only("rank", "truncation")
    color, marker = style.colors(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    figure, axes = style.panels(len(manifest.tasks), columns=2, height=3.0, width=style.WIDTH)
    for axis, task in zip(axes, manifest.tasks):
        cells = frame[frame["task"] == task]
        for optimizer in manifest.optimizers:
            arm = cells[cells["optimizer"] == optimizer].dropna(subset=["score", measure])
            if arm.empty:
                continue
            look: dict[str, Any] = {"color": color[optimizer], "marker": marker[optimizer]}
            axis.plot(arm[measure], arm["score"], ls="none", markersize=3, alpha=0.45, **look)
            (x, dx), (y, dy) = interval(arm[measure]), interval(arm["score"])
            axis.errorbar(
                x, y, xerr=np.nan_to_num(dx), yerr=np.nan_to_num(dy), markersize=6,
                markeredgecolor="black", markeredgewidth=0.6, elinewidth=0.8, **look,
            )  # fmt: skip
        if measure == "s_m" and (cells[measure].dropna() > 0).any():
            style.log_axis(axis, "x")
        elif cells[measure].isna().all():
            axis.text(0.5, 0.5, "not measured", ha="center", transform=axis.transAxes)
        axis.set_title(titles[task], loc="left")
        axis.set_xlabel(MEASURES[measure])
        if len(cells):
            axis.set_ylabel(f"test {metric_title(cells['metric'].iloc[0], cells['unit'].iloc[0])}")
        axis.grid(axis="both")
    style.legend(figure, style.optimizer_handles(manifest, line=False))
    return figure


def truncation(manifest: Manifest) -> Figure:
    """Score against the share of singular values kept, one line an arm."""
    manifest = manifest.only("truncation")
    color, marker = style.colors(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    figure, axes = style.panels(len(manifest.tasks), columns=2, height=2.6, width=style.WIDTH)
    for axis, task in zip(axes, manifest.tasks):
        for product in manifest.analysis("truncation"):
            if product.task != task or product.seed is not None:
                continue
            cells = read_csv(product.path, ("kept", "test_score")).sort_values("kept")
            name = str(product.optimizer)
            axis.plot(cells["kept"], cells["test_score"], color=color[name], marker=marker[name],
                      markersize=3, linewidth=0.9)  # fmt: skip
        axis.set_title(titles[task], loc="left")
        axis.set_xlabel("share of singular values kept")
        axis.set_ylabel("test score")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: significant(value, 3))
        axis.grid(axis="y")
    style.legend(figure, style.optimizer_handles(manifest))
    return figure
