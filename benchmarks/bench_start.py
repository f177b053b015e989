"""Seconds from the start of a training job's process to its first finished step.

The child does what the training script does: imports, data, network, optimizer, one step.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

CASES = {
    "egnn": ("procedural", {"points": 128}, {}),
    "gotennet": ("molecules-generated", {"molecules": 500}, {"hidden": 32, "layers": 2}),
}


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


def measure(repetitions: int = 5) -> list[dict]:
    """Rows of ``case, low, median, high`` in seconds of wall time."""
    from equiscape.data import KINDS
    from equiscape.registry import lookup

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (kind, entry, _) in CASES.items():
            prepared = Path(folder) / f"{name}.h5"
            lookup(KINDS, kind, "kind").prepare({"kind": kind, **entry}, None, prepared)
            times = []
            for _ in range(repetitions + 1):
                command = [sys.executable, __file__, name, str(prepared), str(time.time())]
                run = subprocess.run(command, check=True, capture_output=True, text=True)
                times.append(float(run.stdout))
            low, median, high = statistics.quantiles(times[1:], n=4)  # the first fills disk caches
            rows.append({"case": f"{name}, muon", "low": low, "median": median, "high": high})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?")
    parser.add_argument("prepared", nargs="?", type=Path)
    parser.add_argument("started", nargs="?", type=float)
    arguments = parser.parse_args()
    if arguments.name:
        first_step(arguments.name, arguments.prepared, arguments.started)
    else:
        print(*measure(), sep="\n")
