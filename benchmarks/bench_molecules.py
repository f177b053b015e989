"""Molecules a second in training: ours against the released code's form and PyG's DataLoader.

All train the same network from the same weights on the same molecules, with the same number of
molecules a batch on average. Ours gathers batches of molecules of similar size from arrays that
lie on the device, neighbor lists included. The rivals collate ``Data`` objects in random order;
GotenNet's search the neighbors of every batch anew, as its ``radius_graph`` does. One rival has our
network, the other the released code's form of it (:mod:`rivals_molecules`). Rivals take turns.

GotenNet: QM9's molecules where ../shared/data/qm9 is at hand, else generated ones. GINE: ZINC's,
where ../shared/data/zinc is at hand.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rivals_molecules import StockGINE, StockGotenNet, neighbors
from timing import Row, rate_rows, seconds, show
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from equiscape.data import generated_molecules, qm9, zinc
from equiscape.data.molecules import MoleculeDataset
from equiscape.models.gine import GINE
from equiscape.models.gotennet import GotenNet

SHARED = Path(__file__).parents[2] / "shared/data"
MOLECULES, BUDGET = 2000, 600  # how many, and nodes of our batches
GOTENNET = {"hidden": 32, "layers": 2, "heads": 4, "radial": 32}
Batches = Iterator[tuple[tuple, Tensor]]  # inputs and target


def gotennet_data(folder: Path) -> tuple[str, MoleculeDataset]:
    """What they are, and the molecules."""
    path = folder / "qm9.h5"
    entry = {"limit": MOLECULES, "node_budget": BUDGET, "target": "u0"}
    if (SHARED / "qm9").is_dir():
        qm9.prepare(entry, SHARED / "qm9", path)
        return "QM9's molecules", qm9.load(path, torch.device("cpu"), entry)
    entry = {**entry, "molecules": MOLECULES, "target": "energy"}
    generated_molecules.prepare(entry, None, path)
    return "generated molecules", generated_molecules.load(path, torch.device("cpu"), entry)


def zinc_data(folder: Path) -> MoleculeDataset:
    """ZINC's molecules, with random walks of 20 steps."""
    path, entry = folder / "zinc.h5", {"walk_steps": 20, "node_budget": BUDGET}
    zinc.prepare(entry, SHARED / "zinc", path)
    return zinc.load(path, torch.device("cpu"), entry)


def as_pyg(data: MoleculeDataset) -> list[Data]:
    """The training molecules one by one."""
    found = []
    for g in range(data.size("train")):
        batch = data.gather("train", torch.tensor([g]))
        if data.molecules.positions is not None:
            z, positions, *_ = batch.inputs
            found.append(Data(z=z, pos=positions, y=batch.target))
        else:
            x, edge_index, edge_attr, walks, *_ = batch.inputs
            graph = Data(x=x, edge_index=edge_index, edge_attr=edge_attr, y=batch.target)
            graph.walks = walks
            found.append(graph)
    return found


def our_batches(data: MoleculeDataset) -> Batches:
    """One epoch after the other."""
    generator = torch.Generator().manual_seed(0)
    while True:
        for indices in data.plan("train", 1, generator):
            batch = data.gather("train", indices)
            yield batch.inputs, batch.target


def collated(data: MoleculeDataset, search: bool = False) -> Batches:
    """The same from a DataLoader; with a ``search`` for neighbors, as inputs of our GotenNet."""
    batch_size = round(data.size("train") / len(data.plan("train", 1)))
    torch.manual_seed(0)
    loader = DataLoader(as_pyg(data), batch_size, shuffle=True)
    while True:
        for batch in loader:
            if not search:
                yield (batch,), batch.y
                continue
            edges = neighbors(batch.pos, batch.batch, data.molecules.cutoff)
            largest = int(torch.bincount(batch.batch).max())
            yield (batch.z, batch.pos, edges, batch.batch, batch.num_graphs, largest), batch.y


def trainer(data: MoleculeDataset, model: nn.Module, batches: Batches) -> Callable[[], int]:
    """A function that trains one step and returns its number of molecules."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> int:
        inputs, target = next(batches)
        optimizer.zero_grad()
        data.objective.loss(model(*inputs), target).backward()
        optimizer.step()
        return len(target)

    return step


def feed(batches: Batches) -> Callable[[], int]:
    """A function that only prepares a batch."""
    return lambda: len(next(batches)[1])


def cases(folder: Path) -> Iterator[tuple[str, dict[str, Callable[[], int]]]]:
    """For each case, what each rival does."""
    which, data = gotennet_data(folder)

    def gotennet() -> GotenNet:
        torch.manual_seed(0)
        return GotenNet(**data.model_arguments(), **GOTENNET)

    feeds = {"ours": our_batches(data), "PyG DataLoader": collated(data, search=True)}
    yield f"batches alone, {which}", {rival: feed(batches) for rival, batches in feeds.items()}
    yield (
        f"train, gotennet, {which}",
        {
            "ours": trainer(data, gotennet(), our_batches(data)),
            "PyG DataLoader": trainer(data, gotennet(), collated(data, search=True)),
            "released form": trainer(data, StockGotenNet(gotennet()), collated(data)),
        },
    )
    if (SHARED / "zinc").is_dir():
        graphs = zinc_data(folder)

        def gine() -> GINE:
            torch.manual_seed(0)
            return GINE(**graphs.model_arguments())

        yield (
            "train, gine, ZINC's molecules",
            {
                "ours": trainer(graphs, gine(), our_batches(graphs)),
                "released form": trainer(graphs, StockGINE(gine()), collated(graphs)),
            },
        )


def rates(
    rivals: dict[str, Callable[[], int]], rounds: int, steps: int
) -> dict[str, list[tuple[float, float]]]:
    """Molecules a second of wall and of CPU time of every rival in each round, taking turns."""
    for step in rivals.values():
        step()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, step in rivals.items():
            counts: list[int] = []
            times = seconds(lambda s=step, c=counts: c.extend(s() for _ in range(steps)))
            found[name].append((sum(counts) / times[0], sum(counts) / times[1]))
    return found


def measure(rounds: int = 7, steps: int = 5) -> Iterator[Row]:
    """Rows of every case and rival."""
    with tempfile.TemporaryDirectory() as folder:
        for case, rivals in cases(Path(folder)):
            yield from rate_rows(case, rates(rivals, rounds, steps), "molecules")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    show(measure(arguments.rounds, arguments.steps))
