"""Tidy tables of the study's results, ours beside the published figures.

Gains are positive where an optimizer is *better* than the baseline, whatever the metric's
direction. Spreads over seeds are sample standard deviations (n - 1). A published figure stands in a
row only where data set, architecture and optimizer are those of the publication.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from equiscape.io import atomic_path, write_csv
from equiscape.report import load
from equiscape.report.manifest import Manifest

PUBLISHED_CLASSES = {"adam": ("adamw", "adam"), "muon": ("muon",)}
"""Optimizer name of the publication -> the classes that may stand beside it."""
BEST = ("best_validation", "best_test")
"""The protocols that the published "best checkpoint" may mean."""


def accuracy(manifest: Manifest) -> pd.DataFrame:
    """Test scores: one row a task, optimizer and protocol.

    Columns: task, architecture, dataset, optimizer, lr, wd, metric, unit, direction, protocol,
    seeds, diverged, mean, std, gain, relative_gain (in percent of the baseline), published_mean,
    published_std, published_gain. Mean and std are over the seeds that did not diverge.
    """
    keys = ["task", "optimizer", "lr", "wd", "metric", "unit", "direction", "protocol"]
    frame = _over_seeds(load.finals(manifest), keys, "score")
    frame = _with_task(manifest, frame)
    base = _baseline(manifest, frame, ["task", "protocol"], "mean")
    frame["gain"] = _gain(frame["mean"], base, frame["direction"])
    frame["relative_gain"] = 100 * frame["gain"] / base.abs()
    beside = _published(manifest, "accuracy", frame, {"mean": "mean", "std": "std"})
    beside = beside.where(frame["protocol"].isin(BEST))
    frame = pd.concat([frame, beside], axis=1)
    base = _baseline(manifest, frame, ["task", "protocol"], "published_mean")
    frame["published_gain"] = _gain(frame["published_mean"], base, frame["direction"])
    return frame


def hessian(manifest: Manifest) -> pd.DataFrame:
    """Curvature of the training loss at the representatives: one row a task and optimizer.

    ``*_ratio`` is to the baseline, NaN to a trace within two standard errors of zero;
    ``*_residual`` bounds the distance of an eigenvalue to the reported one, ``trace_se`` is the
    standard error of the trace, ``converged`` whether largest and smallest eigenvalue reached the
    tolerance, ``adaptive_largest`` the largest eigenvalue of |theta| H |theta|, which rescalings
    between layers leave alone (NaN where not measured).
    """
    rows = []
    for (task, optimizer), data in load.hessians(manifest).items():
        rows.append(
            {
                "task": task,
                "optimizer": optimizer,
                "seed": data["seed"],
                "split": data["data"]["split"],
                "samples": data["data"]["samples"],
                "parameters": data["parameters"],
                "method": data["method"],
                "loss": data["loss_value"],
                "largest": data["largest"]["value"],
                "largest_residual": data["largest"]["residual"],
                "smallest": data["smallest"]["value"],
                "smallest_residual": data["smallest"]["residual"],
                "power_iteration": data["power_iteration"]["value"],
                "trace": data["trace"]["value"],
                "trace_se": data["trace"]["standard_error"],
                "adaptive_largest": data["adaptive"]["largest"]["value"],
                "converged": data["converged"],
            }
        )
    frame = _with_task(manifest, pd.DataFrame(rows))
    beside = _published(manifest, "hessian", frame, {"largest": "largest", "trace": "trace"})
    frame = pd.concat([frame, beside], axis=1)
    for column in ("largest", "trace", "published_largest", "published_trace"):
        base = _baseline(manifest, frame, ["task"], column)
        if column == "trace":
            base = base.where(base.abs() > 2 * _baseline(manifest, frame, ["task"], "trace_se"))
        frame[f"{column}_ratio"] = frame[column] / base
    return frame


def rank(manifest: Manifest) -> pd.DataFrame:
    """Ranks layer by layer, with the ratio of each optimizer to the baseline."""
    frame = _with_task(manifest, load.ranks(manifest))
    for measure in ("stable_rank", "effective_rank"):
        base = _baseline(manifest, frame, ["task", "kind", "layer"], measure)
        frame[f"{measure}_ratio"] = frame[measure] / base
    return frame


def rank_summary(manifest: Manifest) -> pd.DataFrame:
    """One row a task, kind, measure and optimizer other than the baseline.

    Columns: layers, higher (layers where the optimizer's rank is above the baseline's),
    share_higher, median_ratio, last_ratio (at the layer nearest the output).
    """
    frame = rank(manifest)
    frame = frame[frame["optimizer"] != manifest.baseline]
    rows = []
    for (task, kind, optimizer), group in frame.groupby(["task", "kind", "optimizer"], sort=False):
        for measure in ("stable_rank", "effective_rank"):
            ratio = group[f"{measure}_ratio"].dropna()
            rows.append(
                {
                    "task": task,
                    "optimizer": optimizer,
                    "kind": kind,
                    "measure": measure,
                    "layers": len(ratio),
                    "higher": int((ratio > 1).sum()),
                    "share_higher": (ratio > 1).mean(),
                    "median_ratio": ratio.median(),
                    "last_ratio": ratio.iloc[-1] if len(ratio) else np.nan,
                }
            )
    columns = ["task", "optimizer", "kind", "measure", "layers", "higher", "share_higher"]
    return pd.DataFrame(rows, columns=[*columns, "median_ratio", "last_ratio"])


def robustness(manifest: Manifest) -> pd.DataFrame:
    """Accuracy on corrupted test clouds: one row a task and optimizer.

    First the mean over corruptions and severities of each seed, then mean and std over seeds, as in
    the publication. ``corruptions`` counts those in the mean: the published figure covers all 15,
    and stands only beside a result on the published arrays.
    """
    cells = load.robustness(manifest)
    counts = cells.groupby(["task", "optimizer"], sort=False)[["corruption", "severity"]].nunique()
    seeds = cells.groupby(["task", "optimizer", "seed"], sort=False)["accuracy"].mean()
    frame = _over_seeds(seeds.reset_index(), ["task", "optimizer"], "accuracy")
    frame["corruptions"], frame["severities"] = counts.to_numpy().T
    frame = _with_task(manifest, frame)
    frame["gain"] = frame["mean"] - _baseline(manifest, frame, ["task"], "mean")
    arrays = frame["task"].map(lambda task: manifest.tasks[task]["corruptions"] == "published")
    frame["arrays"] = np.where(arrays, "published", "generated")
    beside = _published(manifest, "robustness", frame, {"mean": "mean", "std": "std"})
    frame = pd.concat([frame, beside.where(arrays)], axis=1)
    base = _baseline(manifest, frame, ["task"], "published_mean")
    frame["published_gain"] = frame["published_mean"] - base
    return frame


def molecules(manifest: Manifest) -> pd.DataFrame:
    """Molecular and graph tasks: one row a task and optimizer, at the best validation epoch.

    Columns as in :func:`accuracy`, with ``target`` and ``change`` (in percent of the baseline,
    negative where a lower-is-better score fell) and ``win`` (strictly better than the baseline).
    """
    frame = accuracy(manifest)
    chosen = frame["task"].isin(manifest.molecular_tasks) & (frame["protocol"] == "best_validation")
    frame = frame[chosen].reset_index(drop=True)
    frame = frame.drop(columns=["published_mean", "published_std", "published_gain"])
    targets = frame["task"].map(lambda task: manifest.tasks[task].get("target"))
    frame.insert(3, "target", targets)
    base = _baseline(manifest, frame, ["task"], "mean")
    frame["change"] = 100 * (frame["mean"] - base) / base.abs()
    frame["win"] = (frame["gain"] > 0).where(frame["optimizer"] != manifest.baseline)
    beside = _published(manifest, "molecules", frame, {"mean": "mean"}, ["target"])
    return pd.concat([frame, beside], axis=1)


def write_tables(manifest: Manifest, folder: str | Path) -> list[Path]:
    """Write every table of the study as ``.csv`` (all digits) and ``.md`` (to read).

    The names are those of :func:`equiscape.report.manifest.tables`. Returns the paths written.
    """
    from equiscape.report import manifest as products
    from equiscape.report import markdown

    written = []
    for name in products.tables(manifest):
        frame = TABLES[name](manifest)
        path = Path(folder) / f"{name}.csv"
        write_csv(path, frame)
        text = Path(folder) / f"{name}.md"
        with atomic_path(text) as temporary:
            temporary.write_text(markdown.RENDERERS[name](manifest, frame), encoding="utf-8")
        written += [path, text]
    return written


def console(manifest: Manifest) -> str:
    """The final accuracy table for a terminal, in plain text."""
    from equiscape.report import markdown

    return markdown.console(manifest, accuracy(manifest))


TABLES = {
    "accuracy": accuracy,
    "hessian": hessian,
    "rank": rank,
    "rank_summary": rank_summary,
    "robustness": robustness,
    "molecules": molecules,
}


def _over_seeds(frame: pd.DataFrame, keys: list[str], value: str) -> pd.DataFrame:
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


def _with_task(manifest: Manifest, frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the task's architecture and data set after its name."""
    for place, key in enumerate(("architecture", "dataset"), start=1):
        values = frame["task"].map(lambda task, key=key: manifest.tasks[task][key])
        frame.insert(place, key, values)
    return frame


def _baseline(manifest: Manifest, frame: pd.DataFrame, keys: list[str], value: str) -> pd.Series:
    """For every row, ``value`` of the baseline optimizer in the row with the same ``keys``."""
    base = frame.loc[frame["optimizer"] == manifest.baseline, [*keys, value]]
    base = base.rename(columns={value: "_baseline"})
    return frame[keys].merge(base, on=keys, how="left")["_baseline"].set_axis(frame.index)


def _gain(value: pd.Series, base: pd.Series, direction: pd.Series) -> pd.Series:
    return (value - base) * np.where(direction == "max", 1.0, -1.0)


def _published(
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
