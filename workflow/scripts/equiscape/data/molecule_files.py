"""Many small graphs in one prepared file: written, checked and read.

All molecular data sets share the format ``equiscape-molecules-1``: one HDF5 file with

=====================  ================  ===========================================================
``node_ptr``           ``[n + 1]``       graph g has the nodes ``node_ptr[g]:node_ptr[g + 1]``
``edge_ptr``           ``[n + 1]``       the same for its directed edges
``node_features``      ``[N, F]``        categorical; the atomic number where there is a geometry
``edge_index``         ``[2, E]``        source and target within their graph
``positions``          ``[N, 3]`` f4     Angstrom, where there is a geometry
``edge_features``      ``[E, G]``        categorical, where there are bonds
``walks``              ``[N, K]`` f4     random-walk encodings, optional
``targets``            ``[n, T]`` f8     in ``units``
``baseline``           ``[n, T]`` f8     atom references already summed: subtracted from the targets
``copy``               ``[n]``           the same number for graphs of the same content
``split/train`` ...    int64             graphs of each split
=====================  ================  ===========================================================

and the attributes ``format``, ``name``, ``source_sha256``, ``preparation_version``, ``cutoff``,
``target_names``, ``units``, ``node_categories``, ``edge_categories`` and ``duplicates``. A record
with its SHA-256 lies beside the file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from equiscape.data import duplicates
from equiscape.data.molecular_graphs import pointer, radius_edges, ranges
from equiscape.errors import DataError
from equiscape.files import products
from equiscape.files.hdf5 import put, reading, writing

FORMAT = "equiscape-molecules-1"
SPLITS = ("train", "validation", "test")
ARRAYS = (
    *("node_ptr", "edge_ptr", "node_features", "edge_index", "positions"),
    *("edge_features", "walks", "targets", "baseline"),
)
OPTIONAL = ("positions", "edge_features", "walks", "baseline")
ELEMENTS = 118


@dataclass
class Molecules:
    """The arrays of one prepared file; see the module's table for shapes and meanings."""

    node_ptr: np.ndarray
    edge_ptr: np.ndarray
    node_features: np.ndarray
    edge_index: np.ndarray
    targets: np.ndarray
    splits: dict[str, np.ndarray]
    target_names: list[str]
    units: list[str]
    positions: np.ndarray | None = None
    edge_features: np.ndarray | None = None
    walks: np.ndarray | None = None
    baseline: np.ndarray | None = None
    node_categories: list[int] = field(default_factory=list)
    edge_categories: list[int] = field(default_factory=list)
    cutoff: float = 0.0

    @classmethod
    def in_space(
        cls,
        z: np.ndarray,
        positions: np.ndarray,
        node_ptr: np.ndarray,
        cutoff: float,
        targets: np.ndarray,
        units: Mapping[str, str],
    ) -> "Molecules":
        """Molecules with an edge between any two atoms within ``cutoff``; splits are left empty.

        Args:
            z: ``[N]`` atomic numbers.
            positions: ``[N, 3]`` Angstrom.
            node_ptr: ``[n + 1]``.
            cutoff: Angstrom.
            targets: ``[n, T]``.
            units: name of a target -> its unit, in the order of the columns.
        """
        edge_index, edge_ptr = radius_edges(positions, node_ptr, cutoff)
        return cls(
            node_ptr=node_ptr,
            edge_ptr=edge_ptr,
            node_features=z.astype(np.uint8)[:, None],
            edge_index=edge_index,
            targets=targets,
            splits={},
            target_names=list(units),
            units=list(units.values()),
            positions=positions.astype(np.float32),
            cutoff=cutoff,
        )

    def __len__(self) -> int:
        return len(self.node_ptr) - 1

    def select(self, graphs: np.ndarray) -> "Molecules":
        """Only these graphs, in this order; ``splits`` is left empty."""
        nodes, edges = np.diff(self.node_ptr)[graphs], np.diff(self.edge_ptr)[graphs]
        node = ranges(self.node_ptr[graphs], nodes)
        edge = ranges(self.edge_ptr[graphs], edges)

        def pick(array: np.ndarray | None, where: np.ndarray) -> np.ndarray | None:
            return None if array is None else array[where]

        return Molecules(
            node_ptr=pointer(nodes),
            edge_ptr=pointer(edges),
            node_features=self.node_features[node],
            edge_index=self.edge_index[:, edge],
            targets=self.targets[graphs],
            splits={},
            target_names=self.target_names,
            units=self.units,
            positions=pick(self.positions, node),
            edge_features=pick(self.edge_features, edge),
            walks=pick(self.walks, node),
            baseline=pick(self.baseline, graphs),
            node_categories=self.node_categories,
            edge_categories=self.edge_categories,
            cutoff=self.cutoff,
        )


