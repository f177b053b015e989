"""Which (lr, wd) is trained with every final seed, and which final cell is analyzed."""

import logging
import re
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from equiscape import io
from equiscape.errors import DataError
from equiscape.metric import Metric

CELL = re.compile(
    r"(?:^|/)(?P<task>[^/_]+)_(?P<optimizer>[^/_]+)/(?:lr(?P<lr>[^/_]+)_wd(?P<wd>[^/_]+)_)?"
    r"seed(?P<seed>\d+)/metrics\.json$"
)

log = logging.getLogger("equiscape")

Cell = Mapping[str, Any]
TIE = 1e-6
"""Relative to the scores: what tells two distances to their mean apart."""


def select(cells: Sequence[Cell], paths: Sequence[str | Path]) -> dict[str, Any]:
    """Choose (lr, wd) by the mean over grid seeds of the validation score at its best epoch.

    A setting of which any seed diverged is passed over. Ties go to the lower validation loss, then
    to the earlier place in the grid, so the choice does not depend on the order of finishing.

    Args:
        cells: contents of the grid cells' ``metrics.json``, in the order of the grid.
        paths: where they were read from; kept in the result so that the choice can be audited.

    Returns:
        ``task``, ``optimizer``, ``status``, ``lr`` and ``wd`` as spelled in the configuration,
        ``metric``, ``rule``, the chosen ``score``, ``edges`` (see :func:`grid_edges`) and the
        whole ``grid``. Where every setting has a diverged seed, which is a result, the status is
        ``diverged``, and lr, wd, score and edges None.

    Raises:
        DataError: a path is that of another cell.
    """
    for cell, path in zip(cells, paths):
        check_cell(cell, path)
    first = cells[0]
    metric = Metric(**first["metric"])
    settings: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        settings.setdefault((cell["lr"], cell["wd"]), []).append(cell)

    best: tuple[float, float] | None = None
    chosen: tuple[str, str] | None = None
    for setting, runs in settings.items():
        if any(_diverged(run) for run in runs):
            continue
        at = [run["at"]["best_validation"]["validation"] for run in runs]
        score = statistics.fmean(a["score"] for a in at)
        loss = statistics.fmean(_number(a["loss"]) for a in at)
        if best is None or metric.better(score, best[0]) or (score == best[0] and loss < best[1]):
            best, chosen = (score, loss), setting
    if best is None or chosen is None:
        log.warning(
            "every (lr, wd) of %s with %s diverged; smaller learning rates in "
            "optimizers.%s.grid.lr may not.",
            first["task"],
            first["optimizer"],
            first["optimizer"],
        )
    return {
        "task": first["task"],
        "optimizer": first["optimizer"],
        "status": "finished" if chosen else "diverged",
        "lr": chosen[0] if chosen else None,
        "wd": chosen[1] if chosen else None,
        "metric": first["metric"],
        "rule": "best mean validation score over the grid seeds, at the best validation epoch",
        "score": best[0] if best else None,
        "edges": grid_edges(settings, chosen) if chosen else {"lr": None, "wd": None},
        "grid": [_summary(cell, path) for cell, path in zip(cells, paths)],
    }


def only_setting(grid: Iterable[tuple[str, str, int]]) -> tuple[str, str] | None:
    """The (lr, wd) of a grid that has no other, so that there is nothing to choose; else None.

    Args:
        grid: (lr, wd, seed) of every cell.
    """
    settings = {(lr, wd) for lr, wd, _ in grid}
    return settings.pop() if len(settings) == 1 else None


def untried(task: str, optimizer: str, lr: str, wd: str) -> dict[str, Any]:
    """The selection from a grid of one setting, for which nothing is trained.

    As :func:`select` gives it, without a metric, a score and cells.
    """
    return {
        "task": task,
        "optimizer": optimizer,
        "status": "finished",
        "lr": lr,
        "wd": wd,
        "metric": None,
        "rule": "the only candidate, taken without training",
        "score": None,
        "edges": grid_edges([(lr, wd)], (lr, wd)),
        "grid": [],
    }


def write_selection(
    selection: Mapping[str, Any],
    inputs: Any,
    output: str | Path,
    choice: str | Path,
    started: float,
) -> None:
    """Write a selection with its provenance, and its choice alone.

    The choice is the same file, byte for byte, as long as lr and wd are the same; so a grid that
    grew without a better cell leaves the final cells as they are.

    Args:
        selection: of :func:`select` or :func:`untried`.
        inputs: what it was made from, for the provenance.
        output, choice: paths.
        started: by the monotonic clock.
    """
    io.write_json(choice, {"lr": selection["lr"], "wd": selection["wd"]})
    provenance = io.provenance(inputs, "cpu", time.monotonic() - started)
    io.write_json(output, {**selection, "provenance": provenance})


