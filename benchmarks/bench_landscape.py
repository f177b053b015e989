"""What an analysis at a checkpoint costs: ours against the methods of the published study.

On networks trained for a few epochs on generated shapes:

* a Hessian-vector product on kept gradient graphs, against a gradient, and against the usual
  product that builds its graph anew;
* the largest eigenvalue to a relative residual of 1e-3: Lanczos against power iteration;
* the trace to a standard error of 2 %: the Krylov space of the largest eigenvalue deflated, grown
  while that saves probes, its products counted, against plain Hutchinson. What the latter needs is
  computed from the variance of its first probes;
* a grid point of a loss slice, against a loop that evaluates the network anew at each, and against
  several points in one forward pass (``batch_points``).

The rivals take turns in each repetition; every repetition has a seed of its own.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from equiscape.data import procedural
from equiscape.landscape import slices
from equiscape.landscape.lanczos import lanczos
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.power import power_iteration
from equiscape.landscape.trace import hutchinson
from equiscape.ops import neighbors
from equiscape.optim import build_optimizer
from equiscape.task import Task, load_task

NETWORKS = {
    "egnn": {"hidden": 32, "layers": 3, "k": 8},
    "pointnet": {"channels": [32, 32, 64, 128], "head": [64]},
    "dgcnn": {"channels": [32, 32, 64], "embedding": 128, "head": [64], "k": 10},
}
SAMPLES, BATCH, POINTS, EPOCHS = 64, 32, 128, 4
PRECISION = 0.02  # standard error of the trace, relative
TOGETHER = 8  # grid points in one forward pass
Timed = tuple[float, float]  # milliseconds, products


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


def seconds(work: Callable[[], object], device: str) -> tuple[float, object]:
    """Wall seconds of ``work()``, and what it returned."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def cases(task: Task, model: nn.Module, device: str) -> dict[str, dict[str, Callable]]:
    """For each case, what each rival does with a seed; each returns milliseconds and products."""
    arguments = {"samples": SAMPLES, "batch_size": BATCH, "seed": 0}
    kept = TrainingLoss(task, model, graph_memory=2**40, **arguments)
    anew = TrainingLoss(task, model, graph_memory=0, **arguments)
    kept.value_and_gradient()
    anew.value_and_gradient()
    batches = list(kept.batches())

    def stream(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    def product(objective: TrainingLoss, seed: int) -> Timed:
        vector = torch.randn(1, objective.size, generator=stream(seed)).to(device)
        return 1e3 * seconds(lambda: objective.operator(vector), device)[0], 1

    def gradient(seed: int) -> Timed:
        def work() -> None:
            for batch in batches:
                loss = task.loss(anew.model, batch)
                torch.autograd.grad(loss, anew.parameters, allow_unused=True)

        return 1e3 * seconds(work, device)[0], 0

    def counted(work: Callable[[], object]) -> Timed:
        before = kept.operator.products
        elapsed, _ = seconds(work, device)
        return 1e3 * elapsed, kept.operator.products - before

    def by_lanczos(seed: int) -> Timed:
        return counted(
            lambda: lanczos(kept.operator, leading=1, trailing=0, generator=stream(seed))
        )

    def by_power(seed: int) -> Timed:
        return counted(
            lambda: power_iteration(kept.operator, max_iterations=500, generator=stream(seed))
        )

    def deflated(seed: int) -> Timed:
        def work() -> None:
            generator = stream(seed)
            krylov = lanczos(kept.operator, leading=1, trailing=0, generator=generator)
            hutchinson(
                kept.operator,
                10_000,
                generator=generator,
                krylov=krylov,
                tolerance=PRECISION,
            )

        return counted(work)

    def plain(seed: int, probes: int = 24) -> Timed:
        elapsed, found = seconds(
            lambda: hutchinson(kept.operator, probes, generator=stream(seed)), device
        )
        needed = probes * (found.standard_error / (PRECISION * abs(found.value))) ** 2
        return 1e3 * elapsed * needed / probes, needed

    def plane(reuse: bool, seed: int, batch_points: int | None = None) -> Timed:
        settings = {**arguments, "resolution": 3, "range": 1.0, "seed": seed}
        settings["batch_points"] = batch_points
        context = nullcontext()
        if not reuse:
            context = mock.patch.object(
                neighbors.NeighborTables,
                "find",
                lambda self, x, rows, on_device, *rest: neighbors.knn(x, *rest),
            )
        with context:
            elapsed, _ = seconds(lambda: slices.measure_slice(task, model, **settings), device)
        return 1e3 * elapsed / 10, 0  # nine points and the checkpoint

    return {
        "Hessian product": {
            "equiscape": lambda seed: product(kept, seed),
            "graph built anew": lambda seed: product(anew, seed),
            "a gradient": gradient,
        },
        "largest eigenvalue": {"equiscape": by_lanczos, "power iteration": by_power},
        "trace to 2 %": {"equiscape": deflated, "plain Hutchinson": plain},
        "slice, a point": {
            "equiscape": lambda seed: plane(True, seed),
            "plain loop": lambda seed: plane(False, seed),
            "points together": lambda seed: plane(True, seed, TOGETHER),
        },
    }


def measure(
    names: tuple[str, ...] = tuple(NETWORKS), repetitions: int = 5, device: str = "cpu"
) -> list[dict]:
    """Rows of ``case, rival, median_ms, low_ms, high_ms, ratio, products``.

    Quartiles over the repetitions; ``ratio`` is the rival's median by ours.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            task, model = trained(name, Path(folder), device)
            for case, rivals in cases(task, model, device).items():
                found: dict[str, list[Timed]] = {rival: [] for rival in rivals}
                for repetition in range(repetitions + 1):
                    for rival, work in rivals.items():
                        timed = work(repetition)
                        if repetition:  # the first warms up
                            found[rival].append(timed)
                ours = statistics.median(ms for ms, _ in found["equiscape"])
                for rival, timed in found.items():
                    low, median, high = statistics.quantiles([ms for ms, _ in timed], n=4)
                    rows.append(
                        {
                            "case": f"{case}, {name}",
                            "rival": rival,
                            "median_ms": median,
                            "low_ms": low,
                            "high_ms": high,
                            "ratio": median / ours,
                            "products": statistics.median(products for _, products in timed),
                        }
                    )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    arguments = parser.parse_args()
    for row in measure(tuple(arguments.networks), arguments.repetitions, arguments.device):
        print(
            f"{row['case']:30} {row['rival']:17} {row['median_ms']:10.2f} ms "
            f"[{row['low_ms']:.2f}, {row['high_ms']:.2f}]  by ours {row['ratio']:.2f}, "
            f"{row['products']:.0f} products"
        )
