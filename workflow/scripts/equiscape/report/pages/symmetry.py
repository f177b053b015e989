"""Which identities of parameter symmetry hold at the solutions, and how balanced these are."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equiscape.report import style
from equiscape.report.load import read_csv
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, significant
from equiscape.report.page import Page
from equiscape.report.text import join, markdown
from equiscape.report.titles import optimizer_title, task_title, task_titles

PAGE = Page(
    title="What parameter symmetry forces",
    category="Symmetry",
    reads=("symmetry",),
    tables={
        "symmetry": "Identities of the declared parameter symmetries, and how far they hold.",
        "symmetry_balance": "How unbalanced each symmetry's conserved quantity is, by layer.",
    },
    figures={
        "symmetry": (
            "Residuals of the identities that parameter symmetries force on gradient (hollow) and "
            "Hessian (solid), relative to the terms that cancel: a point per optimizer and family."
        ),
        "symmetry_balance": (
            "Relative imbalance of each symmetry's conserved quantity by layer, from input to "
            "output: zero where what a channel receives and what it sends on are balanced."
        ),
        "symmetry_overlap": (
            "Share of the gradient and of the leading Hessian eigenvectors that lies in the span "
            "of the symmetries; the line is the share of a random direction."
        ),
    },
)

COLUMNS = ("task", "optimizer", "level", "family", "name", "mode", "dimension", "first", "second",
           "rayleigh", "predicted", "imbalance", "relative_imbalance", "share",
           "random_share")  # fmt: skip


def load(manifest: Manifest) -> pd.DataFrame:
    """Every row of every checkpoint; see :mod:`equiscape.analyses.symmetry` for the levels."""
    frames = [read_csv(product.path, COLUMNS) for product in manifest.analysis("symmetry")]
    return pd.concat([f for f in frames if len(f)] or frames, ignore_index=True)


def table(manifest: Manifest) -> pd.DataFrame:
    """One row per task, optimizer, family and mode; the largest residual over seeds."""
    frame = load(manifest)
    rows = frame[frame["level"].isin(["family", "permutation"])]
    keys = ["task", "optimizer", "family", "mode", "dimension"]
    groups = rows.groupby(keys, sort=False)
    found = groups[["first", "second"]].max()
    found[["rayleigh", "predicted"]] = groups[["rayleigh", "predicted"]].mean()
    return found.reset_index()


def balance(manifest: Manifest) -> pd.DataFrame:
    """One row per task, optimizer and symmetry: mean and spread of its imbalance over seeds."""
    frame = load(manifest)
    rows = frame[frame["level"] == "symmetry"]
    keys = ["task", "optimizer", "family", "name", "mode", "dimension"]
    groups = rows.groupby(keys, sort=False)["relative_imbalance"]
    found = groups.agg(["size", "mean", "std"]).reset_index()
    return found.rename(columns={"size": "seeds"})


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The identities as Markdown, with how many hold to how many digits."""
    rows = [
        {
            "task": task_title(row["task"], manifest.tasks[row["task"]]),
            "optimizer": optimizer_title(row["optimizer"]),
            "family": row["family"],
            "mode": row["mode"],
            "dimension": int(row["dimension"]) or DASH,
            "first": f"{row['first']:.1e}",
            "second": f"{row['second']:.1e}",
        }
        for _, row in frame.iterrows()
    ]
    columns = {
        "task": "task",
        "optimizer": "optimizer",
        "family": "symmetry",
        "mode": "mode",
        "dimension": "dimension",
        "first": "gradient",
        "second": "Hessian",
    }
    worst = frame[frame["mode"] == "eval"][["first", "second"]].max()
    parts = [
        "# Identities of parameter symmetry",
        markdown(pd.DataFrame(rows, columns=list(columns)), columns),
    ]
    if np.isfinite(worst).all():
        parts.append(
            f"In eval mode the largest residual is {worst['first']:.1e} on the gradient and "
            f"{worst['second']:.1e} on the Hessian. In train mode the scale of a weight ahead of a "
            "batch norm holds only up to the norm's eps."
        )
    return join(parts)