def write_molecules(
    path: Path,
    molecules: Molecules,
    name: str,
    source_sha256: str,
    version: int,
    policy: str = "keep",
    where: Callable[[int], str] = "graph {}".format,
) -> None:
    """Write ``molecules`` atomically, and their record beside them.

    Args:
        path: of the file.
        molecules: to write; ``group`` leaves copies out of their splits.
        name: of the data set.
        source_sha256: of what they were made from.
        version: of the kind's preparation.
        policy: what becomes of graphs that are in two splits, see :mod:`equiscape.data.duplicates`.
        where: what a graph is called, for messages.

    Raises:
        DataError: the arrays do not fit together, a value is not finite or no category, or a graph
            is in two splits.
        ConfigError: ``group`` leaves nothing of a split.
    """
    check(molecules, path)
    copies = copies_of(molecules)
    whole = {split: np.asarray(molecules.splits[split], dtype=np.int64) for split in SPLITS}
    splits = duplicates.without_copies(whole, copies) if policy == "group" else whole
    counts = duplicates.check(splits, copies, policy, name, where)
    counts["left_out"] = sum(len(whole[split]) - len(splits[split]) for split in SPLITS)
    with writing(path) as file:
        for key in ARRAYS:
            array = getattr(molecules, key)
            if array is not None:
                put(file, key, array, compression="lzf", shuffle=True)
        put(file, "copy", copies)
        for split in SPLITS:
            put(file, f"split/{split}", splits[split])
        file.attrs.update(
            format=FORMAT,
            name=name,
            source_sha256=source_sha256,
            preparation_version=version,
            cutoff=molecules.cutoff,
            target_names=molecules.target_names,
            units=molecules.units,
            node_categories=np.array(molecules.node_categories, dtype=np.int64),
            edge_categories=np.array(molecules.edge_categories, dtype=np.int64),
            duplicates=counts["copies"],
        )
    products.sign(
        path,
        format=FORMAT,
        preparation_version=version,
        samples={split: len(splits[split]) for split in SPLITS},
        duplicates=counts,
    )


def copies_of(molecules: Molecules) -> np.ndarray:
    """``[n]``: the same number for graphs with the same atoms and geometry, or atoms and bonds."""
    if molecules.positions is not None:
        of_nodes, of_edges = [molecules.node_features, molecules.positions], []
    else:
        of_nodes = [molecules.node_features]
        of_edges = [np.ascontiguousarray(molecules.edge_index.T)]
        if molecules.edge_features is not None:
            of_edges.append(molecules.edge_features)
    nodes, edges = molecules.node_ptr.tolist(), molecules.edge_ptr.tolist()
    return duplicates.numbered(
        duplicates.fingerprint(
            *(array[nodes[g] : nodes[g + 1]] for array in of_nodes),
            *(array[edges[g] : edges[g + 1]] for array in of_edges),
        )
        for g in range(len(molecules))
    )


