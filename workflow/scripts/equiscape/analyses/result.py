"""What an analysis returns, and the one writer that puts the same envelope round every result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equiscape.analyses.subject import Subject
from equiscape.errors import DataError
from equiscape.io import provenance, sha256, write_csv, write_json
from equiscape.table import Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """What an analysis measured.

    Attributes:
        data: of a ``.json`` a dict of plain values; of a ``.csv`` a table, a data frame or a dict
            of columns; of an ``.h5`` a dict of arrays.
        units: name of a quantity (a key, a column, an array) -> its unit.
        attributes: plain values beside a table or arrays: attributes of an ``.h5``, keys of the
            JSON beside a ``.csv``.
        headline: what was found in a few words, for the log and the terminal.
    """

    data: "Mapping[str, Any] | Table | pd.DataFrame"
    units: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    headline: str = ""

    @property
    def frame(self) -> Any:
        """The data, a table as a data frame."""
        return self.data.frame() if isinstance(self.data, Table) else self.data

    def summary(self) -> str:
        """The headline, or how much there is."""
        if self.headline:
            return self.headline
        if hasattr(self.data, "columns"):
            return f"{len(self.data)} rows"
        return f"{len(self.data)} quantities"


def envelope(
    name: str,
    version: int,
    subjects: Sequence[Subject],
    optimizers: Sequence[str],
    settings: Mapping[str, Any],
    device: Any,
    seconds: float,
    hashed: Any,
) -> dict[str, Any]:
    """What a result is about and where it came from.

    ``checkpoints`` lists (task, optimizer, seed, epoch, path). A result about one task, optimizer
    or checkpoint names it once more on its own. ``status`` is ``diverged`` where no checkpoint is
    left, since every cell diverged.
    """
    checkpoints = [
        {
            "task": c.task.name,
            "optimizer": c.optimizer,
            "seed": c.seed,
            "epoch": c.epoch,
            "path": str(c.path),
        }
        for subject in subjects
        for c in subject.checkpoints
    ]
    single: dict[str, Any] = {}
    if len(subjects) == 1:
        single["task"] = subjects[0].task.name
    if len(optimizers) == 1:
        single["optimizer"] = optimizers[0]
    if len(checkpoints) == 1:
        single |= {"seed": checkpoints[0]["seed"], "checkpoint": checkpoints[0]["path"]}
    return {
        "analysis": name,
        "version": version,
        "status": "finished" if checkpoints else "diverged",
        **single,
        "tasks": [subject.task.name for subject in subjects],
        "optimizers": list(optimizers),
        "checkpoints": checkpoints,
        "settings": dict(settings),
        "provenance": provenance(hashed, device, seconds),
    }


def companion(path: str | Path) -> Path:
    """The JSON with the envelope of a result that is no JSON itself."""
    return Path(path).with_suffix(".json")


def write(path: str | Path, result: Result | None, head: Mapping[str, Any]) -> None:
    """Write a result with its envelope ``head``; the form follows from the file's suffix.

    The envelope's keys stand in a JSON result itself, and in a JSON beside a table or arrays with
    the SHA-256 of that file. A result of None (every cell diverged) is an empty file of its kind.

    Raises:
        DataError: the result's data do not fit the suffix.
    """
    path = Path(path)
    units = dict(result.units) if result else {}
    if path.suffix == ".json":
        data: Any = result.data if result else {}
        write_json(path, {**head, "units": units, **data})
        return
    if path.suffix == ".csv":
        _write_table(path, result, head)
    elif path.suffix == ".h5":
        _write_arrays(path, result, head)
    else:
        raise DataError(f"{path}: a result is a .json, .csv or .h5 file.")
    beside = dict(result.attributes) if result and path.suffix == ".csv" else {}
    write_json(companion(path), {**beside, **head, "units": units, "sha256": sha256(path)})


def _write_table(path: Path, result: Result | None, head: Mapping[str, Any]) -> None:
    """A tidy table; ``task`` and ``optimizer`` come first where the result is about one of them."""
    table: Any = result.data if result else Table((), ())
    single = {name: head[name] for name in ("task", "optimizer") if name in head}
    if isinstance(table, Table):
        write_csv(path, table.after(**single))
        return
    import pandas as pd

    frame = pd.DataFrame(table)
    new = [name for name in single if name not in frame]
    for position, name in enumerate(new):
        frame.insert(position, name, head[name] if len(frame) else [])
    write_csv(path, frame)


def _write_arrays(path: Path, result: Result | None, head: Mapping[str, Any]) -> None:
    """Arrays with their attributes; ``task`` and ``optimizer`` among these as in a table."""
    from equiscape.files import hdf5

    single = {name: head[name] for name in ("task", "optimizer") if name in head}
    data: Any = result.data if result else {}
    with hdf5.writing(path) as file:
        for name, array in data.items():
            hdf5.put(file, name, array)
        file.attrs.update({**(result.attributes if result else {}), **single})