def balance_text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The imbalance of every symmetry as Markdown."""
    rows = [
        {
            "task": task_title(row["task"], manifest.tasks[row["task"]]),
            "optimizer": optimizer_title(row["optimizer"]),
            "name": row["name"],
            "seeds": int(row["seeds"]),
            "mean": significant(row["mean"], 3),
            "std": DASH if np.isnan(row["std"]) else significant(row["std"], 2),
        }
        for _, row in frame.iterrows()
    ]
    columns = {
        "task": "task",
        "optimizer": "optimizer",
        "name": "symmetry",
        "seeds": "seeds",
        "mean": "relative imbalance",
        "std": "std over seeds",
    }
    note = (
        "Half the derivative of the squared parameter norm along a symmetry, over the squared norm "
        "of the parameters it changes. Gradient flow conserves it where the generator is linear "
        "and symmetric (scales); optimizers do not."
    )
    body = markdown(pd.DataFrame(rows, columns=list(columns)), columns)
    return join(["# Balance of the solutions", body, note])


TABLES = {"symmetry": (table, text), "symmetry_balance": (balance, balance_text)}


def residuals(manifest: Manifest, frame: pd.DataFrame) -> Figure:
    """Residuals of the identities, a panel per task, families from top to bottom."""
    color, marker = style.colors(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    tasks = [task for task in manifest.tasks if task in set(frame["task"])]
    longest = max((frame[frame["task"] == task]["family"].nunique() for task in tasks), default=1)
    figure, axes = style.panels(
        max(1, len(tasks)), columns=2, height=0.6 + 0.19 * longest, width=style.WIDTH
    )
    for axis, task in zip(axes, tasks):
        rows = frame[frame["task"] == task]
        kinds = list(dict.fromkeys(zip(rows["family"], rows["mode"])))
        for place, (family, mode) in enumerate(kinds):
            mine = rows[(rows["family"] == family) & (rows["mode"] == mode)]
            for offset, (_, row) in enumerate(mine.iterrows()):
                shift = 0.24 * (offset - (len(mine) - 1) / 2)
                for key, face in (("first", "white"), ("second", color[row["optimizer"]])):
                    axis.plot(
                        max(row[key], 1e-18), place + shift, marker[row["optimizer"]],
                        color=color[row["optimizer"]], markerfacecolor=face, markersize=4.5,
                    )  # fmt: skip
        axis.set_xscale("log")
        axis.set_xlim(3e-19, 5)
        axis.set_xticks([1e-18, 1e-12, 1e-6, 1])
        axis.set_yticks(
            range(len(kinds)),
            [f"{family} (train)" if mode == "train" else family for family, mode in kinds],
        )
        axis.set_ylim(len(kinds) - 0.5, -0.5)
        axis.grid(axis="x")
        axis.set_title(titles[task], loc="left")
        axis.set_xlabel("relative residual")
    handles = style.optimizer_handles(manifest, line=False)
    handles += [
        Line2D([], [], color=style.GRAY, marker="o", linestyle="none", markerfacecolor=face,
               label=name)
        for name, face in (("gradient", "white"), ("Hessian", style.GRAY))
    ]  # fmt: skip
    style.legend(figure, handles)
    return figure


def balances(manifest: Manifest, frame: pd.DataFrame) -> Figure:
    """Relative imbalance of the scales, a panel per task, symmetries in the network's order."""
    color, marker = style.colors(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    frame = frame[(frame["mode"] == "eval") & frame["family"].str.contains("scale")]
    tasks = [task for task in manifest.tasks if task in set(frame["task"])]
    figure, axes = style.panels(max(1, len(tasks)), columns=2, height=2.0, width=style.WIDTH)
    for axis, task in zip(axes, tasks):
        rows = frame[frame["task"] == task]
        names = list(dict.fromkeys(rows["name"]))
        for optimizer in manifest.optimizers:
            mine = rows[rows["optimizer"] == optimizer].set_index("name")
            axis.errorbar(
                range(len(names)), mine["mean"].reindex(names), mine["std"].reindex(names),
                color=color[optimizer], marker=marker[optimizer], markersize=4, linestyle="none",
                capsize=2, linewidth=1,
            )  # fmt: skip
        shown = range(0, len(names), max(1, len(names) // 6))
        labels = [names[i].removesuffix(" scale") for i in shown]
        axis.set_xticks(list(shown), labels, rotation=30, ha="right", fontsize=6)
        axis.set_ylim(0, 1.12 * axis.dataLim.y1 if axis.dataLim.y1 > 0 else 1)
        axis.set_xlim(-0.5, len(names) - 0.5)
        axis.grid(axis="y")
        axis.set_title(titles[task], loc="left")
    for axis in style.leftmost(axes, columns=2):
        axis.set_ylabel("relative imbalance")
    style.legend(figure, style.optimizer_handles(manifest, line=False))
    return figure


def overlaps(manifest: Manifest, measured: pd.DataFrame) -> Figure:
    """Share of gradient and leading eigenvectors in the symmetries' span, a panel per task."""
    color, marker = style.colors(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    rows = measured[(measured["level"] == "direction") & (measured["mode"] == "eval")]
    tasks = [task for task in manifest.tasks if task in set(rows["task"])]
    figure, axes = style.panels(max(1, len(tasks)), height=2.1)
    for axis, task in zip(axes, tasks):
        mine = rows[rows["task"] == task]
        names = list(dict.fromkeys(mine["name"]))
        for optimizer in manifest.optimizers:
            shares = mine[mine["optimizer"] == optimizer].groupby("name")["share"].mean()
            axis.plot(
                range(len(names)), shares.reindex(names).clip(lower=1e-12), marker[optimizer],
                color=color[optimizer], linestyle="none", markersize=4.5,
            )  # fmt: skip
        axis.axhline(mine["random_share"].mean(), color=style.GRAY, linewidth=0.8, linestyle="--")
        axis.set_yscale("log")
        axis.set_ylim(1e-13, 1.5)
        axis.set_xlim(-0.5, len(names) - 0.5)
        axis.set_xticks(
            range(len(names)),
            [n.replace("gradient", "g").replace("eigenvector ", "v") for n in names],
        )
        axis.grid(axis="y")
        axis.set_title(titles[task], loc="left")
    for axis in style.leftmost(axes):
        axis.set_ylabel("share in the span")
    handles = style.optimizer_handles(manifest, line=False)
    handles.append(Line2D([], [], color=style.GRAY, linestyle="--", label="a random direction"))
    style.legend(figure, handles)
    return figure
