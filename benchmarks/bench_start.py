"""Seconds from the start of a training job's process to its first finished step; of a dry run.

The child does what the training script does: imports, data, network, optimizer, one step. The dry
run is of the paper's study, ``config.yaml``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from timing import OURS, Row, show, timed_rows

CASES = {
    "egnn": ("procedural", {"points": 128}, {}),
    "gotennet": ("molecules-generated", {"molecules": 500}, {"hidden": 32, "layers": 2}),
}


ROOT = Path(__file__).resolve().parents[1]


class FirstStep(Exception):
    """The step is done."""


def first_step(name: str, prepared: Path, started: float) -> None:
    """Train one step and print the seconds since ``started`` (``time.time``)."""
    import torch

    from equiscape.task import load_task
    from equiscape.training.loop import Trainer
    from equiscape.training.settings import Settings

    kind, entry, model = CASES[name]
    entry = {"kind": kind, **entry}
    training = {"epochs": 1, "batch_size": 8}
    settings = {"architecture": name, "model": model, "training": training}
    if kind == "molecules-generated":
        settings["target"] = "energy"
    task = load_task(name, settings, "data", entry, prepared, torch.device("cpu"))
    trainer = Trainer(task, {"class": "muon"}, 1e-3, 0, 0, Settings.read(training))

    def after_step() -> None:
        print(time.time() - started)
        raise FirstStep

    with suppress(FirstStep):
        trainer.run_epoch(after_step)


def children(command: list[str], repetitions: int) -> list[tuple[float, float]]:
    """Wall and CPU seconds of a command in every repetition; one before them fills disk caches.

    A command that prints a number last ended its work after so many wall seconds.
    """
    found = []
    for _ in range(repetitions + 1):
        start, before = time.time(), os.times()
        arguments = [str(start) if word == "{now}" else word for word in command]
        run = subprocess.run(arguments, check=True, capture_output=True, text=True, cwd=ROOT)
        wall, after = time.time() - start, os.times()
        with suppress(ValueError, IndexError):
            wall = float(run.stdout.split()[-1])
        cpu = after.children_user - before.children_user
        found.append((wall, cpu + after.children_system - before.children_system))
    return found[1:]


def measure(repetitions: int = 5) -> Iterator[Row]:
    """Rows of every case: wall seconds, and CPU seconds of the whole process."""
    from equiscape.data import KINDS
    from equiscape.registry import lookup

    with tempfile.TemporaryDirectory() as folder:
        for name, (kind, entry, _) in CASES.items():
            prepared = Path(folder) / f"{name}.h5"
            lookup(KINDS, kind, "kind").prepare({"kind": kind, **entry}, None, prepared)
            command = [sys.executable, __file__, name, str(prepared), "{now}"]
            found = children(command, repetitions)
            yield from timed_rows(f"first step, {name}, muon", {OURS: found}, "s")
        command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules"]
        command += ["--cores", "1", "--directory", folder]
        found = children(command, repetitions)
        yield from timed_rows("dry run, config.yaml", {OURS: found}, "s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?")
    parser.add_argument("prepared", nargs="?", type=Path)
    parser.add_argument("started", nargs="?", type=float)
    arguments = parser.parse_args()
    if arguments.name:
        first_step(arguments.name, arguments.prepared, arguments.started)
    else:
        show(measure())
