"""What bounds the steps: this machine's best, and how near each piece of work comes to it.

Matrix products as in EGNN's messages (a cloud's edges by 64 channels), SiLU on the same block, and
a copy of a tensor too large for the caches. A ceiling is the best of several repetitions, since it
is what nothing disturbs. Below them, for each piece of work: the billions of operations in its
matrix products, the share of its time that these alone would take at the ceiling, and the
operations that most of its time is spent in.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import bench_landscape
import bench_models
import bench_slices
import torch
from timing import CLOCKS, Row, row, seconds, show

from equiscape.training.products import Counter

EDGES, CHANNELS = 1024 * 20, 64  # of a cloud: points x k
LARGE = 2**26  # values of the copied tensor, 256 MB


def best(work: Callable[[], object], device: str, clock: str, repetitions: int = 15) -> float:
    """Least seconds of ``work()``."""
    return min(seconds(work, device)[CLOCKS.index(clock)] for _ in range(repetitions))


def ceilings(device: str, clock: str) -> dict[str, float]:
    """Products in GFLOP/s, SiLU in billion values/s, and copies in GB/s."""
    block = torch.randn(EDGES, CHANNELS, device=device)
    weight = torch.randn(CHANNELS, CHANNELS, device=device)
    out, large = torch.empty_like(block), torch.zeros(LARGE, device=device)
    to = torch.zeros_like(large)
    product = best(lambda: torch.mm(block, weight, out=out), device, clock)
    silu = best(lambda: torch.ops.aten.silu.out(block, out=out), device, clock)
    copy = best(lambda: to.copy_(large), device, clock)
    return {
        "products, GFLOP/s": 2e-9 * EDGES * CHANNELS**2 / product,
        "SiLU, billion values/s": 1e-9 * block.numel() / silu,
        "copies, GB/s": 1e-9 * 8 * LARGE / copy,  # read and written
    }


def steps(device: str) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Case, rival and one execution of training steps."""
    for name in bench_models.NETWORKS:
        for rival in bench_models.RIVALS:
            step = bench_models.training_step(name, rival, 8, 1024, device)
            yield bench_models.case_of(name, 8, 1024), rival, step


def products(device: str) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """The same of Hessian products."""
    with tempfile.TemporaryDirectory() as folder:
        for name in bench_landscape.NETWORKS:
            trained = bench_landscape.trained(name, Path(folder), device)
            for rival, product in bench_landscape.products(*trained, device).items():
                yield f"Hessian product, {name}", rival, partial(product, 0)


def points(device: str) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """The same of a point of a slice."""
    with tempfile.TemporaryDirectory() as folder:
        for size, (_, samples, batch_size, _) in bench_slices.SIZES.items():
            for name in bench_slices.DEMO:
                task, model = bench_slices.task_of(name, size, Path(folder), device)
                plan = task.subset("train", samples, 0, batch_size)
                batches = [task.batch("train", indices) for indices in plan]
                point = partial(task.score, model, batches)
                yield f"slice, a point, {name}, {size}", "ours", point


WORKS = {"steps": steps, "products": products, "points": points}


def measure(
    topic: str, device: str = "cpu", clock: str = "wall", repetitions: int = 3
) -> Iterator[Row]:
    """Rows of the ceilings, then of every piece of work of a topic."""
    found = ceilings(device, clock)
    for what, value in found.items():
        yield row("ceiling", "this machine", what, value)
    for case, rival, work in WORKS[topic](device):
        case = f"bounds of {case}"
        times = [seconds(work, device)[CLOCKS.index(clock)] for _ in range(repetitions + 1)][1:]
        count, taken = operations(work), statistics.median(times)
        yield row(case, rival, "GFLOP", count)
        share = count / found["products, GFLOP/s"] / taken
        yield row(case, rival, "% of the time, products at the ceiling", 100 * share)
        for operation, part in shares(work, device):
            yield row(case, rival, f"% of the time in {operation}", 100 * part)


def operations(work: Callable[[], object]) -> float:
    """Billions of multiplications and additions in the matrix products of ``work()``."""
    with Counter() as counter:
        work()
    return counter.total / 1e9


def shares(work: Callable[[], object], device: str, largest: int = 3) -> list[tuple[str, float]]:
    """The operations that ``work()`` spends most of its time in, with their share of it."""
    work()
    with torch.profiler.profile() as profile:
        work()
    key = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    times = {event.key: getattr(event, key) for event in profile.key_averages()}
    total = sum(times.values())
    ordered = sorted(times.items(), key=lambda item: -item[1])[:largest]
    return [(operation.removeprefix("aten::"), time / total) for operation, time in ordered]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("topic", choices=WORKS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    show(measure(arguments.topic, arguments.device, arguments.clock))
