"""One cell of a study: a task trained with one optimizer, learning rate, weight decay and seed."""

import logging
import math
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equiscape.io import settings_hash
from equiscape.task import Task
from equiscape.training.loop import (
    Diverged,
    OutOfMemory,
    Trainer,
    first_line,
    interruptible,
    out_of_memory,
)
from equiscape.training.progress import Progress
from equiscape.training.resume import ResumePoints
from equiscape.training.settings import Settings
from equiscape.training.signals import Announcement, Interrupted

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("equiscape.training")

CHECKPOINT_FORMAT = 1
COLUMNS = (
    "epoch",
    "lr",
    "train_loss",
    "validation_loss",
    "validation_score",
    "test_loss",
    "test_score",
    "seconds",
)
# what neither changes a cell's result nor its resume points
IRRELEVANT = ("resume_seconds", "micro_batch")


@dataclass
class CellResult:
    """What a cell leaves.

    Attributes:
        metrics: plain values, for ``metrics.json``.
        checkpoint: the network at its best validation epoch, for ``checkpoint.pt``; None unless
            weights were to be kept.
    """

    metrics: dict[str, Any]
    checkpoint: dict[str, Any] | None
    _rows: list[dict[str, float]]
    _points: ResumePoints

    @property
    def history(self) -> "pd.DataFrame":
        """One row an epoch; NaN where an epoch was not evaluated. ``seconds`` is of the epoch."""
        import pandas as pd

        return pd.DataFrame(self._rows, columns=list(COLUMNS))

    def discard_resume(self) -> None:
        """Remove the resume points; to be called once the results are safely on disk."""
        self._points.discard()


def train_cell(
    task: Task,
    optimizer_entry: Mapping[str, Any],
    lr: float | str,
    wd: float | str,
    seed: int,
    settings: Mapping[str, Any],
    folder_resume: Path | str | None = None,
    keep_weights: bool = False,
    progress: bool = False,
) -> CellResult:
    """Train a network and report on it at its best and last epochs.

    A non-finite training or validation loss ends the cell with status ``diverged``, which is a
    result. On one of the signals of :mod:`equiscape.training.signals` the step or evaluation batch
    under way is finished, a resume point is written and :class:`Interrupted` raised; called again
    with the same arguments, the function goes on from there and, on the CPU, returns bit for bit
    what an undisturbed call returns (but for times).

    Args:
        optimizer_entry: ``{"name", "class", "settings"}``.
        lr, wd: numbers, or strings that spell them; ``metrics`` keeps the spelling.
        seed: of initial weights, data order, augmentation and dropout.
        settings: the merged ``training`` map, see :class:`Settings`.
        folder_resume: a folder for the resume points of this cell alone; None for none.
        keep_weights: also return the weights of the best validation epoch.
        progress: show a bar on standard error.

    Raises:
        ConfigError: a setting is unknown or out of range.
        OutOfMemory: a step does not fit the device.
        Interrupted: a signal came.
    """
    checked = Settings.read(settings)
    devices = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), Announcement() as announcement:
        cell = _Cell(task, optimizer_entry, lr, wd, seed, checked, keep_weights)
        points = ResumePoints(folder_resume, cell.identity(settings), checked.resume_seconds)
        state = points.load(task.device)
        if state is not None:
            cell.restore(state)
            log.info("going on at epoch %d, step %d", cell.trainer.epoch + 1, cell.trainer.step + 1)
        reporter = Progress(cell.label, task.metric, checked.epochs, progress)
        reporter.plan(cell.trainer.steps, cell.trainer.steps_per_epoch)
        try:
            cell.run(announcement, points, reporter)
        except Interrupted as interruption:
            points.save(cell.state())
            where = f"epoch {cell.trainer.epoch + 1}, step {cell.trainer.step}"
            kept = f"run the same again to go on from {where}" if folder_resume else f"at {where}"
            raise Interrupted(f"{str(interruption).rstrip('.')}; {kept}.") from None
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise OutOfMemory(
                f"out of memory ({first_line(error)}); request more memory or lower "
                f"training.batch_size ({checked.batch_size})."
            ) from error
        finally:
            reporter.close()
    return CellResult(cell.metrics(), cell.checkpoint(), cell.rows, points)


