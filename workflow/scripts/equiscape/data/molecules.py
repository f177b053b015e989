"""Many small graphs in one prepared file, and as a data set resident on one device.

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
``split/train`` ...    int64             graphs of each split
=====================  ================  ===========================================================

and the attributes ``format``, ``name``, ``source_sha256``, ``preparation_version``, ``cutoff``,
``target_names``, ``units``, ``node_categories`` and ``edge_categories``.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from equiscape.data.base import Batch, Dataset, Split, upload
from equiscape.data.molecular_graphs import atom_references, pointer, ranges
from equiscape.errors import ConfigError, DataError, first_line
from equiscape.io import atomic_path
from equiscape.objectives import MultiLabel, Objective, Regression
from equiscape.registry import unknown

FORMAT = "equiscape-molecules-1"
WINDOW = 32  # batches among which graphs are sorted by size
LOSSES = ("mse", "l1")
SPLITS = ("train", "validation", "test")
ARRAYS = (
    *("node_ptr", "edge_ptr", "node_features", "edge_index", "positions"),
    *("edge_features", "walks", "targets", "baseline"),
)
OPTIONAL = ("positions", "edge_features", "walks", "baseline")


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
    path: Path, molecules: Molecules, name: str, source_sha256: str, version: int
) -> None:
    """Write ``molecules`` atomically.

    Raises:
        DataError: the arrays do not fit together, or a value is not finite.
    """
    check(molecules, path)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for key in ARRAYS:
            array = getattr(molecules, key)
            if array is not None:
                file.create_dataset(key, data=array, compression="lzf", shuffle=True)
        for split in SPLITS:
            file[f"split/{split}"] = np.asarray(molecules.splits[split], dtype=np.int64)
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
        )


def read_molecules(path: Path) -> Molecules:
    """Read what :func:`write_molecules` wrote.

    Raises:
        DataError: the file is absent, damaged, or of another format.
    """
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise DataError(
                    f"{path} is not in the format {FORMAT}; delete it, and it is prepared again."
                )
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
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run the rule that prepares it.") from None
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        reason = first_line(error).strip("'\"")
        raise DataError(
            f"{path} is damaged ({reason}); delete it, so that it is prepared again."
        ) from None
    check(molecules, path)
    return molecules


def check(molecules: Molecules, path: Path) -> None:
    """Raise a DataError that names ``path`` where the arrays do not fit together."""
    n, nodes, edges = len(molecules), len(molecules.node_features), molecules.edge_index.shape[1]

    def ends(ptr: np.ndarray, total: int) -> bool:
        return len(ptr) == n + 1 and ptr[0] == 0 and ptr[-1] == total and (np.diff(ptr) >= 0).all()

    faults = {
        "holds no graphs": n == 0,
        "has node pointers that do not fit its nodes": not ends(molecules.node_ptr, nodes),
        "has edge pointers that do not fit its edges": not ends(molecules.edge_ptr, edges),
        "has a target for each of another number of graphs": len(molecules.targets) != n,
        "has targets that are not finite": not np.isfinite(molecules.targets).all(),
        "has a split that names graphs it does not hold": any(
            len(split) and not 0 <= split.min() <= split.max() < n
            for split in molecules.splits.values()
        ),
    }
    for key, total in (("positions", nodes), ("walks", nodes), ("edge_features", edges)):
        array = getattr(molecules, key)
        if array is not None:
            faults[f"has {key} of another number of rows"] = len(array) != total
    if molecules.positions is not None:
        faults["has positions that are not finite"] = not np.isfinite(molecules.positions).all()
    for fault, present in faults.items():
        if present:
            raise DataError(f"{path} {fault}; check its source and prepare it again.")


class MoleculeDataset(Dataset):
    """Molecules on one device; a batch is gathered there by index arithmetic.

    Args:
        molecules: with the splits to use.
        device: where the arrays live.
        targets: columns to learn.
        objective: loss and metric.
        head: of networks that take a geometry.
        node_budget: most nodes a batch may hold; None to count molecules instead.
        column: which of the file's targets is learned; None for all of them.
    """

    def __init__(
        self,
        molecules: Molecules,
        device: torch.device,
        targets: np.ndarray,
        objective: Objective,
        head: str | None = None,
        node_budget: int | None = None,
        column: int | None = None,
    ):
        self.name = ""
        self.objective = objective
        self.device = torch.device(device)
        self.node_budget = node_budget
        self.molecules = molecules
        self._head = head
        self._column = column
        self._counts = torch.from_numpy(np.diff(molecules.node_ptr))  # on the CPU, for sizes
        self._edge_counts = torch.from_numpy(np.diff(molecules.edge_ptr))
        self._splits = {
            split: torch.from_numpy(np.asarray(graphs, dtype=np.int64))
            for split, graphs in molecules.splits.items()
        }

        def resident(array: np.ndarray | None) -> Tensor | None:
            if array is None:
                return None
            if array.dtype == np.uint16:  # torch cannot index or gather uint16 everywhere
                array = array.astype(np.int32)
            return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

        self._node_start = resident(molecules.node_ptr[:-1])
        self._edge_start = resident(molecules.edge_ptr[:-1])
        self._nodes_of, self._edges_of = self._counts.to(device), self._edge_counts.to(device)
        self._features = resident(molecules.node_features)
        self._edge_index = resident(molecules.edge_index)
        self._positions = resident(molecules.positions)
        self._edge_features = resident(molecules.edge_features)
        self._walks = resident(molecules.walks)
        self._targets = resident(targets.astype(np.float32))

    def model_arguments(self) -> dict[str, Any]:
        """Head and cutoff of a geometric network, or the vocabularies of a graph network."""
        outputs = 1 if self._targets.dim() == 1 else self._targets.shape[1]
        if self._positions is not None:
            return {"num_outputs": outputs, "head": self._head, "cutoff": self.molecules.cutoff}
        return {
            "num_outputs": outputs,
            "node_categories": self.molecules.node_categories,
            "edge_categories": self.molecules.edge_categories,
            "walk_steps": 0 if self._walks is None else self._walks.shape[1],
        }

    def outputs(self) -> dict[str, Any]:
        """The target's name and scale, with its atom references; or the names of all labels."""
        molecules, column = self.molecules, self._column
        if column is None:
            return {**super().outputs(), "labels": list(molecules.target_names)}
        found = {**super().outputs(), "target": molecules.target_names[column]}
        if molecules.baseline is not None and molecules.baseline[:, column].any():
            z, sums = molecules.node_features[:, 0], molecules.baseline[:, column]
            found["atom_references"] = atom_references(z, molecules.node_ptr, sums)
        return found

    def size(self, split: Split) -> int:
        """The number of molecules in ``split``."""
        return len(self._splits[split])

    def plan(
        self, split: Split, batch_size: int, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """Batches of ``batch_size`` molecules, or of up to ``node_budget`` nodes where set."""
        if self.node_budget is None:
            return super().plan(split, batch_size, generator)
        n = self.size(split)
        if generator is None:
            order = self.by_size(split, torch.arange(n))
        else:
            order = torch.randperm(n, generator=generator)
        counts = self._counts[self._splits[split]][order]
        return pack(order, counts, self.node_budget, generator)

    def by_size(self, split: Split, indices: Tensor) -> Tensor:
        """The largest first where networks pad to the largest of a batch: those with a geometry."""
        if self._positions is None:
            return indices
        counts = self._counts[self._splits[split][indices]]
        return indices[counts.argsort(descending=True, stable=True)]

    def gather(self, split: Split, indices: Tensor) -> Batch:
        """The molecules ``indices`` of ``split``; inputs are those of the networks' ``forward``."""
        graphs = self._splits[split][indices.cpu()]
        size = len(graphs)
        nodes, edges = int(self._counts[graphs].sum()), int(self._edge_counts[graphs].sum())
        largest = int(self._counts[graphs].max())
        graphs = upload(graphs, self.device)
        node_counts, edge_counts = self._nodes_of[graphs], self._edges_of[graphs]
        graph, node, before = _ranges(self._node_start[graphs], node_counts, nodes)
        edge_graph, edge, _ = _ranges(self._edge_start[graphs], edge_counts, edges)
        edge_index = self._edge_index[:, edge].long() + before[edge_graph]
        features, target = self._features[node], self._targets[graphs]
        if self._positions is not None:
            z, positions = features[:, 0].long(), self._positions[node]
            inputs = (z, positions, edge_index, graph, size, largest)
        else:
            walks = None if self._walks is None else self._walks[node]
            inputs = (features, edge_index, self._edge_features[edge], walks, graph, size)
        return Batch(inputs, target, size, graph)


def _ranges(starts: Tensor, counts: Tensor, total: int) -> tuple[Tensor, Tensor, Tensor]:
    """For the concatenated ranges: which one, the index itself, and each range's first place.

    ``total``, known on the host, keeps the device from having to report it.
    """
    which = torch.repeat_interleave(
        torch.arange(len(counts), device=counts.device), counts, output_size=total
    )
    before = counts.cumsum(0) - counts
    index = torch.arange(total, device=counts.device) + (starts - before)[which]
    return which, index, before


def pack(
    order: Tensor, counts: Tensor, budget: int, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Cut ``order`` into batches of at most ``budget`` nodes each; all on the CPU.

    With a ``generator``, graphs of similar size come together, since networks that pad to the
    largest of a batch then pad little: the order is taken in windows of some batches, each window
    is sorted by size before it is cut, and all batches are shuffled in the end. Without one, the
    order is kept. A graph larger than the budget is a batch of its own.

    Args:
        order: ``[n]`` graphs.
        counts: ``[n]`` nodes of each of them.
        budget: most nodes of a batch.
    """
    batches: list[Tensor] = []
    if not len(order):
        return batches
    if generator is not None:
        window = (counts.cumsum(0) - 1) // (WINDOW * budget)
        by_size = torch.argsort(window * (int(counts.max()) + 1) + counts, stable=True)
        order, counts = order[by_size], counts[by_size]
    ends = counts.cumsum(0)
    first = 0
    while first < len(order):
        used = int(ends[first - 1]) if first else 0
        last = int(torch.searchsorted(ends, used + budget, right=True))
        batches.append(order[first : max(last, first + 1)])
        first += len(batches[-1])
    if generator is None:
        return batches
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def dataset(
    path: Path,
    device: torch.device,
    entry: dict[str, Any],
    *,
    loss: str = "mse",
    heads: dict[str, str] | None = None,
) -> MoleculeDataset:
    """Load a prepared file of regression or multi-label data as its ``entry`` asks.

    The entry may hold ``target`` (a name; needed where there are several), ``loss`` (``mse`` or
    ``l1``), ``node_budget`` and ``cutoff``.

    Args:
        loss: the default loss; ``"multilabel"`` learns all targets at once.
        heads: the head of each target that needs another than the scalar one; their targets are
            scaled, but not shifted.

    Raises:
        DataError: the file is damaged.
        ConfigError: an unknown target or loss, or a cutoff that the file was not prepared with.
    """
    molecules = read_molecules(path)
    if "cutoff" in entry and float(entry["cutoff"]) != molecules.cutoff:
        raise ConfigError(
            f"cutoff: {path} holds neighbors up to {molecules.cutoff:g}, not {entry['cutoff']}; "
            "set it in the data set's entry, which prepares the file again."
        )
    budget = entry.get("node_budget")
    if loss == "multilabel":
        objective: Objective = MultiLabel()
        return MoleculeDataset(molecules, device, molecules.targets, objective, node_budget=budget)

    names = molecules.target_names
    name = entry.get("target", names[0] if len(names) == 1 else None)
    if name not in names:
        raise unknown(str(name), names, "target")
    if entry.get("loss", loss) not in LOSSES:
        raise unknown(str(entry["loss"]), LOSSES, "loss")
    column = names.index(name)
    target = molecules.targets[:, column]
    if molecules.baseline is not None:
        target = target - molecules.baseline[:, column]
    head = (heads or {}).get(name, "scalar")
    learned = target[molecules.splits["train"]]
    objective = Regression(
        entry.get("loss", loss),
        mean=learned.mean() if head == "scalar" else 0.0,
        std=max(float(learned.std()), 1e-12),
        unit=molecules.units[column],
    )
    return MoleculeDataset(molecules, device, target, objective, head, budget, column)
