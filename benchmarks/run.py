"""Every comparison with a rival, side by side: writes results.csv, parts.csv and results.md.

    python benchmarks/run.py [--threads 1 --clock CPU] [--device cuda] [--quick] [part ...]

The named parts (all, by default) are measured; their rows take the place of those that results.csv
had, and the other parts keep theirs. Rivals take turns within one process. ``factor`` is how many
times less of the unit ours needs than the rival (more, for a throughput). On a machine that others
use too, judge by the CPU clock at one thread.
"""

import argparse
import csv
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import bench_bounds
import bench_eigenvalue
import bench_epochs
import bench_landscape
import bench_memory
import bench_models
import bench_molecules
import bench_optim
import bench_resume
import bench_slices
import bench_start
import page
import torch
from timing import CLOCKS, NUMBERS, Row

from equiscape.runtime import keep_freed_memory

HERE = Path(__file__).parent
GIVEN_BACK = ("models", "models-32")
"""Parts in a process that gives freed memory back; they run first."""
Part = Callable[[argparse.Namespace], Iterable[Row]]


def models(given: argparse.Namespace) -> Iterable[Row]:
    """A training step against stock torch-geometric layers, as a script runs them, and memory."""
    names = list(bench_models.NETWORKS)
    return bench_models.measure(names, 8, 1024, 3 if given.quick else 7, given.device)


def models_kept(given: argparse.Namespace) -> Iterable[Row]:
    """The same in a process that keeps the memory it freed, which stock layers gain most from."""
    names, repetitions = list(bench_models.NETWORKS), 3 if given.quick else 7
    for row in bench_models.measure(names, 8, 1024, repetitions, given.device, memory=False):
        yield {**row, "case": f"{row['case']}, memory kept"}


def models_32(given: argparse.Namespace) -> Iterable[Row]:
    """The same with 32 clouds a batch."""
    return bench_models.measure(list(bench_models.NETWORKS), 32, 1024, 3, given.device)


def optim(given: argparse.Namespace) -> Iterable[Row]:
    """An optimizer step against torch.optim, and Muon in float32 against its published form."""
    names = tuple(bench_optim.NETWORKS)
    return bench_optim.measure(names, 7 if given.quick else 15, given.device)


def products(given: argparse.Namespace) -> Iterable[Row]:
    """Hessian products against a gradient, PyHessian's form on stock layers, and rebuilt graphs."""
    return _landscape(given, "products")


def blocks(given: argparse.Namespace) -> Iterable[Row]:
    """Several Hessian products one by one, against one backward pass (`is_grads_batched`)."""
    return _landscape(given, "blocks")


def trace(given: argparse.Namespace) -> Iterable[Row]:
    """The trace to 2 %, against plain Hutchinson."""
    return _landscape(given, "trace")


def _landscape(given: argparse.Namespace, topic: str) -> Iterable[Row]:
    names, repetitions = tuple(bench_landscape.NETWORKS), 3 if given.quick else 5
    return bench_landscape.measure(names, repetitions, given.device, (topic,))


def eigenvalue(given: argparse.Namespace) -> Iterable[Row]:
    """The eigenvalue of largest magnitude to 1 %: Lanczos against power iteration."""
    return bench_eigenvalue.measure(repetitions=7 if given.quick else 15)


def slices(given: argparse.Namespace) -> Iterable[Row]:
    """A grid point of a loss slice, against plain loops over our network and stock layers."""
    return bench_slices.measure(repetitions=3 if given.quick else 5, device=given.device)


def molecules(given: argparse.Namespace) -> Iterable[Row]:
    """Molecules a second in training, against the released form and PyG's DataLoader."""
    return bench_molecules.measure(3 if given.quick else 7)


def epochs(given: argparse.Namespace) -> Iterable[Row]:
    """Whole epochs on CUDA, in each arithmetic, against stock layers fed by a DataLoader."""
    if not given.device.startswith("cuda"):
        return []
    return bench_epochs.measure(2 if given.quick else 5, given.device)


def memory(given: argparse.Namespace) -> Iterable[Row]:
    """Processes that keep the memory they freed, against processes that give it back."""
    return bench_memory.measure(1 if given.quick else 3)


def overheads(given: argparse.Namespace) -> Iterable[Row]:
    """Process start to first step; a dry run of the paper's study; what a resume point costs."""
    yield from bench_start.measure(3 if given.quick else 5)
    with tempfile.TemporaryDirectory() as folder:
        yield from bench_resume.measure(folder)


def bounds_steps(given: argparse.Namespace) -> Iterable[Row]:
    """How near training steps come to what this machine's matrix products allow."""
    return bench_bounds.measure("steps", given.device, given.clock)


def bounds_products(given: argparse.Namespace) -> Iterable[Row]:
    """The same of Hessian products."""
    return bench_bounds.measure("products", given.device, given.clock)


def bounds_slices(given: argparse.Namespace) -> Iterable[Row]:
    """The same of a point of a slice."""
    return bench_bounds.measure("points", given.device, given.clock)


PARTS: dict[str, Part] = {
    "models": models,
    "models-32": models_32,
    "models-kept": models_kept,
    "optim": optim,
    "products": products,
    "blocks": blocks,
    "trace": trace,
    "eigenvalue": eigenvalue,
    "slices": slices,
    "molecules": molecules,
    "epochs": epochs,
    "memory": memory,
    "overheads": overheads,
    "bounds-steps": bounds_steps,
    "bounds-products": bounds_products,
    "bounds-slices": bounds_slices,
}


def conditions(given: argparse.Namespace) -> dict[str, str]:
    """When, with which code and on what a part is measured; without the machine's name."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(HERE), *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "*.py", "../workflow/scripts")
    cuda = given.device.startswith("cuda")
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": git("rev-parse", "--short", "HEAD") + (" with changes" if changed else ""),
        "threads": str(torch.get_num_threads()),
        "clock": given.clock,
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "torch": torch.__version__.split("+")[0],
        "repetitions": "few" if given.quick else "all",
    }


def merged(path: Path, part: str, rows: Iterable[dict], columns: tuple[str, ...]) -> list[dict]:
    """Put ``rows`` in the place of the part's in a CSV file, and write it; the parts' order stays.

    Returns:
        All rows.
    """
    kept: list[dict] = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["part"] != part]
    kept += [{"part": part, **row} for row in rows]
    kept.sort(key=lambda row: list(PARTS).index(row["part"]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    return kept


def shown(row: Row) -> Row:
    """A row with its numbers as the file has them."""
    return {key: f"{value:.6g}" if key in NUMBERS else value for key, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], choices=[*PARTS, []], metavar="part")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what targets go by")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--page", action="store_true", help="only results.md, from the files")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # of child processes
    wanted = () if given.page else [part for part in PARTS if part in (given.parts or PARTS)]
    for part in sorted(wanted, key=lambda part: part not in GIVEN_BACK):
        if part not in GIVEN_BACK:
            keep_freed_memory()  # as every job of a study does
        print(f"{part} ...", flush=True)
        rows = [shown(row) for row in PARTS[part](given)]
        if rows:
            merged(HERE / "results.csv", part, rows, page.COLUMNS)
            merged(HERE / "parts.csv", part, [conditions(given)], page.CONDITIONS)
    titles = {name: part.__doc__ or "" for name, part in PARTS.items()}
    (HERE / "results.md").write_text(page.report(HERE, titles))
    print(HERE / "results.md")


if __name__ == "__main__":
    main()