class _Cell:
    """A trainer with its history and its best epochs."""

    def __init__(
        self,
        task: Task,
        optimizer_entry: Mapping[str, Any],
        lr: float | str,
        wd: float | str,
        seed: int,
        settings: Settings,
        keep_weights: bool,
    ):
        self.task, self.settings, self.keep_weights = task, settings, keep_weights
        self.optimizer_entry, self.lr, self.wd, self.seed = optimizer_entry, lr, wd, seed
        self.optimizer_name = optimizer_entry.get("name", optimizer_entry.get("class"))
        self.label = f"{task.name} {self.optimizer_name} lr {lr} wd {wd} seed {seed}"
        self.trainer = Trainer(task, optimizer_entry, lr, wd, seed, settings)
        self.rows: list[dict[str, float]] = []
        self.at: dict[str, dict | None] = {"best_validation": None, "last": None, "best_test": None}
        self.weights: dict[str, Tensor] | None = None
        self.diverged_at: dict[str, int] | None = None
        self._seconds_before = self._peak_before = 0.0  # in processes before this one
        self._start = time.monotonic()
        if task.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(task.device)

    def identity(self, settings: Mapping[str, Any]) -> str:
        """A hash of all that the training depends on."""
        task = self.task
        splits = ("train", "validation", "test")
        return settings_hash(
            {
                "task": [task.name, task.architecture, task.model_settings],
                "data": [getattr(task.dataset, "name", ""), *map(task.dataset.size, splits)],
                "optimizer": dict(self.optimizer_entry),
                "cell": [str(self.lr), str(self.wd), self.seed, self.keep_weights],
                "training": {k: v for k, v in settings.items() if k not in IRRELEVANT},
                "augmentation": task.training.get("augmentation"),
                "device": task.device.type,
            }
        )

    def run(self, announcement: Announcement, points: ResumePoints, reporter: Progress) -> None:
        """Train to the last epoch or to divergence."""
        trainer = self.trainer

        def after_step() -> None:
            reporter.step()
            if announcement.received:
                trainer.check()  # a divergence is a result, not something to come back to
            announcement.check()
            if points.due():
                points.save(self.state())

        while trainer.epoch < self.settings.epochs and self.diverged_at is None:
            try:
                train_loss = trainer.run_epoch(after_step)
            except Diverged as diverged:
                self._diverge(diverged.step)
                self._add_row(math.nan, None, reporter)
                return
            entry = self._evaluate(announcement)
            if entry is not None and not math.isfinite(entry["validation"]["loss"]):
                self._diverge(trainer.step)
            elif entry is not None:
                self._compare(entry)
            self._add_row(train_loss, entry, reporter)
            trainer.end_epoch()

    def _evaluate(self, announcement: Announcement) -> dict[str, Any] | None:
        """Loss and score of validation and test, or None where this epoch is not evaluated."""
        epoch = self.trainer.epoch + 1
        if epoch % self.settings.evaluate_every and epoch != self.settings.epochs:
            return None
        entry: dict[str, Any] = {"epoch": epoch}
        for split in ("validation", "test"):
            batches = interruptible(self.task.batches(split), announcement.check)
            entry[split] = self.task.score(self.trainer.model, batches)
        return entry

    def _compare(self, entry: dict[str, Any]) -> None:
        """Keep ``entry`` where it is best so far; ties go to the lower loss, then the earlier."""
        self.at["last"] = entry
        for name, split in (("best_validation", "validation"), ("best_test", "test")):
            best = self.at[name]
            new, old = entry[split], best[split] if best else None
            better = old is None or self.task.metric.better(new["score"], old["score"])
            if not better and new["score"] == old["score"]:
                better = new["loss"] < old["loss"]
            if better:
                self.at[name] = entry
                if name == "best_validation" and self.keep_weights:
                    state = self.trainer.model.state_dict()
                    self.weights = {key: value.clone() for key, value in state.items()}

    def _diverge(self, step: int) -> None:
        """Note where the training ended; steps after the first non-finite loss do not count."""
        trainer = self.trainer
        self.diverged_at = {"epoch": trainer.epoch + 1, "step": step}
        trainer.steps -= trainer.step - step
        log.warning("diverged at epoch %d, step %d", trainer.epoch + 1, step)

    def _add_row(self, train_loss: float, entry: dict | None, reporter: Progress) -> None:
        """The line of the epoch under way in the history."""
        row = {"epoch": self.trainer.epoch + 1, "lr": self.trainer.last_lr}
        row["train_loss"] = train_loss
        for split in ("validation", "test"):
            for value in ("loss", "score"):
                row[f"{split}_{value}"] = entry[split][value] if entry else math.nan
        total = self._total_seconds()
        row["seconds"] = total - sum(earlier["seconds"] for earlier in self.rows)
        self.rows.append(row)
        reporter.epoch(row)

    def _total_seconds(self) -> float:
        """Wall seconds of the training, over all the processes it took."""
        return self._seconds_before + time.monotonic() - self._start

    def _peak_memory(self) -> float:
        """Largest memory in MB: allocated on the GPU, or resident on the host."""
        if self.task.device.type == "cuda":
            now = torch.cuda.max_memory_allocated(self.task.device) / 2**20
        else:
            now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return max(self._peak_before, now)

    def state(self) -> dict[str, Any]:
        """The whole cell, for a resume point."""
        return {
            "trainer": self.trainer.state(),
            "rows": self.rows,
            "at": self.at,
            "weights": self.weights,
            "seconds": self._total_seconds(),
            "peak_memory_mb": self._peak_memory(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.trainer.restore(state["trainer"])
        self.rows, self.at, self.weights = state["rows"], state["at"], state["weights"]
        self._seconds_before, self._peak_before = state["seconds"], state["peak_memory_mb"]

    def metrics(self) -> dict[str, Any]:
        """The content of ``metrics.json``, but for its provenance."""
        trainer, metric = self.trainer, self.task.metric
        return {
            "task": self.task.name,
            "optimizer": self.optimizer_name,
            "lr": self.lr,
            "wd": self.wd,
            "seed": self.seed,
            "status": "diverged" if self.diverged_at else "finished",
            "metric": {"name": metric.name, "direction": metric.direction, "unit": metric.unit},
            "at": self.at,
            "epochs": trainer.epoch,
            "steps": trainer.steps,
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "split_of_parameters": trainer.split,
            "samples_per_second": trainer.samples / max(trainer.train_seconds, 1e-9),
            "peak_memory_mb": self._peak_memory(),
            "seconds": self._total_seconds(),
            "diverged_at": self.diverged_at,
        }

    def checkpoint(self) -> dict[str, Any] | None:
        """The weights of the best validation epoch; the last ones if none was evaluated."""
        if not self.keep_weights:
            return None
        best = self.at["best_validation"]
        weights = self.trainer.model.state_dict() if self.weights is None else self.weights
        return {
            "format": CHECKPOINT_FORMAT,
            "model": {key: value.cpu() for key, value in weights.items()},
            "epoch": best["epoch"] if best else self.trainer.epoch,
            "task": self.task.name,
            "architecture": self.task.architecture,
            "model_settings": self.task.model_settings,
            "optimizer": self.optimizer_name,
            "seed": self.seed,
        }
