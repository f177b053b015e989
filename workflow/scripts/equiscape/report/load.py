"""Read the study's products into tidy tables; nothing is computed here.

Every reader checks that a file is what its path says, and ends in one sentence where it is not.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from equiscape.errors import DataError
from equiscape.io import read_json, sha256
from equiscape.report.manifest import Manifest

PROTOCOLS = ("best_validation", "last", "best_test")
HISTORY = ("epoch", "train_loss", "validation_loss", "validation_score")


def finals(manifest: Manifest, tasks: Iterable[str] | None = None) -> pd.DataFrame:
    """The final cells, one row per task, optimizer, seed and protocol.

    Columns: task, optimizer, seed, lr, wd, status, metric, unit, direction, protocol, epoch, score,
    loss. Score and loss are of the test split, NaN for a cell that diverged: what it reached on
    the way is not a result that a user of that setting would get.
    """
    rows = []
    for task, optimizer in manifest.pairs:
        if tasks is not None and task not in tasks:
            continue
        for seed in manifest.seeds:
            path = manifest.final(task, optimizer, seed)
            metrics = read_json(path, "metrics")
            with reading(path):
                check(path, metrics, task, optimizer)
                finished = metrics["status"] == "finished"
                for protocol in PROTOCOLS:
                    at = metrics["at"][protocol] if finished else None
                    test = at["test"] if at else {}
                    rows.append(
                        {
                            "task": task,
                            "optimizer": optimizer,
                            "seed": seed,
                            "lr": spelled(metrics["lr"]),
                            "wd": spelled(metrics["wd"]),
                            "status": metrics["status"],
                            "metric": metrics["metric"]["name"],
                            "unit": metrics["metric"]["unit"],
                            "direction": metrics["metric"]["direction"],
                            "protocol": protocol,
                            "epoch": at["epoch"] if at else np.nan,
                            "score": number(test.get("score")),
                            "loss": number(test.get("loss")),
                        }
                    )
    return pd.DataFrame(rows)


def histories(manifest: Manifest) -> pd.DataFrame:
    """Learning curves of the final cells: ``history.csv`` with task, optimizer and seed before."""
    frames = []
    for task, optimizer in manifest.pairs:
        for seed in manifest.seeds:
            frame = read_csv(manifest.final(task, optimizer, seed, "history.csv"), HISTORY)
            frame = frame.astype(dict.fromkeys(HISTORY, float))  # a table without rows has no type
            frame.insert(0, "task", task)
            frame.insert(1, "optimizer", optimizer)
            frame.insert(2, "seed", seed)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def selections(manifest: Manifest) -> pd.DataFrame:
    """Every grid cell: task, optimizer, lr, wd, seed, status, validation_score, chosen."""
    rows = []
    for task, optimizer in manifest.pairs:
        path = manifest.selection(task, optimizer)
        selection = read_json(path, "selection")
        with reading(path):
            check(path, selection, task, optimizer)
            for cell in selection["grid"]:
                rows.append(
                    {
                        "task": task,
                        "optimizer": optimizer,
                        "lr": str(cell["lr"]),
                        "wd": str(cell["wd"]),
                        "seed": cell["seed"],
                        "status": cell["status"],
                        "validation_score": number(cell["validation_score"]),
                        "chosen": str(cell["lr"]) == str(selection["lr"])
                        and str(cell["wd"]) == str(selection["wd"]),
                    }
                )
    columns = ["task", "optimizer", "lr", "wd", "seed", "status", "validation_score", "chosen"]
    return pd.DataFrame(rows, columns=columns)  # without rows too, where no grid has a choice


def published(manifest: Manifest, table: str) -> pd.DataFrame:
    """A table of ``workflow/reference``, the published figures."""
    return read_csv(manifest.reference / f"{table}.csv", ("dataset", "architecture", "optimizer"))


class reading:
    """Turn a missing or misshapen entry of a product into a sentence that names the file."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, KeyError | TypeError | IndexError):
            raise DataError(
                f"{self.path} lacks or misspells an entry ({error}); "
                "make it again with --forcerun and its rule."
            ) from error


def check(path: Path, data: Any, task: str, optimizer: str) -> None:
    """Refuse a product of another task or optimizer than its path says."""
    found = f"{plain(data['task'])}_{plain(data['optimizer'])}"
    if found != f"{task}_{optimizer}":
        raise DataError(
            f"{path} holds {found}, not {task}_{optimizer}; "
            "make it again with --forcerun and its rule."
        )


def unchanged(path: Path) -> None:
    """Compare a result with the SHA-256 in the envelope beside it, where an analysis wrote one.

    Raises:
        DataError: the file is not the one that was written.
    """
    beside = path.with_suffix(".json")
    if path.suffix == ".json" or not path.is_file() or not beside.is_file():
        return
    written = read_json(beside, "analysis").get("sha256")
    if written is not None and sha256(path) != written:
        raise DataError(
            f"{path} is not the file that its rule wrote (its SHA-256 differs from "
            f"{beside.name}); run again with --forcerun {path.parent.name}."
        )


def read_csv(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """A CSV table that has at least ``columns``; without rows where every cell diverged.

    Raises:
        DataError: the file is absent, is no CSV, or lacks a column.
    """
    unchanged(path)
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run the rule that writes it first.") from None
    except ValueError as error:  # EmptyDataError and ParserError among them
        raise DataError(
            f"{path} is not a CSV table ({error}); make it again with --forcerun and its rule."
        ) from None
    missing = [column for column in columns if column not in frame]
    if missing and not len(frame) and _diverged(path):
        return frame.reindex(columns=[*frame, *missing])
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]!r}; make it again with --forcerun and its rule."
        )
    return frame


def _diverged(path: Path) -> bool:
    """Whether the envelope beside a result says that there was nothing to measure."""
    beside = path.with_suffix(".json")
    return beside.is_file() and read_json(beside, "analysis").get("status") == "diverged"


def number(value: Any) -> float:
    """JSON's null is a number that was not finite."""
    return float("nan") if value is None else float(value)


def spelled(value: Any) -> str:
    """A learning rate or weight decay as it is spelled; empty where none was chosen."""
    return "" if value is None else str(value)


def plain(value: Any) -> Any:
    """An HDF5 attribute in Python's own types."""
    return value.decode() if isinstance(value, bytes) else getattr(value, "tolist", lambda: value)()
