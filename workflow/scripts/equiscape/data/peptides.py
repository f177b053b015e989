"""Peptides-func (Dwivedi et al. 2022, Long Range Graph Benchmark): 15,535 peptides, 10 labels.

Graphs are made from the published SMILES by RDKit with the atom and bond features of the Open Graph
Benchmark: 2,344,859 nodes and 4,773,974 directed edges in all. The pickle of the official split is
read by :func:`equiscape.files.pickles.load_pickle`, which knows arrays and nothing else. CC BY-NC
4.0; 40 of the test SMILES also stand in the training set, a property of the official data.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from equiscape.data import duplicates
from equiscape.data import molecules as container
from equiscape.data.molecular_checks import fault, indices, integers
from equiscape.data.molecular_graphs import index_type, pointer, random_walks
from equiscape.data.molecular_splits import SizedSplits, shrink
from equiscape.data.molecules import MoleculeDataset, Molecules
from equiscape.data.sources import checksum, require
from equiscape.errors import DataError, first_line
from equiscape.files.archives import DAMAGE, unpacked
from equiscape.files.pickles import load_pickle
from equiscape.settings import AtLeast, AtMost, Seed

VERSION = 2
LOADER = ("node_budget",)
FILES = ("**/peptide_multi_class_dataset.csv.gz", "**/splits_random_stratified_peptide.pickle")
PUBLISHED = {
    "peptide_multi_class_dataset.csv.gz": (
        "701eb743e899f4d793f0e13c8fa5a1b4",
        "https://www.dropbox.com/s/ol2v01usvaxbsr8/peptide_multi_class_dataset.csv.gz?dl=1",
    ),
    "splits_random_stratified_peptide.pickle": (
        "5a0114bdadc80b94fc7ae974f13ef061",
        "https://www.dropbox.com/s/j4zcnx2eipuo0xz/splits_random_stratified_peptide.pickle?dl=1",
    ),
}
RAW_FILES = tuple(PUBLISHED)
OFFICIAL = {"train": "train", "val": "validation", "test": "test"}
LABELS = 10
LONGEST = 20_000  # characters of a SMILES

# The vocabularies of OGB: a value outside of one counts as its last entry.
CHIRALITY = ("CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW", "CHI_OTHER")
HYBRIDIZATION = ("SP", "SP2", "SP3", "SP3D", "SP3D2")
BOND_TYPE = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
STEREO = ("STEREONONE", "STEREOZ", "STEREOE", "STEREOCIS", "STEREOTRANS", "STEREOANY")
NODE_CATEGORIES = [119, 5, 12, 12, 10, 6, 6, 2, 2]
EDGE_CATEGORIES = [5, 6, 2]


ARGUMENTS = ("num_outputs", "node_categories", "edge_categories", "walk_steps")
INPUTS = ("features", "edge_index", "edge_features", "walks", "graph", "size")
SAMPLES = "graphs"
LEARNS = "labels"
TARGETS: tuple[str, ...] = ()  # all labels are learned at once
EXPECT: tuple[str, ...] = ("train", "validation", "test")
OVERRIDES = ("node_budget",)


@dataclass(frozen=True)
class Settings(SizedSplits):
    """Settings of a data set of this kind.

    Attributes:
        walk_steps: steps of the random-walk encoding; 0 for none.
        seed: of ``splits`` and ``limit``.
        duplicates: exact copies in two splits: ``refuse`` them, ``group`` them on one side, or
            ``keep`` them, as the official splits have them.
    """

    walk_steps: Annotated[int, AtLeast(0), AtMost(1000)] = 20
    seed: Seed = 0
    duplicates: Literal["refuse", "group", "keep"] = "keep"
    CONSTRAINTS = (
        (
            "limit is None or splits or limit >= 7",
            "limit must be at least 7, so that each split has a graph",
        ),
        (
            "'train' not in (splits or []) or splits['train'] <= 10873",
            "splits.train must be at most 10873, all that there are",
        ),
        (
            "'validation' not in (splits or []) or splits['validation'] <= 2331",
            "splits.validation must be at most 2331, all that there are",
        ),
        (
            "'test' not in (splits or []) or splits['test'] <= 2331",
            "splits.test must be at most 2331, all that there are",
        ),
    )


def prepare(entry: dict[str, Any], source: Path | None, output: Path) -> None:
    """Write the prepared file: graphs, random-walk encodings, labels and the official splits.

    Args:
        entry: ``walk_steps`` (20), ``splits`` and ``limit`` to take fewer graphs, ``expect`` (the
            number of graphs of each split; without it the files must be the official ones),
            ``duplicates`` (``keep``: the official splits' copies stay, and are counted).
        source: a folder with the SMILES and the split.
        output: the file to write.

    Raises:
        DataError: the source is absent, damaged or not the official one.
    """
    if source is None:
        raise DataError("Peptides-func has no source; give pyg or a folder of its files.")
    table, split = require(source, PUBLISHED, "Peptides-func")
    if not entry.get("expect"):
        for path in (table, split):
            if (
                hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                != PUBLISHED[path.name][0]
            ):
                raise DataError(
                    f"{path} is not the published file (its MD5 differs); fetch it again."
                )
    smiles, labels = read_table(table)
    graphs = read_split(split, len(smiles), entry.get("expect") or {})
    graphs = shrink(graphs, entry)

    used = np.sort(np.concatenate(list(graphs.values())))
    arrays: dict[str, Any] = from_smiles([smiles[i] for i in used])
    steps = int(entry.get("walk_steps", 20))
    graph = arrays["edge_index"], arrays["node_ptr"], arrays["edge_ptr"]
    molecules = Molecules(
        **arrays,
        walks=random_walks(*graph, steps) if steps else None,
        targets=labels[used].astype(np.float64),
        splits={name: np.searchsorted(used, part) for name, part in graphs.items()},
        target_names=[f"label-{i}" for i in range(labels.shape[1])],
        units=[""] * labels.shape[1],
        node_categories=NODE_CATEGORIES,
        edge_categories=EDGE_CATEGORIES,
    )
    digest = checksum((table, split))
    name = entry.get("name", output.stem)
    policy = duplicates.policy(entry, "keep")
    container.write_molecules(output, molecules, name, digest, VERSION, policy)


def load(path: Path, device: Any, entry: dict[str, Any]) -> MoleculeDataset:
    """The prepared file as a data set: all labels at once, scored by average precision."""
    return container.dataset(path, device, entry, loss="multilabel")


def read_table(path: Path) -> tuple[list[str], np.ndarray]:
    """SMILES and labels ``[n, 10]`` of the published table."""
    import pandas as pd

    try:
        table = pd.read_csv(io.BytesIO(unpacked(path)), usecols=["smiles", "labels"])
        labels = [json.loads(text) for text in table["labels"]]
    except (*DAMAGE, TypeError, RecursionError) as error:
        raise fault(path, f"cannot be read ({first_line(error)})") from None
    lengths = {len(row) if isinstance(row, list) else -1 for row in labels}
    if lengths != {LABELS}:
        raise fault(path, f"does not hold {LABELS} labels of 0 or 1 a row")
    empty = [not isinstance(text, str) or not text.strip() for text in table["smiles"]]
    if any(empty):
        raise fault(path, f"has no SMILES in row {empty.index(True)}")
    return table["smiles"].tolist(), integers(path, labels, "labels", 0, 1)


def read_split(path: Path, n: int, expect: dict[str, int]) -> dict[str, np.ndarray]:
    """The official splits, checked to name each of ``n`` graphs at most once."""
    loaded = load_pickle(path)
    if not isinstance(loaded, dict) or not set(OFFICIAL) <= set(loaded):
        raise fault(path, "does not hold train, val and test indices")
    try:
        graphs = {
            ours: indices(path, loaded[name], n, f"the split {name}")
            for name, ours in OFFICIAL.items()
        }
    except ValueError as error:
        raise fault(path, f"does not hold train, val and test indices ({error})") from None
    every = np.concatenate(list(graphs.values()))
    if len(np.unique(every)) != len(every):
        raise fault(path, f"does not split the {n} graphs of the table: some are in two splits")
    for name, size in expect.items():
        if name in graphs and len(graphs[name]) != size:
            raise DataError(f"{path} has {len(graphs[name])} {name} graphs, not {size}.")
    return graphs


def code(values: Sequence[str]) -> dict[Any, int]:
    """RDKit's enumeration values by their place in ``values``."""
    from rdkit.Chem import rdchem

    kinds = (rdchem.ChiralType, rdchem.HybridizationType, rdchem.BondType, rdchem.BondStereo)
    known = {name: value for kind in kinds for name, value in kind.names.items()}
    return {known[name]: place for place, name in enumerate(values)}


def from_smiles(smiles: Sequence[str]) -> dict[str, Any]:
    """Flat arrays of the graphs of SMILES, both directions of a bond one after the other.

    Raises:
        DataError: RDKit cannot parse one; the message names its row.
    """
    from rdkit import Chem, rdBase

    chirality, hybridization = code(CHIRALITY), code(HYBRIDIZATION)
    bond_type, stereo = code(BOND_TYPE), code(STEREO)
    atoms: list[tuple[int, ...]] = []
    ends: list[tuple[int, int]] = []
    bonds: list[tuple[int, ...]] = []
    node_counts, edge_counts = [], []
    quiet = rdBase.BlockLogs()  # it warns of the hydrogen ions of some salts
    for row, text in enumerate(smiles):
        molecule = Chem.MolFromSmiles(text) if len(text) <= LONGEST else None
        if molecule is None or not molecule.GetNumAtoms():
            raise DataError(f"row {row}: RDKit cannot read the SMILES {text[:40]!r}.")
        for atom in molecule.GetAtoms():
            charge = atom.GetFormalCharge() + 5
            atoms.append(
                (
                    min(atom.GetAtomicNum() - 1, 118) if atom.GetAtomicNum() else 118,
                    chirality.get(atom.GetChiralTag(), 4),
                    min(atom.GetTotalDegree(), 11),
                    charge if 0 <= charge <= 10 else 11,
                    min(atom.GetTotalNumHs(), 9),
                    min(atom.GetNumRadicalElectrons(), 5),
                    hybridization.get(atom.GetHybridization(), 5),
                    int(atom.GetIsAromatic()),
                    int(atom.IsInRing()),
                )
            )
        for bond in molecule.GetBonds():
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            kind = (
                bond_type.get(bond.GetBondType(), 4),
                stereo.get(bond.GetStereo(), 5),
                int(bond.GetIsConjugated()),
            )
            ends += [(i, j), (j, i)]
            bonds += [kind, kind]
        node_counts.append(molecule.GetNumAtoms())
        edge_counts.append(2 * molecule.GetNumBonds())
    del quiet
    largest = max(node_counts, default=0)
    return {
        "node_ptr": pointer(node_counts),
        "edge_ptr": pointer(edge_counts),
        "node_features": np.array(atoms, dtype=np.uint8).reshape(-1, len(NODE_CATEGORIES)),
        "edge_index": np.array(ends, dtype=index_type(largest)).reshape(-1, 2).T,
        "edge_features": np.array(bonds, dtype=np.uint8).reshape(-1, len(EDGE_CATEGORIES)),
    }


def download(folder: Path) -> Path:
    """The two published files in ``folder``, which is returned."""
    from equiscape.data.download import fetch_into

    for name, (md5, url) in PUBLISHED.items():
        fetch_into(folder, name, url, f"md5:{md5}")
    return folder
