"""What a job gains by keeping the memory that it has freed (``runtime.keep_freed_memory``).

One process with it and one without, taking turns; each repeats one piece of work and reports
processor time, the kernel's share of it, page faults and the largest resident set.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from timing import Row, quartiles, row, show

STEPS = ("pointnet", "dgcnn", "egnn")
WORKS = [f"training step, {name}, 8 x 1024" for name in STEPS]
WORKS += [f"Hessian product, {name}, kept" for name in STEPS]
QUANTITIES = ("CPU ms", "kernel CPU ms", "page faults", "memory MB")
RIVALS = {"ours": True, "memory given back": False}


def work_of(case: str, folder: Path) -> Callable[[], object]:
    """One execution of a piece of work."""
    import bench_landscape
    import bench_models

    kind, name, _ = case.split(", ")
    if kind == "training step":
        return bench_models.training_step(name, "ours", 8, 1024, "cpu")
    task, model = bench_landscape.trained(name, folder, "cpu")
    kept = bench_landscape.loss_of(task, model, 2**40)
    kept.value_and_gradient()
    vector = torch.randn(1, kept.size)
    return lambda: kept.operator(vector)


def child(case: str, keep: bool, repetitions: int) -> list[dict[str, float]]:
    """What each repetition took; call it in a fresh process only."""
    from equiscape.runtime import keep_freed_memory

    if keep:
        keep_freed_memory()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        work = work_of(case, Path(folder))
        for _ in range(2):
            work()
        for _ in range(repetitions):
            before = resource.getrusage(resource.RUSAGE_SELF)
            work()
            after = resource.getrusage(resource.RUSAGE_SELF)
            kernel = 1e3 * (after.ru_stime - before.ru_stime)
            values = (
                kernel + 1e3 * (after.ru_utime - before.ru_utime),
                kernel,
                after.ru_minflt - before.ru_minflt,
                after.ru_maxrss / 2**10,
            )
            found.append(dict(zip(QUANTITIES, values)))
    return found


def measure(rounds: int = 3, repetitions: int = 5) -> Iterator[Row]:
    """Rows of every work: processes with the setting (ours) and without, taking turns."""
    for case in WORKS:
        found: dict[str, list[dict]] = {rival: [] for rival in RIVALS}
        for _ in range(rounds):
            for rival, keep in RIVALS.items():
                command = [sys.executable, __file__, "--child", case, str(int(keep))]
                command += ["--repetitions", str(repetitions)]
                command += ["--threads", str(torch.get_num_threads())]
                run = subprocess.run(command, check=True, capture_output=True, text=True)
                found[rival] += json.loads(run.stdout)
        for quantity in QUANTITIES:
            for rival, values in found.items():
                numbers = quartiles([value[quantity] for value in values])
                yield row(f"memory kept, {case}", rival, quantity, *numbers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        case, keep = arguments.child
        print(json.dumps(child(case, keep == "1", arguments.repetitions)))
    else:
        show(measure(repetitions=arguments.repetitions))
