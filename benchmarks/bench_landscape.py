"""What curvature costs: Hessian products, products in blocks, and the trace, against rivals.

On networks trained for a few epochs on generated shapes:

* a Hessian-vector product on kept gradient graphs, against a gradient; against the published one
  (PyHessian's: the gradient's graph of stock torch-geometric layers, kept, all samples at once);
  and against the usual one that builds our own graph anew. EGNN's is built anew in two forms: with
  every edge kept in it, and with edges computed again chunk by chunk;
* products with 2, 4 and 8 vectors one by one, against one backward pass of them all
  (``is_grads_batched``);
* the trace to a standard error of 2 %: the Krylov space of the largest eigenvalue deflated, grown
  while that saves probes, its products counted, against plain Hutchinson. What the latter needs is
  computed from the variance of its first probes.

The rivals take turns in each repetition; every repetition has a seed of its own.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from rivals import stock
from timing import Row, quartiles, row, show, take_turns, timed_rows
from torch import Tensor, nn

from equiscape.data import procedural
from equiscape.landscape.lanczos import lanczos
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.trace import hutchinson
from equiscape.models.egnn import EGNN
from equiscape.optim import build_optimizer
from equiscape.task import Task, load_task

NETWORKS = {
    "egnn": {"hidden": 32, "layers": 3, "k": 8},
    "pointnet": {"channels": [32, 32, 64, 128], "head": [64]},
    "dgcnn": {"channels": [32, 32, 64], "embedding": 128, "head": [64], "k": 10},
}
SAMPLES, BATCH, POINTS, EPOCHS = 64, 32, 128, 4
BLOCKS = (2, 4, 8)  # vectors in one backward pass
PRECISION = 0.02  # standard error of the trace, relative
PROBES = 24  # from which what plain Hutchinson needs is computed


def trained(name: str, folder: Path, device: str) -> tuple[Task, nn.Module]:
    """A task on generated shapes, and its network after a few epochs of AdamW."""
    entry = {"kind": "procedural", "points": POINTS}
    prepared = folder / "shapes.h5"
    if not prepared.exists():
        procedural.prepare(entry, None, prepared)
    settings = {"architecture": name, "model": NETWORKS[name], "training": {"batch_size": BATCH}}
    task = load_task(name, settings, "shapes", entry, prepared, torch.device(device))
    model = task.build(0)
    optimizer, _ = build_optimizer(model, {"class": "adamw"}, 3e-3, 1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for indices in task.plan("train", BATCH, generator):
            loss = task.loss(model, task.batch("train", indices))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return task, model.eval()


def loss_of(task: Task, model: nn.Module, graph_memory: int) -> TrainingLoss:
    """The training loss on the samples of this page."""
    return TrainingLoss(
        task, model, samples=SAMPLES, batch_size=BATCH, seed=0, graph_memory=graph_memory
    )


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Published:
    """PyHessian's product: one graph of the gradient over all samples, kept, of stock layers."""

    def __init__(self, task: Task, model: nn.Module):
        self.model = stock(model).eval()
        self.parameters = list(self.model.parameters())
        plan = task.subset("train", SAMPLES, 0, SAMPLES)
        batch = task.batch("train", plan[0])
        loss = task.dataset.objective.loss(self.model(batch.inputs[0]), batch.target)
        self.gradients = torch.autograd.grad(
            loss, self.parameters, create_graph=True, allow_unused=True
        )

    def product(self, vectors: list[Tensor]) -> tuple[Tensor | None, ...]:
        """``H v``, a tensor a parameter."""
        live = [(g, v) for g, v in zip(self.gradients, vectors) if g is not None and g.grad_fn]
        return torch.autograd.grad(
            [g for g, _ in live],
            self.parameters,
            grad_outputs=[v for _, v in live],
            retain_graph=True,
            allow_unused=True,
        )

    def of_a_seed(self, seed: int) -> tuple[Tensor | None, ...]:
        generator = stream(seed)
        vectors = [torch.randn(p.shape, generator=generator).to(p) for p in self.parameters]
        return self.product(vectors)


class Anew(TrainingLoss):
    """Builds every graph anew, but in the form that is chosen where it fits."""

    keeps: bool | None = None

    def _edges_fit(self) -> bool:
        fits = super()._edges_fit()
        return fits if self.keeps is None else self.keeps


def anew(task: Task, model: nn.Module, keeps: bool | None) -> TrainingLoss:
    """A loss that keeps no graph, with every edge in the one it works on (``keeps``) or without."""
    loss = Anew(task, model, samples=SAMPLES, batch_size=BATCH, seed=0, graph_memory=0)
    loss.keeps = keeps
    loss.value_and_gradient()
    return loss


