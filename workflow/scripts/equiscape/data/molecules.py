"""Molecules and graphs as a data set resident on one device; batches by index arithmetic.

The prepared file that they come from is described in :mod:`equiscape.data.molecule_files`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscape.data.base import Batch, Dataset, Split
from equiscape.data.molecular_graphs import atom_references
from equiscape.data.molecule_files import (
    FORMAT,
    SPLITS,
    Molecules,
    check,
    read_molecules,
    write_molecules,
)
from equiscape.errors import ConfigError
from equiscape.objectives import MultiLabel, Objective, Regression
from equiscape.ops.chunks import upload
from equiscape.registry import unknown

__all__ = [
    "FORMAT",
    "SPLITS",
    "MoleculeDataset",
    "Molecules",
    "check",
    "dataset",
    "pack",
    "read_molecules",
    "write_molecules",
]

WINDOW = 32  # batches among which graphs are sorted by size
LOSSES = ("mse", "l1")


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

        def resident(array: np.ndarray | None) -> Any:
            if array is None:
                return None
            if array.dtype == np.uint16:  # torch cannot index or gather uint16 everywhere
                array = array.astype(np.int32)
            return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

        self._node_start: Tensor = resident(molecules.node_ptr[:-1])
        self._edge_start: Tensor = resident(molecules.edge_ptr[:-1])
        self._nodes_of, self._edges_of = self._counts.to(device), self._edge_counts.to(device)
        self._features: Tensor = resident(molecules.node_features)
        self._edge_index: Tensor = resident(molecules.edge_index)
        self._positions: Tensor | None = resident(molecules.positions)
        self._edge_features = resident(molecules.edge_features)
        self._walks: Tensor | None = resident(molecules.walks)
        self._targets: Tensor = resident(targets.astype(np.float32))

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

    def fits(self, split: Split, indices: Tensor) -> bool:
        """Whether these molecules have no more nodes than the budget allows."""
        if self.node_budget is None:
            return True
        return int(self._counts[self._splits[split][indices]].sum()) <= self.node_budget

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
            inputs: tuple[Any, ...] = (z, positions, edge_index, graph, size, largest)
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
