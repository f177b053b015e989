"""A cell of seconds, for the tests of training; as a program, it trains it and dies on request.

    python training_case.py RESULT RESUME SIGNAL AT SPLIT [rich]

trains the cell with resume points in RESUME, sends itself SIGNAL as the batch number AT of SPLIT
(counted from 1 over the whole run) is gathered, and saves metrics, history and weights to RESULT.
"""

import io
import os
import signal
import sys

import torch
from torch import nn

from equiscape.data.augment_clouds import augment_points
from equiscape.data.base import Batch, Dataset
from equiscape.objectives import Classification
from equiscape.task import Task

TRAINING = {
    "epochs": 4,
    "batch_size": 8,
    "schedule": {"name": "cosine", "warmup_epochs": 1, "final_fraction": 0.1},
    "label_smoothing": 0.1,
    "clip_norm": 1.0,
    "augmentation": {"scale": [0.8, 1.25], "shift": 0.1, "jitter": {"std": 0.01, "clip": 0.05}},
    "resume_seconds": 0,
}
RICH = {
    "snapshots": [0, 1, 3, 4],
    "constraints": [{"name": "shrink", "by": 0.9}],
    "schedule": {"name": "plateau", "patience": 0, "factor": 0.5, "warmup_epochs": 0.5},
    "recorders": ["gradient_norm", "trace", "steps"],
}
MUON = {"name": "muon", "class": "muon", "settings": {}}
TIMES = ("seconds", "samples_per_second", "peak_memory_mb")


class Blobs(Dataset):
    """Gaussian clouds whose label is which axis they are stretched along."""

    name = "blobs"
    objective = Classification()

    def __init__(self, train: int = 41, points: int = 12):
        generator = torch.Generator().manual_seed(0)
        self.points, self.labels = {}, {}
        for split, n in (("train", train), ("validation", 15), ("test", 16)):
            labels = torch.randint(3, (n,), generator=generator)
            clouds = torch.randn(n, points, 3, generator=generator)
            stretch = 1 + 1.5 * nn.functional.one_hot(labels, 3)
            self.points[split], self.labels[split] = clouds * stretch.unsqueeze(1), labels
        self.gathered = {"train": 0, "validation": 0, "test": 0}
        self.on_gather = lambda split, count: None

    def model_arguments(self):
        return {"num_outputs": 3}

    def size(self, split):
        return len(self.labels[split])

    def gather(self, split, indices):
        self.gathered[split] += 1
        self.on_gather(split, self.gathered[split])
        return Batch((self.points[split][indices],), self.labels[split][indices], len(indices))

    def augment(self, batch, settings, generator):
        points = augment_points(batch.inputs[0], settings, generator)
        return Batch((points,), batch.target, batch.size)


class Plain(nn.Module):
    """Squares of features, pooled: no batch statistics; dropout on request."""

    non_hidden = ("head",)

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.first = nn.Linear(3, 16)
        self.hidden = nn.Linear(16, 16)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(16, 3)

    def forward(self, points):
        h = torch.tanh(self.hidden(self.first(points).square())).mean(1)
        return self.head(self.drop(h))

    def representations(self):
        return {"hidden": self.hidden}


class CaseTask(Task):
    """A task whose network may be any module, built by ``network()``."""

    network = None

    def build(self, seed):
        if self.network is None:
            return super().build(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.network()


def case(network=None, train=41, **training) -> CaseTask:
    """A small PointNet with batch norm and dropout, or ``network()``, on :class:`Blobs`."""
    entry = {
        "architecture": "pointnet",
        "dataset": "blobs",
        "model": {"channels": [8, 8, 16], "head": [16]},
        "training": {**TRAINING, **training},
    }
    task = CaseTask("case", entry, Blobs(train), torch.device("cpu"))
    task.network = network
    return task


class Shrink:
    """A constraint: all weights times ``by``, which is not idempotent."""

    def __init__(self, *, by: float = 0.5):
        self.by = by

    def apply(self, trainer):
        for parameter in trainer.model.parameters():
            parameter.mul_(self.by)


class Trace:
    """A recorder with a state of its own: the sum of all weights after each update, and a count."""

    def __init__(self):
        self.total, self.backward = torch.zeros(()), 0

    def after_backward(self, trainer):
        self.backward += 1

    def after_update(self, trainer):
        self.total = self.total + sum(p.sum() for p in trainer.model.parameters())

    def row(self):
        found = {"trace": self.total.item(), "backward": float(self.backward)}
        self.total, self.backward = torch.zeros(()), 0
        return found

    def state(self):
        return {"total": self.total, "backward": self.backward}

    def restore(self, state):
        self.total, self.backward = state["total"], state["backward"]


def register() -> None:
    """Put the constraint and the recorder of this file into the registries."""
    from equiscape.training import CONSTRAINTS, RECORDERS

    CONSTRAINTS["shrink"] = f"{Shrink.__module__}:Shrink"
    RECORDERS["trace"] = f"{Trace.__module__}:Trace"


def comparable(result) -> dict:
    """All of a cell's result that has to be the same in a second run."""
    metrics = {k: v for k, v in result.metrics.items() if k not in TIMES}
    history = result.history.drop(columns="seconds").to_dict("list")
    snapshots = {
        epoch: torch.load(io.BytesIO(content), weights_only=True)
        for epoch, content in result.snapshots.items()
    }
    found = {"metrics": metrics, "history": history, "weights": result.checkpoint["model"]}
    return {**found, "snapshots": snapshots}


def main(result: str, resume: str, name: str, at: str, split: str, changes: str = "") -> None:
    """The program."""
    from equiscape.training import resume as resume_module
    from equiscape.training.cell import train_cell
    from equiscape.training.signals import Interrupted

    torch.set_num_threads(1)
    resume_module.SHARE = float("inf")  # a point after every step, however long it takes
    register()
    task = case(**(RICH if changes else {}))

    def on_gather(current: str, count: int) -> None:
        if current == split and count == int(at):
            os.kill(os.getpid(), getattr(signal, name))

    task.dataset.on_gather = on_gather
    try:
        found = train_cell(task, MUON, "1e-2", "1e-2", 5, task.training, resume, True)
    except Interrupted as interruption:
        print(interruption)
        raise SystemExit(interruption.status) from None
    torch.save(comparable(found), result)


if __name__ == "__main__":
    main(*sys.argv[1:])
