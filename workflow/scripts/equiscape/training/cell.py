"""One cell of a study: a task trained with one optimizer, learning rate, weight decay and seed."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from equiscape import io
from equiscape.data.base import Split
from equiscape.errors import first_line
from equiscape.table import Table
from equiscape.task import Task
from equiscape.training import VERSION
from equiscape.training.gradient import OutOfMemory, out_of_memory
from equiscape.training.loop import Trainer, optimizer_name
from equiscape.training.predictions import arrays, test_figures
from equiscape.training.progress import Progress
from equiscape.training.resume import ResumePoints
from equiscape.training.settings import Settings
from equiscape.training.signals import Interrupted, SignalWatcher
from equiscape.training.snapshots import Snapshots, on_cpu, serialized
from equiscape.training.summary import described

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("equiscape.training")

# of every history; those of the recorders stand between the last two
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
        snapshots: epoch -> serialized snapshot, one for each of ``training.snapshots``; that of an
            epoch that was not reached says why (``status``) and holds no weights.
        predictions: see :func:`equiscape.training.predictions.arrays`; None for a grid cell.
    """

    metrics: dict[str, Any]
    checkpoint: dict[str, Any] | None
    snapshots: dict[int, bytes]
    predictions: dict[str, np.ndarray] | None
    _rows: list[dict[str, float]]
    _points: ResumePoints

    @property
    def table(self) -> Table:
        """One row an epoch; NaN where an epoch was not evaluated. ``seconds`` is of the epoch."""
        return Table.of(self._rows, self._rows[0] if self._rows else COLUMNS)

    @property
    def history(self) -> "pd.DataFrame":
        """The table as a data frame."""
        return self.table.frame()

    def write(
        self,
        metrics: str | Path,
        history: str | Path,
        provenance: Mapping[str, Any],
        checkpoint: str | Path | None = None,
        predictions: str | Path | None = None,
        snapshots: Mapping[int, str | Path] | None = None,
    ) -> None:
        """Write the files of the cell; ``metrics`` last, with the checksums of the others.

        Args:
            metrics, history: paths.
            provenance: joins the metrics.
            checkpoint, predictions: paths, where they are to be written.
            snapshots: epoch -> path.
        """
        io.write_csv(history, self.table)
        files: list[str | Path] = []
        for epoch, path in (snapshots or {}).items():
            io.write_bytes(path, self.snapshots[epoch])
            files.append(path)
        if checkpoint is not None:
            io.save_checkpoint(checkpoint, cast(dict, self.checkpoint))
            files.append(checkpoint)
        if predictions is not None:
            io.write_npz(predictions, cast(dict, self.predictions))
            files.append(predictions)
        folder = Path(metrics).parent
        sums = {Path(path).relative_to(folder).as_posix(): io.sha256(path) for path in files}
        io.write_json(metrics, {**self.metrics, "sha256": sums, "provenance": dict(provenance)})

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
        keep_weights: also return the weights of the best validation epoch, and the snapshots.
        progress: show a bar on standard error.

    Raises:
        ConfigError: a setting is unknown or out of range, or the folder cannot be written.
        OutOfMemory: a step does not fit the device.
        Interrupted: a signal came.
    """
    checked = Settings.read(settings)
    folder = None if folder_resume is None else Path(folder_resume)
    optimizer = optimizer_name(optimizer_entry)
    identity = _identity(task, optimizer_entry, [str(lr), str(wd), seed, keep_weights], settings)
    points = ResumePoints(folder, identity, checked.resume_seconds)
    points.check_writable()

    def start() -> Trainer:
        snapshots = Snapshots(checked.snapshots if keep_weights else (), folder)
        return Trainer(task, optimizer_entry, lr, wd, seed, checked, keep_weights, snapshots)

    devices = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), SignalWatcher() as signals:
        trainer = points.resume(task.device, start)
        if trainer.steps:
            log.info("resuming at epoch %d, step %d", trainer.epoch + 1, trainer.step + 1)
        label = f"{task.name} {optimizer} lr {lr} wd {wd} seed {seed}"
        log.info("%s; %s", label, described(trainer))
        reporter = Progress(label, task.metric, checked.epochs, progress)
        reporter.plan(
            trainer.steps, trainer.steps_per_epoch, trainer.samples, trainer.train_seconds
        )

        def pause() -> None:
            if signals.received:
                trainer.check()  # a divergence is a result, not something to come back to
            signals.check()
            reporter.step(trainer.steps)
            if points.due():
                points.save(trainer.state())

        def after_epoch(row: dict[str, float]) -> None:
            reporter.epoch(row, trainer.samples, trainer.train_seconds)

        try:
            trainer.run(pause, after_epoch)
        except Interrupted as interruption:
            points.save(trainer.state())
            where = f"epoch {trainer.epoch + 1}, step {trainer.step}"
            kept = f"run the same command again to resume from {where}" if folder else f"at {where}"
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
    return result_of(trainer, points)


def diverged_cell(
    task: Task, optimizer_entry: Mapping[str, Any], seed: int, settings: Mapping[str, Any]
) -> CellResult:
    """The result of a final cell whose whole grid diverged: nothing is trained, all is written.

    Its ``metrics`` say ``diverged`` at epoch 0 with neither lr nor wd; checkpoint and snapshots
    hold no weights.
    """
    checked = Settings.read(settings)
    with torch.random.fork_rng():
        snapshots = Snapshots(checked.snapshots, None)
        trainer = Trainer(task, optimizer_entry, 1.0, 0.0, seed, checked, True, snapshots)
    trainer.cell |= {"lr": None, "wd": None}
    trainer.diverged_at = {"epoch": 0, "step": 0}
    return result_of(trainer, ResumePoints(None, "", 0))


def result_of(trainer: Trainer, points: ResumePoints) -> CellResult:
    """What the cell of a trainer that has finished leaves."""
    task, output = trainer.task, trainer.best.output
    metrics = _metrics(trainer)
    if not trainer.best.keep_weights:
        return CellResult(metrics, None, {}, None, trainer.rows, points)
    metrics["test"] = test_figures(task, output)
    predictions = arrays(task, output)
    return CellResult(
        metrics, _checkpoint(trainer), _snapshots(trainer), predictions, trainer.rows, points
    )


def _identity(
    task: Task, optimizer: Mapping[str, Any], cell: list[Any], settings: Mapping[str, Any]
) -> str:
    """A hash of all that the training, and so a resume point, depends on."""
    splits: tuple[Split, ...] = ("train", "validation", "test")
    return io.settings_hash(
        {
            "version": VERSION,
            "task": [task.name, task.architecture, task.model_settings],
            "data": [getattr(task.dataset, "name", ""), *map(task.dataset.size, splits)],
            "optimizer": dict(optimizer),
            "cell": cell,
            "training": {k: v for k, v in settings.items() if k not in IRRELEVANT},
            "augmentation": task.training.get("augmentation"),
            "device": task.device.type,
        }
    )


def _metrics(trainer: Trainer) -> dict[str, Any]:
    """The content of ``metrics.json``, but for its provenance."""
    metric = trainer.task.metric
    return {
        "task": trainer.task.name,
        **trainer.cell,
        "status": "diverged" if trainer.diverged_at else "finished",
        "metric": {"name": metric.name, "direction": metric.direction, "unit": metric.unit},
        "at": trainer.best.at,
        "epochs": trainer.epoch,
        "stopped_early": trainer.out_of_patience and trainer.epoch < trainer.settings.epochs,
        "steps": trainer.steps,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "split_of_parameters": trainer.split,
        "samples_per_second": trainer.samples / max(trainer.train_seconds, 1e-9),
        "peak_memory_mb": trainer.costs.peak_memory,
        "seconds": trainer.costs.seconds,
        "diverged_at": trainer.diverged_at,
    }


def _checkpoint(trainer: Trainer) -> dict[str, Any]:
    """The weights that ``training.keep`` asks for; the last ones if no epoch was evaluated.

    None at all where nothing was trained.
    """
    weights = trainer.best.weights
    if not trainer.steps:
        return trainer.contents(None, 0, "diverged")
    status = "diverged" if trainer.diverged_at else "finished"
    if weights is None:
        with trainer.averaged():
            weights = on_cpu(trainer.model.state_dict())
    cpu = {key: value.cpu() for key, value in weights.items()}
    return trainer.contents(cpu, trainer.best.kept or trainer.epoch, status)


def _snapshots(trainer: Trainer) -> dict[int, bytes]:
    """Every snapshot that was asked for; one without weights for each epoch not reached."""
    status = "diverged" if trainer.diverged_at else "stopped"
    found = {epoch: trainer.snapshots.read(epoch) for epoch in trainer.snapshots.kept()}
    for epoch in sorted(trainer.snapshots.epochs - found.keys()):
        state = trainer.contents(None, epoch, status)
        found[epoch] = serialized({**state, "optimizer_state": None, "lr": None})
    return found
