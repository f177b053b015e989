"""Molecules as people have them: files of one or many records, each with what it says of itself.

``.xyz`` and ``.extxyz`` files of one or many frames, ASE's ``.traj`` and ``.db`` are read by ASE,
``.sdf`` and ``.mol`` by RDKit. The format is that of the file's name and is never guessed: among
those that ASE guesses are some that run code.
"""

import io
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from equiscape.errors import first_line
from equiscape.files.archives import Source
from equiscape.files.arrays import Malformed, decode

ELEMENTS = 118
TRAJECTORY = b"- of Ulm"  # how ASE's trajectories begin


@dataclass(frozen=True)
class Structure:
    """One molecule.

    Attributes:
        z: ``[n]`` atomic numbers.
        positions: ``[n, 3]`` Angstrom.
        values: what the record says beside: a frame's comment, properties of an SDF, key-value
            pairs of a database, and energies of a calculator.
        periodic: whether it repeats in any direction.
    """

    z: np.ndarray
    positions: np.ndarray
    values: Mapping[str, Any] = field(default_factory=dict)
    periodic: bool = False


Record = Structure | Malformed
"""A molecule, or why a record is none."""


def structures(path: Path) -> Iterator[Record]:
    """The records of a file in their order, counted from 0.

    A damaged record is a :class:`Malformed` in its place; where the next one cannot be found after
    it, it is the last.

    Raises:
        Malformed: it is no such file at all.
    """
    read = FORMATS[path.suffix.lower()]
    if not path.is_file():
        raise Malformed("there is no such file")
    try:
        for record in read(path):
            yield _checked(record) if isinstance(record, Structure) else record
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise Malformed(first_line(error)) from None


def _checked(record: Structure) -> Record:
    z, positions = np.asarray(record.z), np.asarray(record.positions)
    if not len(z) or positions.shape != (len(z), 3):
        return Malformed("it has no atoms")
    if z.min() < 1 or z.max() > ELEMENTS:
        return Malformed(f"it has an atom of atomic number {z.min() if z.min() < 1 else z.max()}")
    single = positions.astype(np.float32)
    if not np.isfinite(single).all():
        return Malformed("it has coordinates that are not finite")
    if len(np.unique(single, axis=0)) < len(z):
        return Malformed("it has two atoms at the same place")
    return record


def _from_ase(atoms: Any, values: Mapping[str, Any] | None = None) -> Structure:
    results = atoms.calc.results if atoms.calc is not None else {}
    values = {**results, **atoms.info, **(values or {})}
    return Structure(atoms.numbers, atoms.positions, values, bool(atoms.pbc.any()))


def _tried(read: Callable[[Any], Structure], what: Any) -> Record:
    """What ``read`` makes of a record, or why it makes nothing."""
    try:
        return read(what)
    except KeyError as error:
        return Malformed(f"it has an unknown element or key: {error.args[0]}")
    except Exception as error:  # whatever a parser makes of damage
        return Malformed(first_line(error))


def _frames(path: Path) -> Iterator[Record]:
    """Frames of ``.xyz``, plain or extended: a number of atoms, a comment, a line an atom."""
    from ase.io import read

    def frame(text: str) -> Structure:
        return _from_ase(read(io.StringIO(text), 0, format="extxyz"))

    lines = decode(path.read_bytes()).split("\n")
    first = 0
    while first < len(lines):
        count = lines[first].strip()
        if not count and not any(line.strip() for line in lines[first:]):
            return
        last = first + 2 + int(count) if count.isdecimal() else first
        if not first + 2 <= last <= len(lines):
            wrong = f"{count[:20]!r} instead of a number of atoms"
            yield Malformed(f"line {first + 1} has {wrong if last == first else 'too many atoms'}")
            return
        yield _tried(frame, "\n".join([*lines[first:last], ""]))
        first = last


def _sdf(path: Path) -> Iterator[Record]:
    """Records of an SDF, each by itself: RDKit's own cutting may lose one after a damaged one."""
    from rdkit import rdBase

    *blocks, last = re.split(r"^\$\$\$\$.*\n?", path.read_bytes().decode("latin-1"), flags=re.M)
    if last.strip():
        blocks.append(last)
    with rdBase.BlockLogs():
        for block in blocks:
            if block is last and not last.rstrip().endswith("M  END"):
                yield Malformed("it ends before $$$$ or M  END")
            else:
                yield _tried(_from_rdkit, block)


def _from_rdkit(block: str) -> Structure:
    from rdkit import Chem

    supplier = Chem.SDMolSupplier()
    supplier.SetData(block, sanitize=False, removeHs=False)
    molecule = supplier[0]
    if molecule is None:
        raise Malformed("RDKit cannot read it")
    if not molecule.GetNumConformers():
        raise Malformed("it has no coordinates")
    positions = molecule.GetConformer().GetPositions()
    header = molecule.GetProp("_MolFileInfo") if molecule.HasProp("_MolFileInfo") else ""
    if header[20:22] == "2D" and not positions[:, 2].any():
        raise Malformed("it is a drawing in two dimensions")
    z = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64)
    names = molecule.GetPropNames()
    return Structure(z, positions, {name: molecule.GetProp(name) for name in names})


def _trajectory(path: Path) -> Iterator[Record]:
    from ase.io.trajectory import Trajectory

    with open(path, "rb") as file:
        if file.read(len(TRAJECTORY)) != TRAJECTORY:
            raise Malformed("it is no trajectory of ASE")
    with Trajectory(str(path)) as frames:
        for number in range(len(frames)):
            yield _tried(lambda at: _from_ase(frames[at]), number)


def _database(path: Path) -> Iterator[Record]:
    import sqlite3

    from ase.db import connect

    try:
        rows = connect(str(path), type="db", use_lock_file=False)
        for row in rows.select(sort="id"):
            yield _tried(lambda row: _from_ase(row.toatoms(), row.key_value_pairs), row)
    except sqlite3.Error as error:
        raise Malformed(first_line(error)) from None


FORMATS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".xyz": _frames,
    ".extxyz": _frames,
    ".sdf": _sdf,
    ".mol": _sdf,
    ".traj": _trajectory,
    ".db": _database,
}
"""Suffix -> reader."""


def opened(source: Source, member: str, stack: ExitStack) -> Path:
    """A file of a folder where it lies, or one of an archive unpacked for as long as ``stack``.

    Raises:
        DataError: the archive is damaged there.
    """
    if source.path.is_dir():
        return source.path / member
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    path = folder / PurePosixPath(member).name
    with source.open(member) as packed, open(path, "wb") as file:
        shutil.copyfileobj(packed, file)
    return path
