"""Seconds and memory of a training step: our networks against stock torch-geometric layers.

Both have the same weights and see the same clouds; a step is forward, cross entropy and backward.
Rivals take turns in one process for the times; memory is measured in a process of its own for each,
as what a few steps add to the resident set at its highest (CPU) or allocate (CUDA).
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rivals import stock
from timing import Row, row, show, take_turns, timed_rows

from equiscape.models import build

NETWORKS = {"pointnet": {"dropout": 0.0}, "egnn": {"k": 20}, "dgcnn": {"dropout": 0.0}}
RIVALS = ("ours", "stock")


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


def case_of(name: str, batch: int, points: int) -> str:
    return f"training step, {name}, {batch} x {points}"


def measure(
    names: list[str],
    batch: int = 8,
    points: int = 1024,
    repetitions: int = 7,
    device: str = "cpu",
    memory: bool = True,
) -> Iterator[Row]:
    """Rows of every network and rival: wall and CPU seconds, and megabytes."""
    for name in names:
        case = case_of(name, batch, points)
        steps = {r: training_step(name, r, batch, points, device) for r in RIVALS}
        rivals = {r: lambda _, step=step: step() for r, step in steps.items()}
        yield from timed_rows(case, take_turns(rivals, repetitions, device), "s")
        for rival in RIVALS if memory else ():
            peak = memory_in_a_fresh_process(name, rival, batch, points, device)
            yield row(case, rival, "memory MB", peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="network")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        name, rival, batch, points, device = arguments.memory
        print(memory_of(name, rival, int(batch), int(points), device))
        return
    show(
        measure(
            arguments.networks,
            arguments.batch,
            arguments.points,
            arguments.repetitions,
            arguments.device,
            not arguments.no_memory,
        )
    )


if __name__ == "__main__":
    main()
