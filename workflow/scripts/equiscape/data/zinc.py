"""ZINC-12k (Dwivedi et al. 2023): molecular graphs and their penalised logP.

The source is PyG's download, a folder with its raw pickles, or a folder with the official splits
as ``zinc12k_official_{train,val,test}.npz``. Without the training file, 900 of the validation
graphs train and the other 100 validate (``ZINC-2k``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from equiscape.data import VERSIONS
from equiscape.data import molecules as container
from equiscape.data.molecular_graphs import index_type, pointer, random_walks
from equiscape.data.molecular_splits import keep_used, shrink
from equiscape.data.molecules import MoleculeDataset, Molecules
from equiscape.data.sources import checksum, load_arrays, load_pickle, require
from equiscape.errors import DataError
from equiscape.settings import NonNegativeInt, PositiveInt, Seed

ATOMS, BONDS = 28, 4  # kinds of atoms; bond types 1 to 3
OFFICIAL = {"train": "train", "val": "validation", "test": "test"}
RAW = ("pickle", "index")
ARRAYS = ("atom_type", "edge_index", "bond_type", "y", "node_ptr", "edge_ptr")


ARGUMENTS = ("num_outputs", "node_categories", "edge_categories", "walk_steps")
INPUTS = ("features", "edge_index", "edge_features", "walks", "graph", "size")
TARGETS = ("logp",)  # what a task may choose
EXPECT: tuple[str, ...] = ()
OVERRIDES = ("node_budget", "loss")


@dataclass(frozen=True)
class Settings:
    """Settings of a data set of this kind.

    Attributes:
        walk_steps: steps of the random-walk encoding; 0 for none.
        splits: graphs of each split, to take fewer of them.
        limit: take only this many graphs, a fixed random subset.
        node_budget: most nodes in a batch; None packs by the batch size alone.
        loss: of the training; the mean absolute error by default.
        seed: of the split where the training file is absent, and of ``limit``.
    """

    walk_steps: NonNegativeInt = 20
    splits: Mapping[Literal["train", "validation", "test"], PositiveInt] | None = None
    limit: PositiveInt | None = None
    node_budget: PositiveInt | None = None
    loss: Literal["mse", "l1"] | None = None
    seed: Seed = 0
    CONSTRAINTS = (
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
            900/100 split where the training file is absent.
        source: a folder; see the module.
        output: the file to write.

    Raises:
        DataError: the source is absent, damaged or not ZINC's.
    """
    if source is None:
        raise DataError("ZINC has no source; give pyg or a folder of its files.")
    if (source / "raw").is_dir():
        source = source / "raw"
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
    if joined["atom_type"].min() < 0 or joined["atom_type"].max() >= ATOMS:
        raise DataError(f"{source} holds atom types that ZINC does not have; fetch it again.")
    ends = np.cumsum([len(part["y"]) for part in parts.values()])
    graphs = dict(zip(parts, np.split(np.arange(ends[-1]), ends[:-1])))
    if "train" not in graphs:
        order = np.random.default_rng(entry.get("seed", 0)).permutation(graphs["validation"])
        held = max(1, len(order) // 10)
        graphs |= {"train": order[held:], "validation": order[:held]}

    steps = int(entry.get("walk_steps", 20))
    edge_index = joined["edge_index"].astype(index_type(int(np.diff(node_ptr).max())))
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
        node_categories=[ATOMS],
        edge_categories=[BONDS],
    )
    molecules = keep_used(molecules, shrink(graphs, entry))
    container.write_molecules(
        output, molecules, entry.get("name", output.stem), digest, VERSIONS["zinc"]
    )


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
    parts = {split: load_arrays(path, ARRAYS) for split, path in found.items()}
    for split, part in parts.items():
        nodes, edges = len(part["atom_type"]), len(part["bond_type"])
        if part["node_ptr"][-1] != nodes or part["edge_ptr"][-1] != edges:
            raise DataError(f"{found[split]} is incomplete; fetch it again.")
    return parts, checksum(found.values())


def read_pickles(folder: Path) -> tuple[dict[str, dict[str, np.ndarray]], str]:
    """The same from the benchmark's pickles, of which ``.index`` names the 12,000 graphs used."""
    names = [f"{name}.{kind}" for name in OFFICIAL for kind in RAW]
    paths = require(folder, names, "ZINC's raw files")
    parts = {}
    for name, split in OFFICIAL.items():
        graphs = load_pickle(folder / f"{name}.pickle")
        try:
            indices = [int(i) for i in (folder / f"{name}.index").read_text().split(",")]
            parts[split] = flatten([graphs[i] for i in indices])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"{folder}/{name}.index does not fit {name}.pickle ({error})."
            ) from None
    return parts, checksum(paths)


def flatten(graphs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """One set of flat arrays from graphs with ``atom_type`` and a matrix ``bond_type``."""
    bonds = [np.asarray(graph["bond_type"]) for graph in graphs]
    ends = [matrix.nonzero() for matrix in bonds]
    return {
        "atom_type": np.concatenate([np.asarray(graph["atom_type"]).ravel() for graph in graphs]),
        "edge_index": np.concatenate([np.stack(pair) for pair in ends], axis=1),
        "bond_type": np.concatenate([matrix[pair] for matrix, pair in zip(bonds, ends)]),
        "y": np.array([float(graph["logP_SA_cycle_normalized"]) for graph in graphs]),
        "node_ptr": pointer([len(matrix) for matrix in bonds]),
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
