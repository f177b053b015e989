"""Molecules as people have them: a table of files and targets, or files that hold their targets.

A CSV has a column ``path`` and, if one likes, ``record`` (of a file with several molecules, from
0), ``split``, ``group`` and targets. A file, folder or archive is read as it is, see
:mod:`equiscape.data.structures` for the formats; targets, ``split`` and ``group`` are then what
each record says: a frame's comment, properties of an SDF, key-value pairs of a database, energies
of a calculator. What the table says goes before what the record says.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from equiscape import io
from equiscape.data import duplicates
from equiscape.data import molecules as container
from equiscape.data.molecular_graphs import fitted_references, pointer
from equiscape.data.molecular_splits import grouped_split, keep_used, shrink
from equiscape.data.molecule_files import copies_of
from equiscape.data.molecules import MoleculeDataset, Molecules
from equiscape.data.structures import FORMATS, Structure, opened, structures
from equiscape.errors import ConfigError, DataError, first_line
from equiscape.files.archives import open_source
from equiscape.files.arrays import Malformed
from equiscape.files.tables import read_table
from equiscape.registry import unknown
from equiscape.settings import AtLeast, Below, Distinct, Positive, PositiveInt, Seed

log = logging.getLogger(__name__)

VERSION = 1
LOADER = ("node_budget", "loss", "heads")
FILES = ("**/*.xyz", "**/*.extxyz", "**/*.sdf", "**/*.mol", "**/*.traj", "**/*.db")
TABLE = "path"  # the column of a CSV that names files
SAMPLES = "molecules"
LEARNS = "numbers"
ARGUMENTS = ("num_outputs", "head", "cutoff")  # what the data dictates to a network
INPUTS = ("z", "positions", "edge_index", "graph", "size", "largest")  # of its forward
HEADS: dict[str, str] = {}  # beside those of `heads`
TARGETS = "targets"  # the setting that names what a task chooses from
EXPECT = ("molecules",)
OVERRIDES = ("node_budget", "loss")
SIDES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Settings:
    """Settings of a data set of this kind.

    Attributes:
        targets: name of each target, as the table or the records have it, and its unit.
        heads: of targets that are no sum over atoms: ``dipole`` (the norm of one) or
            ``spatial-extent``; ``scalar`` by default.
        atom_references: targets that are nearly a sum over atoms, such as a total energy: what an
            atom of each element adds is fitted to the training split and taken off.
        cutoff: radius of the neighbor graph in Angstrom.
        validation: share of the molecules for validation, where no ``split`` names those.
        test: share of the molecules for the test, where there is no ``split``.
        limit: take only this many molecules, a fixed random subset.
        node_budget: most atoms in a batch; None packs by the batch size alone.
        loss: of the training; the mean squared error by default.
        ignore_cell: read periodic structures as molecules, without neighbors across their cell.
        skip_damaged: leave out files and records that cannot be read, and name them in the log.
        duplicates: exact copies in two splits that the source names: ``refuse`` them, ``group``
            them on one side, or ``keep`` them. Random splits keep copies on one side.
        seed: of the splits.
    """

    targets: Mapping[str, str]
    heads: Mapping[str, Literal["scalar", "dipole", "spatial-extent"]] | None = None
    atom_references: Annotated[list[str], Distinct()] = field(default_factory=list)
    cutoff: Positive = 5.0
    validation: Annotated[float, AtLeast(0), Below(1)] = 0.1
    test: Annotated[float, AtLeast(0), Below(1)] = 0.1
    limit: PositiveInt | None = None
    node_budget: PositiveInt | None = None
    loss: Literal["mse", "l1"] | None = None
    ignore_cell: bool = False
    skip_damaged: bool = False
    duplicates: Literal["refuse", "group", "keep"] = "refuse"
    seed: Seed = 0
    CONSTRAINTS = (
        ("len(targets) > 0", "targets must name one or more columns, each with its unit"),
        (
            "limit is None or limit >= 4",
            "limit must be at least 4, so that there are two for training and one to choose by",
        ),
        (
            "'molecules' not in expect or expect['molecules'] >= 4",
            "expect.molecules must be at least 4, so that each split has one",
        ),
        (
            "limit is None or 'molecules' not in expect or limit <= expect['molecules']",
            "limit must be at most the molecules that expect counts",
        ),
        ("validation + test < 1", "validation and test must leave molecules for training"),
    )


@dataclass(frozen=True)
class Row:
    """What a table says of a molecule: the record of its file (None for all), and its columns."""

    line: int
    record: int | None
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Molecule:
    """One molecule with all that is wanted of it; ``where`` names its file and record."""

    where: str
    structure: Structure
    targets: list[float]
    side: str
    group: str


def prepare(entry: dict[str, Any], source: Path | None, output: Path) -> None:
    """Read every molecule, split them where the source does not, and write the prepared file.

    Args:
        entry: see :class:`Settings`.
        source: a CSV whose paths are relative to its folder, a file of molecules, or a folder or
            archive of them.
        output: the prepared file; written atomically, its record after it.

    Raises:
        DataError: there is nothing to read, or a file is damaged; the message names file and
            record.
        ConfigError: a split cannot be made, or a setting names no target.
    """
    if source is None:
        raise ConfigError(f"datasets.{output.stem}.source is missing; name a table or files.")
    source, targets = Path(source), dict(entry["targets"])
    for name in entry.get("atom_references") or []:
        if name not in targets:
            raise unknown(name, targets, "atom_references")
    found, digest = collected(source, entry)
    expected = (entry.get("expect") or {}).get("molecules", len(found))
    if not found or len(found) != expected:
        wanted = f", not {expected}" if expected else ""
        raise DataError(f"{source} holds {len(found)} molecules{wanted}; give the complete source.")
    node_ptr = pointer([len(molecule.structure.z) for molecule in found])
    z = np.concatenate([molecule.structure.z for molecule in found])
    positions = np.concatenate([molecule.structure.positions for molecule in found])
    values = np.array([molecule.targets for molecule in found], dtype=np.float64)
    cutoff = float(entry.get("cutoff", 5.0))
    molecules = Molecules.in_space(z, positions, node_ptr, cutoff, values, targets)
    splits = shrink(divided(molecules, found, source, entry), {"limit": entry.get("limit")})
    used = np.unique(np.concatenate(list(splits.values())))
    molecules = keep_used(molecules, splits)
    references = [list(targets).index(name) for name in entry.get("atom_references") or []]
    if references:
        z, node_ptr = molecules.node_features[:, 0], molecules.node_ptr
        train, values = molecules.splits["train"], molecules.targets
        molecules.baseline = fitted_references(z, node_ptr, values, train, references)
    container.write_molecules(
        output,
        molecules,
        entry.get("name", output.stem),
        digest,
        VERSION,
        duplicates.policy(entry),
        lambda graph: found[used[graph]].where,
    )


def load(path: Path, device: Any, entry: dict[str, Any]) -> MoleculeDataset:
    """The prepared file as a data set; ``entry["target"]`` is one of its ``targets``.

    Raises:
        ConfigError: ``heads`` names no target.
    """
    heads = dict(entry.get("heads") or {})
    for name in heads:
        if name not in entry["targets"]:
            raise unknown(name, entry["targets"], "heads")
    return container.dataset(path, device, entry, heads=heads, loss=entry.get("loss") or "mse")


def collected(source: Path, entry: dict[str, Any]) -> tuple[list[Molecule], str]:
    """Every molecule of a source in its order, and one SHA-256 for the bytes they come from."""
    if not source.exists():
        raise DataError(f"{source} does not exist; give a CSV, or files of molecules.")
    digest, found = hashlib.sha256(), []
    with ExitStack() as stack:
        for name, path, rows in _files(source, stack):
            try:
                found += list(_molecules(name, path, rows, source, entry))
                digest.update(f"{name} {io.sha256(path)}\n".encode())
            except (Malformed, OSError) as error:
                _leave_out(name, source, error, entry)
    if source.suffix.lower() == ".csv":
        digest.update(io.sha256(source).encode())
    return found, digest.hexdigest()


def _files(source: Path, stack: ExitStack) -> Iterator[tuple[str, Path, list[Row] | None]]:
    """Name and path of each file, and the rows of the table that name it; None where no table."""
    if source.suffix.lower() == ".csv":
        for name, rows in listed(source).items():
            yield name, source.parent / name, rows
    elif source.is_file() and source.suffix.lower() in FORMATS:
        yield source.name, source, None
    else:
        opened_source = stack.enter_context(open_source(source))
        for member in opened_source.members:
            if Path(member).suffix.lower() in FORMATS:
                with ExitStack() as unpacked:
                    yield member, opened(opened_source, member, unpacked), None


def listed(table: Path) -> dict[str, list[Row]]:
    """File -> the rows of a CSV that name it.

    Raises:
        DataError: there is no column ``path``, a path is empty, or a record is no number.
    """
    found: dict[str, list[Row]] = {}
    for line, values in enumerate(read_table(table, (TABLE,)), 2):
        path, record = values.pop(TABLE, "").replace("\\", "/"), values.pop("record", "")
        if not path or not (record.isdecimal() or not record):
            raise DataError(f"line {line} of {table} needs a path, and a record from 0 if any.")
        known = found.setdefault(path, [])
        if any(other.record in (None, int(record or 0)) or not record for other in known):
            raise DataError(f"line {line} of {table} lists {path} twice; keep one line of it.")
        known.append(Row(line, int(record) if record else None, values))
    return found


def _molecules(
    name: str, path: Path, rows: list[Row] | None, source: Path, entry: dict[str, Any]
) -> Iterator[Molecule]:
    """The molecules of one file that are wanted."""
    if path.suffix.lower() not in FORMATS:
        raise Malformed(f"its name ends in none of {', '.join(FORMATS)}")
    records = list(structures(path))
    if rows and rows[0].record is None and len(records) > 1 and _says(rows[0], entry):
        raise DataError(
            f"line {rows[0].line} of {source} has targets for {name}, which holds {len(records)} "
            "molecules; say which one in a column record, counted from 0."
        )
    wanted: list[tuple[int, Mapping[str, Any]]] = []
    for row in rows or [Row(0, None, {})]:
        if row.record is not None and row.record >= len(records):
            raise DataError(
                f"line {row.line} of {source} asks for record {row.record} of {name}, which holds "
                f"{len(records)}; count them from 0."
            )
        numbers = range(len(records)) if row.record is None else [row.record]
        wanted += [(number, row.values) for number in numbers]
    for number, values in wanted:
        where = name if len(records) == 1 else f"record {number} of {name}"
        record = records[number]
        try:
            if isinstance(record, Malformed):
                raise record
            yield molecule(where, record, values, entry)
        except Malformed as error:
            _leave_out(where, source, error, entry)


def _says(row: Row, entry: dict[str, Any]) -> bool:
    return any(name in row.values for name in entry["targets"])


def molecule(
    where: str, structure: Structure, row: Mapping[str, Any], entry: dict[str, Any]
) -> Molecule:
    """A molecule with its targets, split and group from its row, or else from its record.

    Raises:
        Malformed: a target is missing or no finite number, a split is none, or it is periodic.
    """
    values = {**structure.values, **row}
    if structure.periodic and not entry.get("ignore_cell"):
        raise Malformed("it is periodic; `ignore_cell: true` reads it as a molecule")
    targets = []
    for name in entry["targets"]:
        if name not in values:
            raise Malformed(f"it has no {name}, neither in a table nor of its own")
        try:
            targets.append(float(np.asarray(values[name], dtype=np.float64).reshape(())))
        except (ValueError, TypeError):
            targets.append(np.nan)
        if isinstance(values[name], bool) or not np.isfinite(targets[-1]):
            raise Malformed(f"its {name} is {str(values[name])[:20]!r}, no finite number")
    side = str(values.get("split") or "").strip().lower()
    if side and side not in SIDES:
        raise Malformed(f"its split is {side[:20]!r}, none of train, validation and test")
    group = str(values["group"]) if "group" in values else ""
    return Molecule(where, structure, targets, SIDES.get(side, ""), group)


def _leave_out(where: str, source: Path, error: Exception, entry: dict[str, Any]) -> None:
    if not entry.get("skip_damaged"):
        raise DataError(
            f"{where} in {source} cannot be used ({first_line(error)}); mend it, or leave such "
            "molecules out by `skip_damaged: true`."
        ) from None
    log.warning("left out: %s (%s)", where, first_line(error))


def divided(
    molecules: Molecules, found: list[Molecule], source: Path, entry: dict[str, Any]
) -> dict[str, np.ndarray]:
    """The splits that the source names, or random ones that keep groups and copies on one side.

    Raises:
        DataError: only some molecules are in a split, or there are none for training or the test.
        ConfigError: a split cannot be made.
    """
    sides = np.array([molecule.side for molecule in found])
    seed, held = int(entry.get("seed", 0)), float(entry.get("validation", 0.1))
    _, copies = np.unique(copies_of(molecules), return_inverse=True)
    named = {group: i for i, group in enumerate({m.group for m in found if m.group})}
    own = [named.get(m.group, len(named) + i) for i, m in enumerate(found)]
    groups = duplicates.joined(np.array(own), copies)
    assert groups is not None  # where there are some, they stay
    if not (sides != "").any():
        shares = {"validation": held, "test": float(entry.get("test", 0.1))}
        return grouped_split(np.arange(len(found)), groups, shares, seed)
    counts = {side: int(np.sum(sides == side)) for side in ("train", "validation", "test")}
    if (sides == "").any() or not counts["train"] or not counts["test"]:
        raise DataError(
            f"{source} has {counts['train']} molecules to train, {counts['validation']} to "
            f"validate, {counts['test']} to test and {np.sum(sides == '')} in no split; name all "
            "of the splits train and test, or none."
        )
    order = np.random.default_rng(seed).permutation(len(found))
    splits = {side: order[sides[order] == side] for side in counts}
    if not counts["validation"]:
        splits |= grouped_split(splits["train"], groups, {"validation": held}, seed)
    return splits
