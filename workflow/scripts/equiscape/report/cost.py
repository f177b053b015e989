"""What a score costs: time, throughput and memory of the final cells."""

import pandas as pd

from equiscape.io import read_json
from equiscape.report import statistics
from equiscape.report.load import number, reading
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, interval, plus_minus, significant
from equiscape.report.text import join, markdown, task_title
from equiscape.report.titles import optimizer_title


def table(manifest: Manifest) -> pd.DataFrame:
    """One row per task and optimizer: means over the final cells and standard deviations.

    Columns: task, optimizer, cells, device, epochs, parameters, seconds, seconds_std,
    samples_per_second, peak_memory_mb (largest), seconds_per_epoch, ratio (time of an epoch over
    the baseline's, geometric), ratio_low, ratio_high (95 %, over seeds).
    """
    rows, paces = [], {}
    for task, optimizer in manifest.pairs:
        cells = []
        for seed in manifest.seeds:
            path = manifest.final(task, optimizer, seed)
            metrics = read_json(path, "metrics")
            with reading(path):
                cells.append(
                    {
                        key: number(metrics.get(key))
                        for key in ("epochs", "parameters", "seconds", "samples_per_second",
                                    "peak_memory_mb")
                    }
                    | {"device": (metrics.get("provenance") or {}).get("device", "")}
                )  # fmt: skip
        frame = pd.DataFrame(cells)
        pace = (frame["seconds"] / frame["epochs"]).dropna()
        paces[task, optimizer] = pace
        rows.append(
            {
                "task": task, "optimizer": optimizer, "cells": len(frame),
                "device": ", ".join(sorted(set(frame["device"]))),
                "epochs": frame["epochs"].mean(), "parameters": frame["parameters"].max(),
                "seconds": frame["seconds"].mean(), "seconds_std": frame["seconds"].std(ddof=1),
                "samples_per_second": frame["samples_per_second"].mean(),
                "peak_memory_mb": frame["peak_memory_mb"].max(), "seconds_per_epoch": pace.mean(),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    found = [
        statistics.ratio(paces[task, manifest.baseline], paces[task, optimizer])
        for task, optimizer in manifest.pairs
    ]
    table["ratio"] = [estimate.value for estimate in found]
    table["ratio_low"] = [estimate.low for estimate in found]
    table["ratio_high"] = [estimate.high for estimate in found]
    return table


def highlights(manifest: Manifest) -> list[str]:
    """How much longer an epoch takes than under the baseline."""
    frame = table(manifest)
    parts = []
    for optimizer in manifest.rivals:
        rows = frame[(frame["optimizer"] == optimizer) & frame["ratio"].notna()]
        if len(rows):
            parts.append(
                f"An epoch under {optimizer_title(optimizer)} takes "
                f"{significant(rows['ratio'].min(), 3)} to {significant(rows['ratio'].max(), 3)} "
                f"times as long as under {optimizer_title(manifest.baseline)}."
            )
    return parts


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown."""
    shown = pd.DataFrame(
        [
            {
                "task": task_title(manifest, row),
                "optimizer": optimizer_title(row["optimizer"]),
                "epochs": significant(row["epochs"], 3),
                "seconds a cell": plus_minus(row["seconds"], row["seconds_std"]),
                "samples a second": significant(row["samples_per_second"], 3),
                "time of an epoch": DASH
                if row["optimizer"] == manifest.baseline
                else interval(row["ratio"], row["ratio_low"], row["ratio_high"], "ratio"),
                "peak memory (MB)": significant(row["peak_memory_mb"], 3),
                "parameters": f"{row['parameters']:,.0f}" if row["parameters"] > 0 else DASH,
                "device": row["device"],
            }
            for _, row in frame.iterrows()
        ]
    )
    note = (
        "Means over final cells. Cells that run beside others on one machine slow each other down, "
        "so times compare only where the load was the same; samples a second count training alone. "
        f"The time of an epoch is a ratio to {optimizer_title(manifest.baseline)}."
    )
    return join(["# Time and memory", note, markdown(shown, {c: c for c in shown})])