def read_molecules(path: Path) -> Molecules:
    """Read what :func:`write_molecules` wrote.

    Raises:
        DataError: the file is absent, damaged, or of another format.
    """
    with reading(path, FORMAT) as file:
        arrays = {key: file[key][()] for key in ARRAYS if key in file or key not in OPTIONAL}
        molecules = Molecules(
            splits={split: file[f"split/{split}"][()] for split in SPLITS},
            target_names=[str(name) for name in file.attrs["target_names"]],
            units=[str(unit) for unit in file.attrs["units"]],
            node_categories=file.attrs["node_categories"].tolist(),
            edge_categories=file.attrs["edge_categories"].tolist(),
            cutoff=float(file.attrs["cutoff"]),
            **arrays,
        )
    check(molecules, path)
    return molecules


def check(molecules: Molecules, path: Any) -> None:
    """Raise a DataError that names ``path`` where the arrays do not fit together.

    Lengths and pointers, finite numbers, bonds within their molecule, categories within their
    vocabulary: what would otherwise read another molecule's rows.
    """
    n, nodes, edges = len(molecules), len(molecules.node_features), molecules.edge_index.shape[1]

    def ends(ptr: np.ndarray, total: int) -> bool:
        return len(ptr) == n + 1 and bool(
            ptr[0] == 0 and ptr[-1] == total and (np.diff(ptr) >= 0).all()
        )

    faults = {
        "holds no graphs": n == 0,
        "has node pointers that do not fit its nodes": not ends(molecules.node_ptr, nodes),
        "has edge pointers that do not fit its edges": not ends(molecules.edge_ptr, edges),
        "has a target for each of another number of graphs": len(molecules.targets) != n,
        "has a split that names graphs it does not hold": any(
            len(split) and not 0 <= split.min() <= split.max() < n
            for split in molecules.splits.values()
        ),
    }
    for key, total in (("positions", nodes), ("walks", nodes), ("edge_features", edges)):
        array = getattr(molecules, key)
        if array is not None:
            faults[f"has {key} of another number of rows"] = len(array) != total
    for fault, present in faults.items():
        if present:
            raise DataError(f"{path} {fault}; check its source and prepare it again.")
    where = first_fault(molecules)
    if where:
        raise DataError(f"{path} has {where}; check its source and prepare it again.")


def first_fault(molecules: Molecules) -> str:
    """What is wrong with the values, naming the graph; an empty string where nothing is."""
    node_ptr, edge_ptr = molecules.node_ptr, molecules.edge_ptr

    def graph(ptr: np.ndarray, row: int) -> int:
        return int(np.searchsorted(ptr, row, side="right")) - 1

    counts = np.diff(node_ptr)
    if not counts.all():
        return f"graph {int(np.argmin(counts))} without atoms"
    bad = ~np.isfinite(molecules.targets).reshape(len(molecules), -1).all(1)
    if bad.any():
        return f"targets that are not finite, of graph {int(np.argmax(bad))}"
    if molecules.positions is not None:
        bad = ~np.isfinite(molecules.positions).all(1)
        if bad.any():
            return f"positions that are not finite, in graph {graph(node_ptr, int(np.argmax(bad)))}"
        z = molecules.node_features[:, 0]
        bad = (z < 1) | (z > ELEMENTS)
        if bad.any():
            row = int(np.argmax(bad))
            return f"the atomic number {z[row]} in graph {graph(node_ptr, row)}"
    if molecules.edge_index.size:
        limit = np.repeat(counts, np.diff(edge_ptr))
        bad = ((molecules.edge_index < 0) | (molecules.edge_index >= limit)).any(0)
        if bad.any():
            edge = int(np.argmax(bad))
            return f"an edge to a node beyond its graph, in graph {graph(edge_ptr, edge)}"
    for what, array, sizes, ptr in (
        ("node", molecules.node_features, molecules.node_categories, node_ptr),
        ("edge", molecules.edge_features, molecules.edge_categories, edge_ptr),
    ):
        if not sizes or array is None or not len(array):
            continue
        if array.shape[1] != len(sizes):
            return f"{array.shape[1]} columns of {what} features but {len(sizes)} vocabularies"
        bad = (array < 0) | (array >= np.array(sizes))
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            return (
                f"the value {array[row, column]} in row {row}, column {column} of its {what} "
                f"features (graph {graph(ptr, row)}), which has {sizes[column]} categories"
            )
    return ""
