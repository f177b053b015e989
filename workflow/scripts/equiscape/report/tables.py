"""What the pages share to tabulate results, ours beside the published figures.

Gains are positive where an optimizer is *better* than the baseline, whatever the metric's
direction. Spreads over seeds are sample standard deviations (n - 1). A published figure stands in a
row only where data set, architecture and optimizer are those of the publication.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from equiscape.io import atomic_path, write_csv
from equiscape.report import load, pages, statistics
from equiscape.report.latex import booktabs
from equiscape.report.manifest import Manifest

PUBLISHED_CLASSES = {"adam": ("adamw", "adam"), "muon": ("muon",)}
"""Optimizer name of the publication -> the classes that may stand beside it."""


def write_tables(manifest: Manifest, folder: str | Path) -> list[Path]:
    """Write every table of the study as ``.csv`` (all digits), ``.md`` (to read), ``.tex``.

    Returns the paths written.
    """
    written = []
    for name, page in pages.pages(manifest).items():
        for stem in page.tables:
            table, text = pages.module(name).TABLES[stem]
            frame = table(manifest)
            path = Path(folder) / f"{stem}.csv"
            write_csv(path, frame)
            readable = path.with_suffix(".md")
            with atomic_path(readable) as temporary:
                temporary.write_text(text(manifest, frame), encoding="utf-8")
            latex = path.with_suffix(".tex")
            with atomic_path(latex) as temporary:
                temporary.write_text(booktabs(text(manifest, frame)), encoding="utf-8")
            written += [path, readable, latex]
    return written


def over_seeds(frame: pd.DataFrame, keys: list[str], value: str) -> pd.DataFrame:
    """Seeds, diverged seeds, mean and sample standard deviation of ``value`` over the seeds."""
    groups = frame.groupby(keys, sort=False, dropna=False)[value]
    table = pd.DataFrame(
        {
            "seeds": groups.size(),
            "diverged": groups.size() - groups.count(),
            "mean": groups.mean(),
            "std": groups.std(ddof=1),
        }
    )
    return table.reset_index()


def with_task(manifest: Manifest, frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the task's architecture and data set after its name."""
    for place, key in enumerate(("architecture", "dataset"), start=1):
        values = frame["task"].map(lambda task, key=key: manifest.tasks[task][key])
        frame.insert(place, key, values)
    return frame


def baseline(manifest: Manifest, frame: pd.DataFrame, keys: list[str], value: str) -> pd.Series:
    """For every row, ``value`` of the baseline optimizer in the row with the same ``keys``."""
    base = frame.loc[frame["optimizer"] == manifest.baseline, [*keys, value]]
    base = base.rename(columns={value: "_baseline"})
    return frame[keys].merge(base, on=keys, how="left")["_baseline"].set_axis(frame.index)


def better_by(value: pd.Series, base: pd.Series, direction: pd.Series) -> pd.Series:
    """By how much ``value`` is better than ``base``, whichever direction is better."""
    return (value - base) * np.where(direction == "max", 1.0, -1.0)


def gain_intervals(
    manifest: Manifest, scores: pd.DataFrame, frame: pd.DataFrame, keys: list[str]
) -> tuple[list[float], list[float]]:
    """The ends of the 95 % interval (Welch) of each row's gain; NaN for the baseline itself.

    Args:
        scores: one row a seed: optimizer, ``keys`` and score, NaN where there is none.
        frame: one row an optimizer and ``keys``, with direction.
    """
    samples = {
        key: values.dropna()
        for key, values in scores.groupby(["optimizer", *keys], sort=False)["score"]
    }
    low, high = [], []
    for _, row in frame.iterrows():
        sign, group = 1 if row["direction"] == "max" else -1, tuple(row[keys])
        base, own = (sign * samples[name, *group] for name in (manifest.baseline, row["optimizer"]))
        found = statistics.welch(base, own)
        itself = row["optimizer"] == manifest.baseline
        low.append(np.nan if itself else found.low)
        high.append(np.nan if itself else found.high)
    return low, high


def published(
    manifest: Manifest,
    table: str,
    frame: pd.DataFrame,
    columns: dict[str, str],
    extra: list[str] | None = None,
) -> pd.DataFrame:
    """``published_*`` columns for the rows of ``frame`` that the publication also has."""
    keys = ["dataset", "architecture", "optimizer", *(extra or [])]
    reference = load.published(manifest, table)
    names = {source: f"published_{name}" for source, name in columns.items()}
    reference = reference[[*keys, *columns]].rename(columns=names)
    left = frame[keys].astype(object)
    merged = left.merge(reference.astype(dict.fromkeys(keys, object)), on=keys, how="left")
    same = [
        manifest.optimizers[name]["class"] in PUBLISHED_CLASSES.get(name, ())
        for name in frame["optimizer"]
    ]
    return merged[list(names.values())].where(pd.Series(same)).set_axis(frame.index)
