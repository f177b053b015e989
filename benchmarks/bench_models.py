"""Seconds and memory of a training step: our networks against stock torch-geometric layers.

Both have the same weights and see the same clouds; a step is forward, cross entropy and backward.
Rivals take turns in one process for the times; memory is measured in a process of its own for each,
as what a few steps add to the resident set at its highest (CPU) or allocate (CUDA).

    python benchmarks/bench_models.py --batch 8 --points 1024 --csv results.csv
"""

import argparse
import csv
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rivals import stock
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from equiscape.models import build

NETWORKS = {"pointnet": {"dropout": 0.0}, "egnn": {"k": 20}, "dgcnn": {"dropout": 0.0}}
RIVALS = ("ours", "stock")
COLUMNS = (
    "network",
    "rival",
    "batch",
    "points",
    "seconds",
    "quartile_1",
    "quartile_3",
    "cpu_seconds",
    "cpu_quartile_1",
    "cpu_quartile_3",
    "memory_mb",
)


def training_step(
    name: str, rival: str, batch: int, points: int, device: str
) -> Callable[[], None]:
    """One training step of a rival on random clouds, the same for both."""
    torch.manual_seed(0)
    model = build(name, {"num_outputs": 40}, NETWORKS[name]).to(device)
    model = model if rival == "ours" else stock(model)
    draw = torch.Generator().manual_seed(1)  # its own: building a rival draws numbers too
    shape = torch.randn(batch, points, 3, generator=draw).div_(2).clamp_(-1, 1)  # filled balls
    clouds = (shape * torch.rand(batch, 1, 3, generator=draw).add(0.2)).to(device)
    labels = torch.randint(0, 40, (batch,), generator=draw).to(device)

    def step() -> None:
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(clouds), labels).backward()
        if device != "cpu":
            torch.cuda.synchronize()

    return step


def operations(work: Callable[[], object]) -> float:
    """Billions of multiplications and additions in the matrix products of ``work()``."""
    with _Products() as counter:
        work()
    return counter.operations / 1e9


class _Products(TorchDispatchMode):
    """Counts by torch's own formulas.

    Not its ``FlopCounterMode``, which cannot watch ``torch.autograd.grad`` with a leaf and does not
    know the in-place form of ``addmm``.
    """

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet is torch.ops.aten.addmm_:
            packet = torch.ops.aten.addmm
        if packet in flop_registry:
            self.operations += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        return out


def shares(work: Callable[[], object], device: str, largest: int = 6) -> list[tuple[str, float]]:
    """The operations that ``work()`` spends most of its time in, with their share of it."""
    work()
    with torch.profiler.profile() as profile:
        work()
    key = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    times = {event.key: getattr(event, key) for event in profile.key_averages()}
    total = sum(times.values())
    ordered = sorted(times.items(), key=lambda item: -item[1])[:largest]
    return [(operation.removeprefix("aten::"), time / total) for operation, time in ordered]


def status_mb(key: str) -> float:
    """A line of this process's memory status (Linux), in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 2**10


def memory_of(name: str, rival: str, batch: int, points: int, device: str) -> float:
    """Megabytes that three steps add at their highest; call it in a fresh process only."""
    training_step(name, rival, 2, 64, device)()  # the libraries' own pages and buffers
    step = training_step(name, rival, batch, points, device)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = status_mb("VmRSS")
    for _ in range(3):
        step()
    return (
        status_mb("VmHWM") - before
        if device == "cpu"
        else torch.cuda.max_memory_allocated() / 2**20
    )


def memory_in_a_fresh_process(*arguments: object) -> float:
    """:func:`memory_of` in a process of its own."""
    command = [sys.executable, __file__, "--memory", *map(str, arguments)]
    command += ["--threads", str(torch.get_num_threads())]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def rows(
    names: list[str],
    batch: int = 8,
    points: int = 1024,
    repetitions: int = 7,
    device: str = "cpu",
    memory: bool = True,
) -> list[dict]:
    """One row for every network and rival, with the keys :data:`COLUMNS`."""
    table = []
    for name in names:
        steps = {r: training_step(name, r, batch, points, device) for r in RIVALS}
        times: dict[str, list[tuple[float, float]]] = {rival: [] for rival in RIVALS}
        for repetition in range(repetitions + 1):
            for rival, step in steps.items():
                wall, cpu = time.perf_counter(), time.process_time()
                step()
                taken = time.perf_counter() - wall, time.process_time() - cpu
                if repetition:  # the first warms up
                    times[rival].append(taken)
        for rival in RIVALS:
            walls, cpus = zip(*times[rival])
            first, median, third = statistics.quantiles(walls, n=4, method="inclusive")
            cpu_first, cpu, cpu_third = statistics.quantiles(cpus, n=4, method="inclusive")
            arguments = (name, rival, batch, points, device)
            peak = memory_in_a_fresh_process(*arguments) if memory else float("nan")
            cpu_values = (cpu, cpu_first, cpu_third)
            values = (name, rival, batch, points, median, first, third, *cpu_values, peak)
            table.append(dict(zip(COLUMNS, values)))
    return table


def markdown(table: list[dict]) -> str:
    """The rows as a table, with the factors by which ours is ahead."""
    lines = [
        "| network | batch x points | rival | seconds a step | quartiles | CPU s | memory MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table:
        lines.append(
            f"| {row['network']} | {row['batch']} x {row['points']} | {row['rival']} "
            f"| {row['seconds']:.3f} | {row['quartile_1']:.3f} to {row['quartile_3']:.3f} "
            f"| {row['cpu_seconds']:.3f} | {row['memory_mb']:.0f} |"
        )
    for ours, theirs in zip(table[::2], table[1::2]):
        factors = [theirs[key] / ours[key] for key in ("seconds", "cpu_seconds", "memory_mb")]
        lines.append(
            f"| **{ours['network']}** | | stock / ours | **{factors[0]:.2f}** | "
            f"| **{factors[1]:.2f}** | **{factors[2]:.2f}** |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="network")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        name, rival, batch, points, device = arguments.memory
        print(memory_of(name, rival, int(batch), int(points), device))
        return
    table = rows(
        arguments.networks,
        arguments.batch,
        arguments.points,
        arguments.repetitions,
        arguments.device,
        not arguments.no_memory,
    )
    print(markdown(table))
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(table)


if __name__ == "__main__":
    main()
