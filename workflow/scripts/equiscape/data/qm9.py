"""QM9 (Ramakrishnan et al. 2014): small organic molecules, their geometry and 12 properties.

The source is PyG's pipeline (``QM9``, which drops the 3,054 uncharacterized molecules and leaves
130,831), a folder with its raw files, or a local ``qm9_3d.npz``. Targets are in the units in which
the field reports them. Energies are atomization energies, and those that are nearly a sum over
atoms are learned relative to atom references, which a least-squares fit on the training split
gives; so it makes no difference which reference the source has already subtracted.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from equiscape.data import duplicates
from equiscape.data import molecules as container
from equiscape.data.molecular_checks import fault, floats, integers, pointers
from equiscape.data.molecular_graphs import (
    fitted_references,
    pointer,
    ranges,
)
from equiscape.data.molecular_splits import SizedSplits, random_split
from equiscape.data.molecules import MoleculeDataset, Molecules
from equiscape.data.sources import checksum, folder_with, require
from equiscape.errors import DataError, first_line, listed
from equiscape.files.arrays import load_arrays
from equiscape.settings import Positive, Seed

VERSION = 2
LOADER = ("node_budget",)
FILES = ("**/qm9_3d.npz", "**/gdb9.sdf", "**/gdb9.sdf.csv", "**/uncharacterized.txt")
COMPLETE = 130_831
STANDARD = {"train": 110_000, "validation": 10_000}  # the rest is for the test
LARGEST_ELEMENT = 9  # fluorine
HARTREE = 27211.386246  # meV
KILOCALORIE = 43.36410424  # meV for one kcal/mol
UNITS = {
    "mu": "D",
    "alpha": "a0^3",
    "homo": "meV",
    "lumo": "meV",
    "gap": "meV",
    "r2": "a0^2",
    "zpve": "meV",
    "u0": "meV",
    "u298": "meV",
    "h298": "meV",
    "g298": "meV",
    "cv": "cal/(mol K)",
}
REFERENCES = ("zpve", "u0", "u298", "h298", "g298", "cv")  # QM9 tables atom references for them
REFERENCED = [list(UNITS).index(name) for name in REFERENCES]
HEADS = {"mu": "dipole", "r2": "spatial-extent"}
RAW = ("gdb9.sdf", "gdb9.sdf.csv", "uncharacterized.txt")
RAW_FILES = RAW  # what a download leaves


ARGUMENTS = ("num_outputs", "head", "cutoff")  # what the data dictates to a network
INPUTS = ("z", "positions", "edge_index", "graph", "size", "largest")  # of its forward
SAMPLES = "molecules"
LEARNS = "numbers"
TARGETS = tuple(UNITS)  # what a task chooses from
EXPECT = ("molecules",)
OVERRIDES = ("node_budget", "loss")


@dataclass(frozen=True)
class Settings(SizedSplits):
    """Settings of a data set of this kind.

    Attributes:
        cutoff: radius of the neighbor graph in Angstrom.
        loss: of the training; the mean squared error by default.
        seed: of the splits.
        duplicates: exact copies in two splits: ``refuse`` them, ``group`` them on one side, or
            ``keep`` them.
    """

    cutoff: Positive = 5.0
    loss: Literal["mse", "l1"] | None = None
    seed: Seed = 0
    duplicates: Literal["refuse", "group", "keep"] = "refuse"
    CONSTRAINTS = (
        (
            "limit is None or splits or limit >= 14",
            "limit must be at least 14, so that each split has a molecule",
        ),
        (
            "not splits or sum(splits) + (0 if 'test' in splits else 1) <= 130831",
            "splits must sum to at most 130831, all of QM9",
        ),
        ("limit is None or limit <= 130831", "limit must be at most 130831, all of QM9"),
        (
            "limit is None or 'molecules' not in expect or limit <= expect['molecules']",
            "limit must be at most the molecules that expect counts",
        ),
        (
            "not splits or 'molecules' not in expect "
            "or sum(splits) + (0 if 'test' in splits else 1) <= expect['molecules']",
            "splits must sum to at most the molecules that expect counts",
        ),
        (
            "'molecules' not in expect or expect['molecules'] >= 10",
            "expect.molecules must be at least 10, so that each split has one",
        ),
        (
            "source != 'pyg' or 'molecules' not in expect or expect['molecules'] == 130831",
            "expect.molecules must be 130831, all that PyTorch Geometric gives",
        ),
    )


def prepare(entry: dict[str, Any], source: Path | None, output: Path) -> None:
    """Write the prepared file: targets, atom references, neighbor lists and splits.

    Args:
        entry: ``cutoff`` (5 Angstrom), ``splits`` (train 110,000, validation 10,000, the rest
            test; 80, 10 and 10 % of a smaller source), ``limit``, ``seed``, ``expect``
            (``{molecules: n}``) and ``duplicates`` (``refuse``, ``group`` or ``keep``).
        source: a ``qm9_3d.npz``, a folder with it, or a folder with PyG's raw files, which then
            have to be complete.
        output: the file to write.

    Raises:
        DataError: the source is absent, damaged or not complete.
    """
    if source is None:
        raise DataError("QM9 has no source; give pyg, a qm9_3d.npz or a folder of its raw files.")
    source = folder_with(source, ["qm9_3d.npz"]) if source.is_dir() else source
    raw = source.is_dir() and not (source / "qm9_3d.npz").exists()
    z, positions, node_ptr, targets, digest = (read_pyg if raw else read_npz)(source)
    n = len(node_ptr) - 1
    expected = (entry.get("expect") or {}).get("molecules", COMPLETE if raw else n)
    if n != expected:
        raise DataError(f"{source} holds {n} molecules of QM9, not {expected}; fetch it again.")

    default = dict(STANDARD) if n > sum(STANDARD.values()) else {"train": n * 8 // 10}
    splits = random_split(n, entry, {"validation": n // 10, **default})
    used = np.sort(np.concatenate(list(splits.values())))
    counts = np.diff(node_ptr)[used]
    node = ranges(node_ptr[used], counts)
    z, positions, targets, node_ptr = z[node], positions[node], targets[used], pointer(counts)
    splits = {split: np.searchsorted(used, graphs) for split, graphs in splits.items()}

    cutoff = float(entry.get("cutoff", 5.0))
    molecules = Molecules.in_space(z, positions, node_ptr, cutoff, targets, UNITS)
    molecules.splits = splits
    molecules.baseline = fitted_references(z, node_ptr, targets, splits["train"], REFERENCED)
    name, policy = entry.get("name", output.stem), duplicates.policy(entry)
    container.write_molecules(output, molecules, name, digest, VERSION, policy)


def load(path: Path, device: Any, entry: dict[str, Any]) -> MoleculeDataset:
    """The prepared file as a data set; ``entry["target"]`` is one of :data:`UNITS`."""
    return container.dataset(path, device, entry, heads=HEADS)


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
    """Atomic numbers, positions, pointers, targets and checksum of a ``qm9_3d.npz``.

    Its energies are in Hartree, its atomization energies in kcal/mol.
    """
    if path.is_dir():
        path = path / "qm9_3d.npz"
    if not path.is_file():
        raise DataError(f"{path} does not exist; give qm9_3d.npz or a folder of QM9's raw files.")
    names = ("z", "pos", "offset", "target_names", "targets")
    z, positions, node_ptr, held, targets = load_arrays(path, names).values()
    found = [str(name).removesuffix("_atom") for name in held.ravel()[:100]]
    if sorted(found) != sorted(UNITS):
        raise DataError(f"{path} holds the targets {listed(found)}, not QM9's twelve.")
    z = integers(path, z, "atomic numbers", 1, LARGEST_ELEMENT)
    if z.ndim != 1:
        raise fault(path, f"has atomic numbers of shape {list(z.shape)} instead of one row")
    node_ptr = pointers(path, node_ptr, len(z), "offset")
    empty = np.diff(node_ptr) == 0
    if empty.any():
        raise fault(path, f"holds a molecule without atoms, number {int(np.argmax(empty))}")
    positions = floats(path, positions, (len(z), 3), "pos")
    targets = floats(path, targets, (len(node_ptr) - 1, len(UNITS)), "targets")
    scale = dict.fromkeys(("homo", "lumo", "gap", "zpve"), HARTREE)
    scale |= dict.fromkeys(("u0", "u298", "h298", "g298"), KILOCALORIE)
    columns = [found.index(name) for name in UNITS]
    converted = targets[:, columns] * np.array([scale.get(name, 1.0) for name in UNITS])
    return z, positions, node_ptr, converted, checksum([path])


def read_pyg(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
    """The same from PyG's own reading of QM9's raw files, without the uncharacterized molecules.

    Total energies of -11,000 eV would lose a meV in its float32, so the columns of atomization
    energies are taken. ``folder`` is only read: PyG writes to a temporary one.
    """
    from torch_geometric.datasets import QM9

    paths = require(folder, RAW, "QM9's raw files")
    check_raw(*paths)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "raw").mkdir()
        for path in paths:
            (root / "raw" / path.name).symlink_to(path.resolve())
        try:
            dataset = QM9(str(root))
        except Exception as error:
            reason = first_line(error)
            raise DataError(
                f"{folder}: PyG cannot read QM9's raw files ({reason}); fetch them again."
            ) from error
    data, node_ptr = dataset._data, dataset.slices["z"].numpy()
    names = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve")
    columns = {name: column for column, name in enumerate(names)}
    columns |= {"cv": 11, "u0": 12, "u298": 13, "h298": 14, "g298": 15}
    scale = np.array([1000.0 if unit == "meV" else 1.0 for unit in UNITS.values()])  # from eV
    targets = data.y.double().numpy()[:, [columns[name] for name in UNITS]] * scale
    return data.z.numpy(), data.pos.numpy(), node_ptr, targets, checksum(paths)


def check_raw(molecules: Path, table: Path, left_out: Path) -> None:
    """Compare QM9's geometries with its table, row by row: PyG joins them by their order alone.

    Raises:
        DataError: the two name other molecules, or the list of those left out is not theirs.
    """
    names, start = [], True
    try:
        with open(molecules, encoding="latin-1") as file:
            for line in file:
                if start:
                    names.append(line.strip())
                start = line.startswith("$$$$")
        with open(table, encoding="utf-8-sig") as file:
            rows = [line.split(",", 1)[0].strip() for line in file if line.strip()][1:]
        with open(left_out, encoding="utf-8-sig") as file:
            listed = [line.split()[0] for line in file.read().split("\n")[9:-2] if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise fault(molecules.parent, f"cannot be read ({error})") from None
    names = names[:-1] if names and not names[-1] and len(names) == len(rows) + 1 else names
    if len(names) != len(rows):
        raise fault(table, f"has {len(rows)} rows, but {molecules.name} {len(names)} molecules")
    for row, (name, wanted) in enumerate(zip(names, rows)):
        if name and name != wanted:
            raise fault(table, f"has {wanted} in row {row}, where {molecules.name} has {name}")
    for name in listed:
        if not name.isdecimal() or not 1 <= int(name) <= len(rows):
            raise fault(left_out, f"lists {name!r}, which is no molecule of {molecules.name}")


def download(folder: Path) -> Path:
    """QM9's raw files from PyG's addresses, in ``folder``, which is returned."""
    from torch_geometric.datasets import QM9

    from equiscape.data.download import fetch, fetch_into, unpack

    if not all((folder / name).exists() for name in RAW):
        archive, _ = fetch([QM9.raw_url], folder)
        unpack(archive, RAW[:2], folder)
        fetch_into(folder, RAW[2], QM9.raw_url2)
    return folder
