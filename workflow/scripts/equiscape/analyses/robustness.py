"""Accuracy on corrupted test clouds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import nn

from equiscape.analyses.result import Result
from equiscape.analyses.subject import Subject
from equiscape.data.base import Batch
from equiscape.data.corrupted import read_corrupted
from equiscape.errors import DataError
from equiscape.table import Table
from equiscape.task import Task


@dataclass(frozen=True)
class Settings:
    """``analyses.robustness`` has no settings: what is corrupted, and how, belongs to the data."""


def measure(subject: Subject, settings: Settings) -> Result:
    """Accuracy of every final cell that did not diverge, on every corruption and severity."""
    models = {c.seed: c.model() for c in subject.checkpoints}
    table = measure_robustness(subject.task, models, subject.inputs["corrupted"])
    units = {"accuracy": "%", "mean": "%"}
    found = [accuracy for _, _, severity, accuracy, _ in table.rows if severity > 0]
    corrupted = fmean(found) if found else math.nan
    return Result(table, units=units, headline=f"mean accuracy {corrupted:.4g} %, corrupted")


def measure_robustness(task: Task, models: Mapping[int, nn.Module], corrupted: Path) -> Table:
    """Evaluate networks on every corruption and severity.

    Each array is read once, whatever the number of networks.

    Args:
        task: the networks' task, on a point-cloud data set.
        models: final seed to trained network.
        corrupted: a file of :mod:`equiscape.data.corrupted`.

    Returns:
        columns ``seed``, ``corruption``, ``severity``, ``accuracy`` (in percent) and its ``mean``
        over the seeds, one row each, corruption by corruption.

    Raises:
        DataError: the file is damaged, or its labels are not the task's.
    """
    rows = []
    classes = task.dataset.model_arguments()["num_outputs"]
    for corruption, severity, points, labels in read_corrupted(corrupted):
        if labels.max() >= classes:
            raise DataError(
                f"{corrupted} has the label {labels.max()}, but the data set of task {task.name} "
                f"has {classes} classes; corrupt the clouds of that data set."
            )
        clouds = torch.from_numpy(points).split(task.batch_size)
        targets = torch.from_numpy(labels).split(task.batch_size)
        first = next(iter(models.values()))
        batches = [
            task.with_neighbors(
                first, Batch((cloud.to(task.device),), target.to(task.device), len(target))
            )
            for cloud, target in zip(clouds, targets)
        ]
        found = {seed: task.score(model, iter(batches))["score"] for seed, model in models.items()}
        mean = fmean(found.values())
        rows += [(seed, corruption, severity, score, mean) for seed, score in found.items()]
    return Table.of_values(rows, ("seed", "corruption", "severity", "accuracy", "mean"))
