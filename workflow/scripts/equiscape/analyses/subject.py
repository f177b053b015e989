"""What an analysis looks at: a task and some of its checkpoints."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from equiscape.analyses.partial import NOTHING, Partial
from equiscape.errors import DataError
from equiscape.io import read_json
from equiscape.task import Task, load_task

CELL = re.compile(
    r"(?:^|/)final/([^/_]+)_([^/_]+)/seed(\d+)/(?:snapshots/epoch(\d+)|checkpoint)\.pt$"
)


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a final cell.

    Attributes:
        task: that the network belongs to.
        optimizer: that trained it.
        seed: of the final cell.
        path: of the file.
        epoch: of a snapshot (0: before training); None for the best validation epoch.
    """

    task: Task = field(repr=False)
    optimizer: str
    seed: int
    path: Path
    epoch: int | None = None

    @classmethod
    def at(cls, task: Task, path: str | Path) -> "Checkpoint":
        """The checkpoint in ``path``, which says whose it is.

        Raises:
            DataError: the path is not one of a final cell of ``task``.
        """
        match = CELL.search(Path(path).as_posix())
        if match is None or match[1] != task.name:
            raise DataError(f"{path} is not a checkpoint of a final cell of task {task.name}.")
        epoch = None if match[4] is None else int(match[4])
        return cls(task, match[2], int(match[3]), Path(path), epoch)

    def model(self) -> nn.Module:
        """The network, in eval mode, on the task's device.

        Raises:
            CheckpointError: the file is damaged or belongs to something else.
        """
        return self.task.restore(self.path, self.optimizer, self.seed)


@dataclass(frozen=True)
class Subject:
    """A task and its checkpoints.

    Attributes:
        task: data set, loss and metric.
        checkpoints: by optimizer, seed, epoch; those of cells that diverged are left out.
        inputs: further files by name, such as ``corrupted``.
        partial: keeps finished stages of an analysis of minutes.
    """

    task: Task
    checkpoints: tuple[Checkpoint, ...]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    partial: Partial = field(default=NOTHING, repr=False)

    @property
    def checkpoint(self) -> Checkpoint:
        """The only checkpoint of an analysis whose unit is one.

        Raises:
            DataError: there are none or several.
        """
        if len(self.checkpoints) != 1:
            raise DataError(
                f"task {self.task.name}: {len(self.checkpoints)} checkpoints where an analysis of "
                "one was asked for; register it over `final`, `snapshots` or `pair`."
            )
        return self.checkpoints[0]

    @property
    def optimizers(self) -> list[str]:
        """Names of the optimizers whose checkpoints these are, in order."""
        return list(dict.fromkeys(c.optimizer for c in self.checkpoints))

    def of(self, optimizer: str) -> tuple[Checkpoint, ...]:
        """The checkpoints of one optimizer."""
        return tuple(c for c in self.checkpoints if c.optimizer == optimizer)


def load_subject(
    entry: Mapping[str, Any],
    data: str | Path,
    device: Any,
    *,
    choice: str | Path | None = None,
    checkpoints: list[str] | tuple[str, ...] = (),
    metrics: list[str] | tuple[str, ...] = (),
    inputs: Mapping[str, str | Path] | None = None,
) -> Subject:
    """A task loaded onto ``device`` with the checkpoints that a rule's inputs name.

    Args:
        entry: the arguments of :func:`equiscape.task.load_task` but for data file and device.
        data: the prepared data.
        device: of data and networks.
        choice: the JSON that names the representative; its checkpoint joins ``checkpoints``, or of
            snapshots of several seeds only its own stay.
        checkpoints: files of final cells.
        metrics: ``metrics.json`` of the same cells; those of cells that diverged are left out.
        inputs: further files by name.
    """
    task = load_task(prepared=data, device=device, **entry)
    paths = list(checkpoints)
    if choice is not None:
        chosen = read_json(choice, "representative_choice")
        if paths:
            own = f"seed{chosen['seed']}"
            paths = [path for path in paths if Path(path).parents[1].name == own]
        elif chosen["seed"] is not None:  # null where every final cell diverged
            paths.append(chosen["checkpoint"])
    cells = {str(Path(path).parent): read_json(path, "metrics") for path in metrics}
    found = tuple(Checkpoint.at(task, path) for path in paths if _has_weights(Path(path), cells))
    files = {name: Path(path) for name, path in (inputs or {}).items()}
    return Subject(task, found, files)


def _has_weights(path: Path, cells: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a file of a cell is not left out: it diverged, or stopped before the snapshot.

    Args:
        path: of a checkpoint or snapshot.
        cells: contents of ``metrics.json`` by the folder they lie in.
    """
    for folder in path.parents[:2]:
        cell = cells.get(str(folder))
        if cell is not None:
            match = CELL.search(path.as_posix())
            epoch = int(match[4]) if match and match[4] else 0
            return cell["status"] == "finished" and epoch <= cell.get("epochs", epoch)
    return True
