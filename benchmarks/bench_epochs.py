"""Samples a second over whole training epochs, where there is a CUDA device.

Ours: the training loop of the study in each of its arithmetics, data resident on the device. The
rival: the same network from stock torch-geometric layers with the same weights, fed by a
``DataLoader`` from pinned host memory and trained by ``torch.optim.AdamW``, the loss read at every
step, as scripts commonly do. No augmentation on either side. Rivals take turns.

    python benchmarks/bench_epochs.py --device cuda
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from bench_models import NETWORKS
from rivals import stock
from timing import Row, rate_rows, seconds, show
from torch.utils.data import DataLoader, TensorDataset

from equiscape.data import procedural
from equiscape.task import Task, load_task
from equiscape.training.loop import Trainer
from equiscape.training.precision import autocast, matrix_products
from equiscape.training.settings import Settings

POINTS, BATCH = 1024, 32
OURS = {
    "ours": {},
    "ours, tf32": {"precision": "tf32"},
    "ours, bf16": {"precision": "bf16"},
    "ours, compiled": {"compile": True},
}


def prepared_task(name: str, folder: Path, clouds: int, device: torch.device) -> Task:
    """The network ``name`` on so many generated training clouds."""
    entry = {"kind": "procedural", "points": POINTS, "test_per_class": 4, "noise": 0.02}
    entry["train_per_class"] = -(-clouds * 5 // (4 * 12))  # a fifth is held out
    path = folder / f"{clouds}.h5"
    if not path.exists():
        procedural.prepare(entry, None, path)
    settings = {"architecture": name, "model": NETWORKS[name], "training": {"batch_size": BATCH}}
    return load_task(name, settings, "shapes", entry, path, device)


def our_epoch(task: Task, changes: dict) -> Callable[[], int]:
    """A function that trains an epoch of our loop and returns its number of samples."""
    settings = Settings.read(
        {"epochs": 1000, "evaluate_every": 1000, "batch_size": BATCH, **changes}
    )
    trainer = Trainer(task, {"class": "adamw"}, 1e-3, 1e-4, 0, settings)

    def epoch() -> int:
        before = trainer.samples
        trainer.run_epoch()
        return trainer.samples - before

    return epoch


def stock_epoch(task: Task, precision: str) -> Callable[[], int]:
    """The same of stock layers, loader and optimizer."""
    device, model = task.device, stock(task.build(0)).train()
    everything = task.batch("train", torch.arange(task.dataset.size("train")))
    host = TensorDataset(everything.inputs[0].cpu(), everything.target.cpu())
    loader = DataLoader(host, BATCH, shuffle=True, pin_memory=device.type == "cuda")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4)

    def epoch() -> int:
        total = 0.0
        with matrix_products(precision, device):
            for points, labels in loader:
                points, labels = points.to(device), labels.to(device)
                optimizer.zero_grad()
                with autocast(precision, device):
                    loss = task.dataset.objective.loss(model(points), labels)
                loss.backward()
                optimizer.step()
                total += loss.item()
        return len(host)

    return epoch


def measure(repetitions: int = 5, device: str = "cuda", clouds: int = 2048) -> Iterator[Row]:
    """Rows of every network and form: samples a second of wall and CPU time."""
    where = torch.device(device)
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            task = prepared_task(name, Path(folder), clouds, where)
            forms = OURS if where.type == "cuda" else {"ours": {}}
            epochs = {rival: our_epoch(task, changes) for rival, changes in forms.items()}
            for precision in ("float32", "tf32", "bf16") if where.type == "cuda" else ("float32",):
                epochs[f"stock, {precision}"] = stock_epoch(task, precision)
            rates: dict[str, list[tuple[float, float]]] = {rival: [] for rival in epochs}
            for repetition in range(repetitions + 1):
                for rival, epoch in epochs.items():
                    samples = 0

                    def work(epoch=epoch) -> None:
                        nonlocal samples
                        samples = epoch()

                    wall, cpu = seconds(work, device)
                    if repetition:  # the first warms up, and compiles
                        rates[rival].append((samples / wall, samples / cpu))
            yield from rate_rows(f"training, {name}, {BATCH} x {POINTS}", rates, "clouds")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--clouds", type=int, default=2048)
    arguments = parser.parse_args()
    show(measure(arguments.repetitions, arguments.device, arguments.clouds))
