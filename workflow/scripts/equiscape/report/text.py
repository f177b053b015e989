"""What the pages share to describe tables in Markdown: what a person reads first.

Every table opens by saying what its figures are, so that it can be quoted on its own.
"""

from collections.abc import Iterable

import pandas as pd

from equiscape.report import load, titles
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, plus_minus, ratio, signed

SOURCE = "arXiv 2605.27662"


STAND_IN = (
    f"Published figures ({SOURCE}) stand only beside results on the publication's own data set."
)


def elsewhere(manifest: Manifest, table: str, frame: pd.DataFrame) -> list[str]:
    """The published figures of the study's architectures on data that this study did not use."""
    column = "published_largest" if table == "hessian" else "published_mean"
    matched = frame[frame[column].notna()]
    known = set(zip(matched["dataset"], matched["architecture"], matched["optimizer"]))
    published = load.published(manifest, table)
    published = published[published["architecture"].isin(frame["architecture"])]
    published = published[published["optimizer"].isin(manifest.optimizers)]  # no one else's
    rows = []
    for _, row in published.iterrows():
        if (row["dataset"], row["architecture"], row["optimizer"]) in known:
            continue
        name = titles.dataset_title(row["dataset"]) + ("-C" if table == "robustness" else "")
        cell = {
            "data": name,
            "architecture": titles.ARCHITECTURES.get(row["architecture"], row["architecture"]),
            "optimizer": titles.OPTIMIZERS[row["optimizer"]].split(" ")[0],
        }
        if table == "hessian":
            cell |= {"largest λ": f"{row['largest']:.2f}", "trace": f"{row['trace']:.2f}"}
        else:
            cell[f"{row['metric']}, {row['unit']}"] = plus_minus(row["mean"], row["std"], "%")
        rows.append(cell)
    if not rows:
        return []
    return [
        f"## Published, on other data ({SOURCE})",
        "For orientation only: these are not results on this study's data, so no row above is to "
        "be held against them.",
        markdown(pd.DataFrame(rows), {c: c for c in rows[0]}),
    ]


def diverged(frame: pd.DataFrame) -> list[str]:
    """A sentence on the seeds that diverged, if any did."""
    bad = frame[frame["diverged"] > 0]
    if bad.empty:
        return []
    cells = [
        f"{pair_title(row)} ({row['diverged']} of {row['seeds']})" for _, row in bad.iterrows()
    ]
    return [f"Diverged seeds, left out of mean and spread: {', '.join(cells)}."]


def unmeasured(manifest: Manifest, analysis: str, frame: pd.DataFrame) -> list[str]:
    """A sentence on tasks and optimizers without a row in ``frame``, where every cell diverged."""
    known = set(zip(frame["task"], frame["optimizer"]))
    pairs = [
        (product.task, product.optimizer)
        for product in manifest.analysis(analysis)
        if (product.task, product.optimizer) not in known
    ]
    names = [f"{task} with {optimizer}" for task, optimizer in dict.fromkeys(pairs)]
    return [f"Not measured, since every cell diverged: {', '.join(names)}."] if names else []


def task_title(manifest: Manifest, row: pd.Series) -> str:
    """The title of a row's task."""
    return titles.task_title(row["task"], manifest.tasks[row["task"]])


def pair_title(row: pd.Series) -> str:
    """``egnn with muon``, as in the configuration."""
    return f"{row['task']} with {row['optimizer']}"


def of_tasks(manifest: Manifest, tasks: Iterable[str], facts: Iterable[str]) -> str:
    """``96 samples of train (EGNN, DGCNN); 128 samples of train (GINE)``: each fact once.

    The names are left out where one fact holds for all.
    """
    groups: dict[str, list[str]] = {}
    for task, fact in zip(tasks, facts):
        title = titles.task_title(task, manifest.tasks[task])
        if title not in groups.setdefault(fact, []):
            groups[fact].append(title)
    if len(groups) < 2:
        return "; ".join(groups)
    return "; ".join(f"{fact} ({', '.join(names)})" for fact, names in groups.items())


def gain(manifest: Manifest, row: pd.Series, unit: str, column: str = "gain") -> str:
    """A gain over the baseline; a dash for the baseline itself."""
    return DASH if row["optimizer"] == manifest.baseline else signed(row[column], unit)


def ratio_to_baseline(manifest: Manifest, row: pd.Series, column: str) -> str:
    """A ratio to the baseline; a dash for the baseline itself."""
    return DASH if row["optimizer"] == manifest.baseline else ratio(row[column])


def markdown(frame: pd.DataFrame, columns: dict[str, str]) -> str:
    """The named columns of a table as Markdown, under their titles."""
    table = frame[list(columns)].rename(columns=columns).astype(str)
    return table.to_markdown(index=False, disable_numparse=True)


def join(parts: Iterable[str]) -> str:
    """Paragraphs as one text."""
    return "\n\n".join(parts) + "\n"


def body(text: str) -> str:
    """A table's Markdown to stand inside a notebook: without its title, headings a level down."""
    lines = text.split("\n")[1:]
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in lines).strip()
