"""ZINC-12k (Dwivedi et al. 2023): molecular graphs and their penalized logP.

The source is PyG's download, a folder with its raw pickles, or a folder with the official splits
as ``zinc12k_official_{train,val,test}.npz``. Without the training file, 900 of the validation
graphs train and the other 100 validate (``ZINC-2k``).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from equiscape.data import duplicates
from equiscape.data import molecules as container
from equiscape.data.molecular_checks import bonds, fault, floats, indices, integers, pointers
from equiscape.data.molecular_graphs import index_type, pointer, random_walks
from equiscape.data.molecular_splits import SizedSplits, keep_used, shrink
from equiscape.data.molecules import MoleculeDataset, Molecules
from equiscape.data.sources import checksum, folder_with, require
from equiscape.errors import DataError
from equiscape.files.arrays import Malformed, decode, load_arrays
from equiscape.files.pickles import load_pickle
from equiscape.settings import AtLeast, AtMost, Seed

VERSION = 2
LOADER = ("node_budget",)
FILES = ("**/zinc12k_official_*.npz", "**/*.pickle", "**/*.index")
ATOMS = 28  # kinds of atoms
BONDS = 4  # bond types 1 to 3
NODE_CATEGORIES = [ATOMS]
EDGE_CATEGORIES = [BONDS]
OFFICIAL = {"train": "train", "val": "validation", "test": "test"}
RAW = ("pickle", "index")
RAW_FILES = tuple(f"{name}.{kind}" for name in OFFICIAL for kind in RAW)  # of a download
ARRAYS = ("atom_type", "edge_index", "bond_type", "y", "node_ptr", "edge_ptr")


ARGUMENTS = ("num_outputs", "node_categories", "edge_categories", "walk_steps")
INPUTS = ("features", "edge_index", "edge_features", "walks", "graph", "size")
SAMPLES = "graphs"
LEARNS = "numbers"
EXAMPLE: dict = {}  # of any graphs
TARGETS = ("logp",)  # what a task may choose
EXPECT: tuple[str, ...] = ()
OVERRIDES = ("node_budget", "loss")


@dataclass(frozen=True)
class Settings(SizedSplits):
    """Settings of a data set of this kind.

    Attributes:
        walk_steps: steps of the random-walk encoding; 0 for none.
        loss: of the training; the mean absolute error by default.
        seed: of the split where the training file is absent, and of ``limit``.
        duplicates: exact copies in two splits: ``refuse`` them, ``group`` them on one side, or
            ``keep`` them, as the official splits have them.
    """

    walk_steps: Annotated[int, AtLeast(0), AtMost(1000)] = 20
    loss: Literal["mse", "l1"] | None = None
    seed: Seed = 0
    duplicates: Literal["refuse", "group", "keep"] = "keep"
    CONSTRAINTS = (
        (
            "limit is None or splits or limit >= 12",
            "limit must be at least 12, so that each split has a graph",
        ),
        (
            "'train' not in (splits or []) or splits['train'] <= 10000",
            "splits.train must be at most 10000, all that there are",
        ),
        (
            "'validation' not in (splits or []) or splits['validation'] <= 1000",
            "splits.validation must be at most 1000, all that there are",
        ),
        (
            "'test' not in (splits or []) or splits['test'] <= 1000",
            "splits.test must be at most 1000, all that there are",
        ),
    )


def prepare(entry: dict[str, Any], source: Path | None, output: Path) -> None:
    """Write the prepared file: graphs, random-walk encodings and splits.

    Args:
        entry: ``walk_steps`` (20), ``splits`` and ``limit`` to take fewer graphs, ``seed`` of the
            900/100 split where the training file is absent, ``duplicates`` (``keep``: copies
            across the official splits stay, and are counted).
        source: a folder; see the module.
        output: the file to write.

    Raises:
        DataError: the source is absent, damaged or not ZINC's.
    """
    if source is None:
        raise DataError("ZINC has no source; give pyg or a folder of its files.")
    source = folder_with(source, ["zinc12k_official_val.npz"])
    if (source / "zinc12k_official_val.npz").exists():
        parts, digest = read_npz(source)
    else:
        parts, digest = read_pickles(source)

    node_ptr = pointer(np.concatenate([np.diff(part["node_ptr"]) for part in parts.values()]))
    edge_ptr = pointer(np.concatenate([np.diff(part["edge_ptr"]) for part in parts.values()]))
    joined = {
        key: np.concatenate([part[key] for part in parts.values()], axis=axis)
        for key, axis in (("atom_type", 0), ("edge_index", 1), ("bond_type", 0), ("y", 0))
    }
    ends = np.cumsum([len(part["y"]) for part in parts.values()])
    graphs = dict(zip(parts, np.split(np.arange(ends[-1]), ends[:-1])))
    if "train" not in graphs:
        order = np.random.default_rng(entry.get("seed", 0)).permutation(graphs["validation"])
        held = max(1, len(order) // 10)
        graphs |= {"train": order[held:], "validation": order[:held]}

    steps = int(entry.get("walk_steps", 20))
    edge_index: np.ndarray = joined["edge_index"].astype(index_type(int(np.diff(node_ptr).max())))
    molecules = Molecules(
        node_ptr=node_ptr,
        edge_ptr=edge_ptr,
        node_features=joined["atom_type"].astype(np.uint8)[:, None],
        edge_index=edge_index,
        edge_features=joined["bond_type"].astype(np.uint8)[:, None],
        walks=random_walks(edge_index, node_ptr, edge_ptr, steps) if steps else None,
        targets=joined["y"].astype(np.float64)[:, None],
        splits={},
        target_names=["logp"],
        units=[""],
        node_categories=NODE_CATEGORIES,
        edge_categories=EDGE_CATEGORIES,
    )
    molecules = keep_used(molecules, shrink(graphs, entry))
    policy = duplicates.policy(entry, "keep")
    name = entry.get("name", output.stem)
    container.write_molecules(output, molecules, name, digest, VERSION, policy)


def load(path: Path, device: Any, entry: dict[str, Any]) -> MoleculeDataset:
    """The prepared file as a data set; the loss is the mean absolute error, as in its benchmark."""
    return container.dataset(path, device, entry, loss="l1")


def read_npz(folder: Path) -> tuple[dict[str, dict[str, np.ndarray]], str]:
    """The arrays of each official split that ``folder`` has, and a checksum."""
    require(folder, ("zinc12k_official_val.npz", "zinc12k_official_test.npz"), "ZINC-12k")
    found = {
        split: path
        for name, split in OFFICIAL.items()
        if (path := folder / f"zinc12k_official_{name}.npz").exists()
    }
    parts = {split: checked(load_arrays(path, ARRAYS), path) for split, path in found.items()}
    return parts, checksum(found.values())


def checked(part: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """The arrays of one split, once lengths, ranges and bonds fit.

    Raises:
        DataError: they do not; the message names the file and the molecule.
    """
    part = dict(part)
    part["atom_type"] = integers(path, part["atom_type"], "atom types", 0, ATOMS - 1)
    part["bond_type"] = integers(path, part["bond_type"], "bond types", 1, BONDS - 1)
    for name in ("atom_type", "bond_type"):
        if part[name].ndim != 1:
            raise fault(path, f"has {name} of shape {list(part[name].shape)} instead of one row")
    part["node_ptr"] = pointers(path, part["node_ptr"], len(part["atom_type"]), "node_ptr")
    part["edge_ptr"] = pointers(path, part["edge_ptr"], len(part["bond_type"]), "edge_ptr")
    if len(part["edge_ptr"]) != len(part["node_ptr"]):
        raise fault(path, "has node_ptr and edge_ptr of different numbers of molecules")
    part["y"] = floats(path, part["y"], (len(part["node_ptr"]) - 1,), "y")
    part["edge_index"] = bonds(
        path, part["edge_index"], part["bond_type"], part["node_ptr"], part["edge_ptr"]
    )
    return part


def read_pickles(folder: Path) -> tuple[dict[str, dict[str, np.ndarray]], str]:
    """The same from the benchmark's pickles, of which ``.index`` names the 12,000 graphs used."""
    names = [f"{name}.{kind}" for name in OFFICIAL for kind in RAW]
    paths = require(folder, names, "ZINC's raw files")
    folder = paths[0].parent
    parts = {}
    for name, split in OFFICIAL.items():
        path, listing = folder / f"{name}.pickle", folder / f"{name}.index"
        graphs = load_pickle(path)
        if not isinstance(graphs, list):
            raise fault(path, "holds no list of molecules")
        try:
            listed = [int(i) for i in decode(listing.read_bytes()).split(",")]
        except (ValueError, Malformed) as error:
            raise fault(listing, f"is no list of indices ({error})") from None
        chosen = indices(listing, listed, len(graphs), f"the molecules of {path.name}")
        parts[split] = checked(flatten(graphs, chosen, path), path)
    return parts, checksum(paths)