def products(task: Task, model: nn.Module, device: str) -> dict[str, Callable[[int], object]]:
    """One product of each rival with the vector of a seed."""
    kept = loss_of(task, model, 2**40)
    kept.value_and_gradient()
    batches, published = list(kept.batches()), Published(task, model)

    def product(loss: TrainingLoss, seed: int) -> None:
        loss.operator(torch.randn(1, loss.size, generator=stream(seed)).to(device))

    def gradient(seed: int) -> None:
        for batch in batches:
            loss = task.loss(kept.model, batch)
            torch.autograd.grad(loss, kept.parameters, allow_unused=True)

    rivals = {
        "ours": partial(product, kept),
        "published": published.of_a_seed,
        "a gradient": gradient,
        "graph built anew": partial(product, anew(task, model, True)),
    }
    if isinstance(model, EGNN):
        rivals["edges computed again"] = partial(product, anew(task, model, False))
    return rivals


def blocks(task: Task, model: nn.Module, vectors: int, device: str) -> dict[str, Callable]:
    """Products of kept graphs with several vectors, one by one and in one backward pass."""
    kept = loss_of(task, model, 2**40)
    kept.value_and_gradient()

    def batched(seed: int) -> None:
        rows = torch.randn(vectors, kept.size, generator=stream(seed)).to(device)
        for gradients in kept._kept or []:
            live = {i: g for i, g in enumerate(gradients) if g is not None and g.requires_grad}
            parts = rows.split([p.numel() for p in kept.parameters], dim=1)
            torch.autograd.grad(
                list(live.values()),
                kept.parameters,
                grad_outputs=[parts[i].view(vectors, *g.shape) for i, g in live.items()],
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=True,
            )

    def one_by_one(seed: int) -> None:
        kept.operator(torch.randn(vectors, kept.size, generator=stream(seed)).to(device))

    return {"ours": one_by_one, "one backward pass": batched}


def traces(task: Task, model: nn.Module, case: str, repetitions: int, device: str) -> list[Row]:
    """Rows of the trace: products and time until the standard error is small enough."""
    kept = loss_of(task, model, 2**40)
    kept.value_and_gradient()
    needed: dict[str, list[float]] = {"ours": [], "plain Hutchinson": []}

    def deflated(seed: int) -> None:
        before, generator = kept.operator.products, stream(seed)
        krylov = lanczos(kept.operator, leading=1, trailing=0, generator=generator)
        hutchinson(kept.operator, 10_000, generator=generator, krylov=krylov, tolerance=PRECISION)
        needed["ours"].append(kept.operator.products - before)

    def plain(seed: int) -> None:
        found = hutchinson(kept.operator, PROBES, generator=stream(seed))
        share = found.standard_error / (PRECISION * abs(found.value))
        needed["plain Hutchinson"].append(PROBES * share**2)

    rivals = {"ours": deflated, "plain Hutchinson": plain}
    times = take_turns(rivals, repetitions, device)
    counts = {rival: found[-repetitions:] for rival, found in needed.items()}  # not the warming up
    times["plain Hutchinson"] = [
        (wall * count / PROBES, cpu * count / PROBES)
        for (wall, cpu), count in zip(times["plain Hutchinson"], counts["plain Hutchinson"])
    ]
    rows = timed_rows(case, times)
    return rows + [row(case, rival, "products", *quartiles(c)) for rival, c in counts.items()]


def measure(
    names: tuple[str, ...] = tuple(NETWORKS),
    repetitions: int = 5,
    device: str = "cpu",
    topics: tuple[str, ...] = ("products", "blocks", "trace"),
) -> Iterator[Row]:
    """Rows of every network and topic."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            task, model = trained(name, Path(folder), device)
            if "products" in topics:
                found = take_turns(products(task, model, device), 3 * repetitions, device)
                yield from timed_rows(f"Hessian product, {name}", found)
            for vectors in BLOCKS if "blocks" in topics else ():
                found = take_turns(blocks(task, model, vectors, device), repetitions, device)
                yield from timed_rows(f"product with {vectors} vectors, {name}", found)
            if "trace" in topics:
                yield from traces(task, model, f"trace to 2 %, {name}", repetitions, device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("topics", nargs="*", default=["products", "blocks", "trace"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    networks = tuple(arguments.networks)
    show(measure(networks, arguments.repetitions, arguments.device, tuple(arguments.topics)))
