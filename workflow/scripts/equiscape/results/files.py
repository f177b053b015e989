"""Files of a study's results: what an analysis measured, and the trainings."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equiscape.errors import DataError, listed
from equiscape.io import read_json
from equiscape.report.manifest import Product

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from equiscape.checkpoint import Loaded
    from equiscape.results.study import Study


def absent(path: Path, folder: Path) -> DataError:
    """The error for a file that the study in ``folder`` should have."""
    part = path.relative_to(folder)
    return DataError(f"{path} is missing; finish the study, or copy {part} from where it ran.")


def read_product(path: Path, folder: Path, schema: str) -> dict[str, Any]:
    """A JSON file of the study in ``folder`` that fits a schema of ``workflow/schemas``.

    Raises:
        DataError: it is missing or damaged.
    """
    if not path.is_file():
        raise absent(path, folder)
    return read_json(path, schema)


def frame_of(path: Path) -> "pd.DataFrame":
    """A CSV table; an empty one where there was nothing to write, since every cell diverged."""
    import pandas as pd

    from equiscape.report import load

    if path.stat().st_size == 1:
        load.unchanged(path)
        return pd.DataFrame()
    return load.read_csv(path, ())


@dataclass(frozen=True)
class Measured:
    """A result of an analysis.

    Attributes:
        study: that it belongs to.
        analysis: its name.
        of: path of the file and what it was measured on.
    """

    study: "Study"
    analysis: str
    of: Product

    def __repr__(self) -> str:
        return f"Measured({self.analysis}: {self.path.relative_to(self.study.folder)})"

    @property
    def path(self) -> Path:
        """The file."""
        return self.of.path

    @property
    def task(self) -> str | None:
        """The task; None for a result of the whole study."""
        return self.of.task

    @property
    def optimizer(self) -> str | None:
        """The optimizer, or the first of a pair."""
        return self.of.optimizer

    @property
    def second(self) -> str | None:
        """The second optimizer of a pair."""
        return self.of.second

    @property
    def seed(self) -> int | None:
        """The final seed, where every seed has a file of its own."""
        return self.of.seed

    @property
    def envelope(self) -> dict[str, Any]:
        """What the result came from: settings, units, versions, checkpoints, status.

        Of an analysis that writes JSON, the numbers as well.
        """
        return read_product(self.path.with_suffix(".json"), self.study.folder, "analysis")

    @property
    def data(self) -> "dict[str, Any] | pd.DataFrame | Any":
        """The numbers: a table, a dict of arrays ``[...]``, or the JSON itself.

        Raises:
            DataError: the file is missing, damaged, or not the one that the analysis wrote.
        """
        if not self.path.is_file():
            raise absent(self.path, self.study.folder)
        if self.path.suffix == ".json":
            return read_json(self.path, "analysis")
        if self.path.suffix == ".csv":
            return frame_of(self.path)
        return self._arrays()[0]

    def _arrays(self) -> "tuple[dict[str, np.ndarray], dict[str, Any]]":
        import h5py

        from equiscape.report import load

        if not self.path.is_file():
            raise absent(self.path, self.study.folder)
        load.unchanged(self.path)
        try:
            with h5py.File(self.path, locking=False) as file:
                arrays = {name: file[name][()] for name in file}
                return arrays, {name: load.plain(value) for name, value in file.attrs.items()}
        except OSError as error:
            raise DataError(
                f"{self.path} is not HDF5 ({error}); copy it again from where the study ran."
            ) from None

    @property
    def attributes(self) -> dict[str, Any]:
        """Plain values that stand beside the arrays of an HDF5 file; empty for other files.

        Raises:
            DataError: the file is missing or damaged.
        """
        return self._arrays()[1] if self.path.suffix == ".h5" else {}

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints it was measured at, where they lie now."""
        found = []
        for entry in self.envelope["checkpoints"]:
            cell = self.study.cell(entry["task"], entry["optimizer"], entry["seed"])
            found.append(cell.weights(entry["epoch"]))
        return found


@dataclass(frozen=True)
class Cell:
    """One training: a task, an optimizer, a learning rate, a weight decay and a seed.

    Attributes:
        study: that it belongs to.
        task, optimizer, seed: which cell it is.
        folder: of its files.
    """

    study: "Study"
    task: str
    optimizer: str
    seed: int
    folder: Path

    def __repr__(self) -> str:
        return f"Cell({self.folder.relative_to(self.study.folder)})"

    @property
    def metrics(self) -> dict[str, Any]:
        """Scores, settings, cost and provenance (``metrics.json``)."""
        return read_product(self.folder / "metrics.json", self.study.folder, "metrics")

    @property
    def history(self) -> "pd.DataFrame":
        """The learning curve, one row an epoch.

        Raises:
            DataError: the file is missing, or is no table.
        """
        from equiscape.report import load

        path = self.folder / "history.csv"
        if not path.is_file():
            raise absent(path, self.study.folder)
        return load.read_csv(path, load.HISTORY)

    @property
    def predictions(self) -> "dict[str, np.ndarray]":
        """Outputs ``[samples, outputs]`` and targets of the test split of a final cell.

        Raises:
            DataError: the file is missing, or cannot be read.
        """
        import numpy as np

        path = self.folder / "predictions.npz"
        if not path.is_file():
            raise absent(path, self.study.folder)
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} cannot be read ({error}); copy it again from where the study ran."
            ) from None

    @property
    def snapshots(self) -> list[int]:
        """Epochs whose weights were kept."""
        names = (path.stem for path in (self.folder / "snapshots").glob("epoch*.pt"))
        return sorted(int(name[5:]) for name in names if re.fullmatch(r"epoch\d+", name))

    def weights(self, epoch: int | None = None) -> Path:
        """Where the checkpoint lies, or the snapshot of an epoch."""
        if epoch is None:
            return self.folder / "checkpoint.pt"
        return self.folder / "snapshots" / f"epoch{epoch}.pt"

    def model(self, epoch: int | None = None) -> "Loaded":
        """The trained network, or that of a snapshot.

        Raises:
            DataError: the cell kept no such weights; grid cells keep none.
            CheckpointError: the file is damaged, or its cell diverged.
        """
        from equiscape import checkpoint

        path = self.weights(epoch)
        if not path.is_file():
            if self.folder.is_relative_to(self.study.folder / "grid"):
                raise DataError(f"{path} does not exist; only final cells keep weights.")
            if epoch is not None:
                kept = f"of epochs {listed(self.snapshots)}" if self.snapshots else "none"
                raise DataError(
                    f"{path} is missing; the snapshots there are {kept} (training.snapshots)."
                )
            raise absent(path, self.study.folder)
        return checkpoint.load(path)