def flatten(graphs: list[Any], chosen: np.ndarray, path: Path) -> dict[str, np.ndarray]:
    """One set of flat arrays from graphs with ``atom_type`` and a matrix ``bond_type``.

    Raises:
        DataError: a molecule lacks one, or their sizes differ.
    """
    atoms, matrices, targets = [], [], []
    for i in chosen.tolist():
        try:
            atom = np.asarray(graphs[i]["atom_type"]).ravel()
            matrix = np.asarray(graphs[i]["bond_type"])
            target = np.asarray(graphs[i]["logP_SA_cycle_normalized"]).ravel()
            fits = matrix.shape == (len(atom), len(atom)) and len(target) == 1
            fits = fits and {array.dtype.kind for array in (atom, matrix, target)} <= set("iufb")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise fault(path, f"holds no molecule at {i} ({error})") from None
        if not fits or not len(atom):
            raise fault(path, f"holds a molecule at {i} whose atoms, bonds and target do not fit")
        atoms.append(atom)
        matrices.append(matrix)
        targets.append(target[0])
    ends = [matrix.nonzero() for matrix in matrices]
    return {
        "atom_type": np.concatenate(atoms),
        "edge_index": np.concatenate([np.stack(pair) for pair in ends], axis=1),
        "bond_type": np.concatenate([matrix[pair] for matrix, pair in zip(matrices, ends)]),
        "y": np.array(targets, dtype=np.float64),
        "node_ptr": pointer([len(atom) for atom in atoms]),
        "edge_ptr": pointer([len(pair[0]) for pair in ends]),
    }


def download(folder: Path) -> Path:
    """ZINC's raw files from PyG's addresses, in ``folder``, which is returned, still pickled."""
    from torch_geometric.datasets import ZINC

    from equiscape.data.download import fetch, fetch_into, unpack

    if not all((folder / f"{name}.{kind}").exists() for name in OFFICIAL for kind in RAW):
        archive, _ = fetch([ZINC.url], folder, name="molecules.zip")
        unpack(archive, [f"{name}.pickle" for name in OFFICIAL], folder)
        for name in OFFICIAL:
            fetch_into(folder, f"{name}.index", ZINC.split_url.format(name))
    return folder
