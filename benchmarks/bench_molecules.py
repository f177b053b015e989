"""Molecules a second in training: our resident, packed batches against PyG's DataLoader.

Both train the same GotenNet from the same weights on the same molecules, with the same number of
molecules a batch on average. Ours gathers batches of molecules of similar size from arrays that lie
on the device, neighbor lists included; the rival collates ``Data`` objects in random order and
searches the neighbors of every batch anew, as a ``radius_graph`` inside the network does. Rivals
take turns in one process; rates are per second of wall time and of CPU time, which other jobs
disturb less.

    python benchmarks/bench_molecules.py --source ../shared/data/qm9 --csv molecules.csv
"""

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from equiscape.data import generated_molecules, qm9
from equiscape.data.molecules import MoleculeDataset
from equiscape.models.gotennet import GotenNet

COLUMNS = ("name", "rival", "hidden", "clock", "molecules_per_second", "quartile_1", "quartile_3")


def neighbors(positions: torch.Tensor, graph: torch.Tensor, cutoff: float) -> torch.Tensor:
    """``[2, E]`` ordered pairs of one molecule within the cutoff, with self-loops."""
    near = (torch.cdist(positions, positions) < cutoff) & (graph[:, None] == graph)
    target, source = near.nonzero().unbind(1)
    return torch.stack([source, target])


def as_pyg(data: MoleculeDataset) -> list[Data]:
    """The training molecules one by one."""
    molecules, ptr = data.molecules, data.molecules.node_ptr
    targets = data.gather("train", torch.arange(data.size("train"))).target
    return [
        Data(
            z=torch.from_numpy(molecules.node_features[ptr[g] : ptr[g + 1], 0].astype(np.int64)),
            pos=torch.from_numpy(molecules.positions[ptr[g] : ptr[g + 1]]),
            y=target,
        )
        for g, target in zip(molecules.splits["train"].tolist(), targets)
    ]


def our_batches(data: MoleculeDataset) -> Iterator[tuple]:
    """(inputs, target) of one epoch after the other."""
    generator = torch.Generator().manual_seed(0)
    while True:
        for indices in data.plan("train", 1, generator):
            batch = data.gather("train", indices)
            yield batch.inputs, batch.target


def pyg_batches(data: MoleculeDataset, batch_size: int) -> Iterator[tuple]:
    """The same from a DataLoader, with a search for neighbors in every batch."""
    loader = DataLoader(as_pyg(data), batch_size, shuffle=True)
    while True:
        for batch in loader:
            edges = neighbors(batch.pos, batch.batch, data.molecules.cutoff)
            largest = int(torch.bincount(batch.batch).max())
            inputs = (batch.z, batch.pos, edges, batch.batch, batch.num_graphs, largest)
            yield inputs, batch.y


def trainer(data: MoleculeDataset, batches: Iterator[tuple], hidden: int) -> Callable[[], int]:
    """A function that trains one step and returns its number of molecules."""
    torch.manual_seed(0)
    model = GotenNet(**data.model_arguments(), hidden=hidden, layers=2, heads=4, radial=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> int:
        inputs, target = next(batches)
        optimizer.zero_grad()
        data.objective.loss(model(*inputs), target).backward()
        optimizer.step()
        return len(target)

    return step


def feed(batches: Iterator[tuple]) -> Callable[[], int]:
    """A function that only prepares a batch."""
    return lambda: len(next(batches)[1])


def measure(
    rivals: dict[str, Callable[[], int]], rounds: int, steps: int
) -> dict[str, list[tuple[float, float]]]:
    """Molecules a second of wall and of CPU time of every rival in each round, taking turns."""
    for step in rivals.values():
        step()
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, step in rivals.items():
            wall, cpu = time.perf_counter(), time.process_time()
            molecules = sum(step() for _ in range(steps))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            rates[name].append((molecules / wall, molecules / cpu))
    return rates


def main() -> None:
    """Measure and write one row a rival."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="qm9_3d.npz or its folder; generated without")
    parser.add_argument("--molecules", type=int, default=2000)
    parser.add_argument("--budget", type=int, default=600, help="nodes of our batches")
    parser.add_argument("--hidden", type=int, nargs="+", default=[32])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--csv", type=Path, default=Path("molecules.csv"))
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "molecules.h5"
        entry = {"limit": arguments.molecules, "node_budget": arguments.budget, "target": "u0"}
        if arguments.source:
            qm9.prepare(entry, arguments.source, path)
            data = qm9.load(path, torch.device("cpu"), entry)
        else:
            entry = {**entry, "molecules": arguments.molecules, "target": "energy"}
            generated_molecules.prepare(entry, None, path)
            data = generated_molecules.load(path, torch.device("cpu"), entry)
    batch_size = round(data.size("train") / len(data.plan("train", 1)))

    rows = []
    cases = {f"train, {hidden} channels": hidden for hidden in arguments.hidden}
    for name, hidden in {"batches alone": 0, **cases}.items():
        sources = {"ours": our_batches(data), "PyG DataLoader": pyg_batches(data, batch_size)}
        rivals = {
            rival: trainer(data, batches, hidden) if hidden else feed(batches)
            for rival, batches in sources.items()
        }
        for rival, rates in measure(rivals, arguments.rounds, arguments.steps).items():
            for clock, found in zip(("wall s", "CPU s"), zip(*rates)):
                low, median, high = statistics.quantiles(found, n=4)
                rows.append(dict(zip(COLUMNS, (name, rival, hidden, clock, median, low, high))))
                print(
                    f"{name:22} {rival:16} {median:10.1f} ({low:.1f} - {high:.1f}) molecules "
                    f"a {clock}"
                )
    with open(arguments.csv, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
