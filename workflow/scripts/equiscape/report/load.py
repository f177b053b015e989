"""Read the study's products into tidy tables; nothing is computed here.

Every reader checks that a file is what its path says, and ends in one sentence where it is not.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from equiscape.errors import DataError
from equiscape.io import read_json
from equiscape.report.manifest import Manifest

PROTOCOLS = ("best_validation", "last", "best_test")
HISTORY = ("epoch", "train_loss", "validation_loss", "validation_score")
RANK = ("task", "optimizer", "layer", "kind", "rows", "columns", "stable_rank", "effective_rank")
ROBUSTNESS = ("task", "optimizer", "seed", "corruption", "severity", "accuracy")


def finals(manifest: Manifest, tasks: Iterable[str] | None = None) -> pd.DataFrame:
    """The final cells, one row a task, optimizer, seed and protocol.

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
            metrics = read_json(path)
            with _reading(path):
                _check(path, metrics, task, optimizer)
                finished = metrics["status"] == "finished"
                for protocol in PROTOCOLS:
                    at = metrics["at"][protocol] if finished else None
                    test = at["test"] if at else {}
                    rows.append(
                        {
                            "task": task,
                            "optimizer": optimizer,
                            "seed": seed,
                            "lr": str(metrics["lr"]),
                            "wd": str(metrics["wd"]),
                            "status": metrics["status"],
                            "metric": metrics["metric"]["name"],
                            "unit": metrics["metric"]["unit"],
                            "direction": metrics["metric"]["direction"],
                            "protocol": protocol,
                            "epoch": at["epoch"] if at else np.nan,
                            "score": _number(test.get("score")),
                            "loss": _number(test.get("loss")),
                        }
                    )
    return pd.DataFrame(rows)


def histories(manifest: Manifest) -> pd.DataFrame:
    """Learning curves of the final cells: ``history.csv`` with task, optimizer and seed before."""
    frames = []
    for task, optimizer in manifest.pairs:
        for seed in manifest.seeds:
            frame = _read_csv(manifest.final(task, optimizer, seed, "history.csv"), HISTORY)
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
        selection = read_json(path)
        with _reading(path):
            _check(path, selection, task, optimizer)
            for cell in selection["grid"]:
                rows.append(
                    {
                        "task": task,
                        "optimizer": optimizer,
                        "lr": str(cell["lr"]),
                        "wd": str(cell["wd"]),
                        "seed": cell["seed"],
                        "status": cell["status"],
                        "validation_score": _number(cell["validation_score"]),
                        "chosen": str(cell["lr"]) == str(selection["lr"])
                        and str(cell["wd"]) == str(selection["wd"]),
                    }
                )
    return pd.DataFrame(rows)


def hessians(manifest: Manifest) -> dict[tuple[str, str], dict[str, Any]]:
    """The Hessian measurement of every (task, optimizer), as its rule wrote it.

    JSON's nulls are NaN, absent optional measurements too; ``converged`` says whether largest and
    smallest eigenvalue are.
    """
    measured = {}
    for task, optimizer in manifest.pairs:
        path = manifest.hessian(task, optimizer)
        data = read_json(path)
        with _reading(path):
            _check(path, data, task, optimizer)
            extremes = data["largest"], data["smallest"]
            data["converged"] = all(extreme.get("converged", True) for extreme in extremes)
            for key in ("largest", "smallest"):
                data[key] = {k: _number(data[key][k]) for k in ("value", "residual")}
            data["loss_value"] = _number(data.get("loss_value"))
            power = data.get("power_iteration") or {}
            data["power_iteration"] = {"value": _number(power.get("value"))}
            adaptive = (data.get("adaptive") or {}).get("largest") or {}
            data["adaptive"] = {"largest": {"value": _number(adaptive.get("value"))}}
            for key in ("value", "standard_error"):
                data["trace"][key] = _number(data["trace"][key])
            data["eigenvalues"] = [
                {k: _number(eigenvalue[k]) for k in ("value", "residual")}
                for eigenvalue in data["eigenvalues"]
            ]
        measured[task, optimizer] = data
    return measured


@dataclass(frozen=True)
class Slice:
    """The loss on a plane through a checkpoint.

    Attributes:
        x, y: ``[r]`` coordinates along the two directions, in filter-normalised units.
        loss: ``[r, r]``, ``loss[j, i]`` at ``(x[i], y[j])``.
        attributes: of the file: center_loss, cosine, split, samples, ...
    """

    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    attributes: dict[str, Any]

    @property
    def center(self) -> float:
        """The loss at the checkpoint."""
        return float(self.loss[len(self.y) // 2, len(self.x) // 2])


def slices(manifest: Manifest) -> dict[tuple[str, str], Slice]:
    """The slice of every (task, optimizer)."""
    import h5py

    measured = {}
    for task, optimizer in manifest.pairs:
        path = manifest.slice(task, optimizer)
        if not path.exists():
            raise DataError(f"{path} does not exist; run the rule that writes it first.")
        try:
            with h5py.File(path) as file, _reading(path):
                _check(path, file.attrs, task, optimizer)
                measured[task, optimizer] = Slice(
                    x=file["axis_x"][:],
                    y=file["axis_y"][:],
                    loss=file["loss"][:],
                    attributes={key: _plain(value) for key, value in file.attrs.items()},
                )
        except OSError as error:
            raise DataError(f"{path} is not HDF5 ({error}); delete it and rerun.") from None
    return measured


def ranks(manifest: Manifest) -> pd.DataFrame:
    """The ranks of every layer; ``position`` counts the layers of a kind from the input on."""
    frames = []
    for task, optimizer in manifest.pairs:
        frame = _read_csv(manifest.rank(task, optimizer), RANK)
        frame["position"] = frame.groupby("kind", sort=False).cumcount()
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def robustness(manifest: Manifest) -> pd.DataFrame:
    """Accuracy of every final seed on every corruption and severity."""
    if not manifest.robust_tasks:
        raise DataError(
            "no task of this study has corrupted test clouds; "
            "give its data set a `corruptions` entry in the configuration."
        )
    frames = [
        _read_csv(manifest.robustness(task, optimizer), ROBUSTNESS)
        for task, optimizer in manifest.pairs
        if task in manifest.robust_tasks
    ]
    return pd.concat(frames, ignore_index=True)


def published(manifest: Manifest, table: str) -> pd.DataFrame:
    """A table of ``workflow/reference``, the published figures."""
    return _read_csv(manifest.reference / f"{table}.csv", ("dataset", "architecture", "optimizer"))


class _reading:
    """Turn a missing or misshapen entry of a product into a sentence that names the file."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, KeyError | TypeError | IndexError):
            raise DataError(
                f"{self.path} lacks or misspells an entry ({error}); delete it and rerun."
            ) from error


def _check(path: Path, data: Any, task: str, optimizer: str) -> None:
    found = f"{_plain(data['task'])}_{_plain(data['optimizer'])}"
    if found != f"{task}_{optimizer}":
        raise DataError(f"{path} holds {found}, not {task}_{optimizer}; delete it and rerun.")


def _read_csv(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run the rule that writes it first.") from None
    except ValueError as error:  # EmptyDataError and ParserError among them
        raise DataError(f"{path} is not a CSV table ({error}); delete it and rerun.") from None
    missing = [column for column in columns if column not in frame]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}; delete it and rerun.")
    return frame


def _number(value: Any) -> float:
    """JSON's null is a number that was not finite."""
    return float("nan") if value is None else float(value)


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else getattr(value, "tolist", lambda: value)()