def grid_edges(
    settings: Iterable[tuple[str, str]], chosen: tuple[str, str]
) -> dict[str, dict[str, Any] | None]:
    """For lr and wd, whether the choice lies at an end of its grid, so that the optimum may not.

    Args:
        settings: every (lr, wd) of the grid, spelled as in the configuration.
        chosen: the one that was taken.

    Returns:
        ``lr`` and ``wd``: None where the choice lies inside; else ``end`` (``low``, ``high``, or
        ``only`` for a grid of one value, which was not searched) and ``add``, the next value
        outward by the grid's own last factor. A weight decay of zero is no edge: nothing is below.
    """
    found: dict[str, dict[str, Any] | None] = {}
    for name, values, spelled in zip(("lr", "wd"), zip(*settings), chosen):
        grid, value = sorted({float(v) for v in values}), float(spelled)
        found[name] = None
        if len(grid) == 1:
            found[name] = {"end": "only", "add": []}
        elif value == grid[-1]:
            found[name] = {"end": "high", "add": _outward(value, grid[-2])}
        elif value == grid[0] and value > 0:
            found[name] = {"end": "low", "add": _outward(value, grid[1])}
    return found


def _outward(edge: float, inner: float) -> list[str]:
    """The next value beyond ``edge`` by the factor that separates it from ``inner``."""
    factor = edge / inner if inner > 0 else 10.0
    mantissa, exponent = f"{edge * factor:.1e}".split("e")
    return [f"{mantissa.removesuffix('.0')}e{int(exponent)}"]


def representative(cells: Sequence[Cell], checkpoints: Sequence[str | Path]) -> dict[str, Any]:
    """The final cell whose test score at the best validation epoch is nearest the seeds' mean.

    Diverged cells are passed over. Seeds whose distances to the mean differ by less than a
    millionth of the scores' size tie, and the earliest is taken: two seeds always tie.

    Returns:
        ``task``, ``optimizer``, ``status``, ``seed``, ``checkpoint``, ``metric``, the ``mean`` and
        sample standard deviation ``std`` (None for one seed), the seeds ``tied`` with the
        chosen one, and every seed's score. Where every final cell diverged the status is
        ``diverged``, and seed, checkpoint and mean are None.
    """
    first = cells[0]
    runs = [
        (cell["seed"], cell["at"]["best_validation"]["test"]["score"], checkpoint)
        for cell, checkpoint in zip(cells, checkpoints)
        if not _diverged(cell)
    ]
    scores = [score for _, score, _ in runs]
    mean = statistics.fmean(scores) if scores else None
    distances = [abs(score - mean) for score in scores]
    tolerance = TIE * max(map(abs, scores), default=0.0)
    near = [run for run, d in zip(runs, distances) if d <= min(distances) + tolerance]
    seed, _, checkpoint = near[0] if near else (None, None, None)
    if not runs:
        log.warning("every final cell of %s with %s diverged.", first["task"], first["optimizer"])
    return {
        "task": first["task"],
        "optimizer": first["optimizer"],
        "status": "finished" if runs else "diverged",
        "seed": seed,
        "checkpoint": str(checkpoint) if runs else None,
        "metric": first["metric"],
        "at": "best_validation",
        "mean": mean,
        "std": statistics.stdev(scores) if len(scores) > 1 else None,
        "tied": [other for other, _, _ in near[1:]],
        "scores": [
            {
                "seed": cell["seed"],
                "score": (cell["at"]["best_validation"] or {}).get("test", {}).get("score"),
                "status": cell["status"],
            }
            for cell in cells
        ],
    }


def check_cell(cell: Cell, path: str | Path) -> None:
    """Refuse a cell's metrics that lie where another cell's belong.

    Raises:
        DataError: task, optimizer, lr, wd or seed are not those that the path says.
    """
    match = CELL.search(Path(path).as_posix())
    if match is None:
        return
    for key, expected in match.groupdict().items():
        if expected is not None and str(cell[key]) != expected:
            raise DataError(
                f"{path} is of {key} {cell[key]!r}, not {expected!r}; put the file of its own cell "
                "there, or rerun the cell with --forcerun."
            )


def _diverged(cell: Cell) -> bool:
    """Whether a cell diverged, or has no finite score (null in JSON) to be compared by."""
    if cell["status"] != "finished":
        return True
    best = cell["at"]["best_validation"]
    return None in (best["validation"]["score"], best["test"]["score"])


def _number(loss: float | None) -> float:
    """JSON has no NaN or infinity, so a loss that is not finite is null there."""
    return float("inf") if loss is None else loss


def _summary(cell: Cell, path: str | Path) -> dict[str, Any]:
    """One line of the audited grid."""
    best = cell["at"]["best_validation"] or {}
    return {
        "lr": cell["lr"],
        "wd": cell["wd"],
        "seed": cell["seed"],
        "status": cell["status"],
        "validation_score": best.get("validation", {}).get("score"),
        "validation_loss": best.get("validation", {}).get("loss"),
        "test_score": best.get("test", {}).get("score"),
        "epoch": best.get("epoch"),
        "path": str(path),
    }
