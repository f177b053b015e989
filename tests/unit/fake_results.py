"""A small study's products without the study: what tables, figures and notebooks read.

The numbers are drawn from a seed and look like results; only their form is that of the pipeline.
An analysis adds a module ``made_up/NAME.py`` with ``write(product, manifest, gain, rng)``; one of a
whole study takes no gain and rng. Run as a script to get a folder to look at:
``python tests/unit/fake_results.py FOLDER [paper]``.
"""

import sys
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from fake_envelope import PROVENANCE, envelope

from equiscape.analyses import ANALYSES
from equiscape.analyses.result import write
from equiscape.configuration.kinds import kind_of
from equiscape.io import write_csv, write_json, write_npz
from equiscape.report.manifest import Manifest

REFERENCE = Path(__file__).resolve().parents[2] / "workflow" / "reference"
CLASSES = {"adam": "adamw", "muon": "muon", "sgd": "sgd"}


def task(architecture: str, dataset: str, kind: str, target=None, corruptions=None) -> dict:
    """A task as the manifest has it."""
    says = kind_of(kind, "")
    return {"architecture": architecture, "dataset": dataset, "kind": kind,
            "samples": says.samples, "learns": says.learns, "generated": says.embedded,
            "target": target, "corruptions": corruptions}  # fmt: skip


CLOUDS = {
    name: task(name, "shapes", "procedural", corruptions="generated")
    for name in ("egnn", "pointnet", "dgcnn")
}
MOLECULES = {
    f"gotennet-{target}": task("gotennet", "qm9", "qm9", target) for target in ("mu", "alpha", "r2")
} | {"gine-peptides-func": task("gine", "peptides-func", "peptides-func")}
TARGETS = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u298", "h298", "g298", "cv")
PAPER = (
    CLOUDS
    | {f"gotennet-{target}": task("gotennet", "qm9", "qm9", target) for target in TARGETS}
    | {f"gine-{name}": task("gine", name, name) for name in ("zinc", "peptides-func")}
)
SHAPES = [f"class {number}" for number in range(1, 41)]
UNITS = {"mu": "D", "alpha": "a0^3", "r2": "a0^2"}
LAYERS = {
    "egnn": [f"layers.{i}.{part}" for i in range(4) for part in ("edge.0", "edge.2", "node.0")],
    "pointnet": [f"point.{i}" for i in range(5)] + ["head.0", "head.1", "head.2"],
}
SUFFIXES = {
    "slice": ".h5",
    "rank": ".csv",
    "robustness": ".csv",
}
OVER = {"robustness": "final"}
MADE_UP = {
    path.stem.replace("_", "-"): import_module(f"made_up.{path.stem}")
    for path in sorted(Path(__file__).with_name("made_up").glob("*.py"))
}
"""Analyses whose made-up results are a module ``made_up/NAME.py`` with ``write(...)``."""
for _name in MADE_UP:
    if ANALYSES[_name].over != "study":
        SUFFIXES[_name], OVER[_name] = ANALYSES[_name].suffix, ANALYSES[_name].over
STUDY_WRITERS = {n: module.write for n, module in MADE_UP.items() if n not in SUFFIXES}
CORRUPTIONS = ("uniform", "gaussian", "background", "impulse", "upsampling", "rotation", "shear",
               "distortion", "distortion_rbf", "distortion_rbf_inv", "cutout", "density",
               "density_inc")  # fmt: skip


def write_study(
    root: Path,
    tasks: dict | None = None,
    optimizers: tuple[str, ...] = ("adam", "muon"),
    seeds: int = 3,
    diverged: tuple[tuple[str, str, int], ...] = (),
    epochs: int = 12,
    without: tuple[str, ...] = (),
    every_seed: bool = False,
    entries: dict[str, dict] | None = None,
) -> Manifest:
    """Write every product of a study into ``root`` and its manifest into ``root/report.json``.

    ``diverged`` lists the (task, optimizer, seed) whose final cell diverged, ``without`` the
    analyses that the study does not list; ``every_seed`` measures checkpoints at every final seed;
    ``entries`` gives optimizers a class, settings or training of their own.
    """
    manifest = Manifest(
        results=root,
        tasks=dict(CLOUDS if tasks is None else tasks),
        optimizers={
            name: {"class": CLASSES.get(name.split("-")[0], name), **(entries or {}).get(name, {})}
            for name in optimizers
        },
        seeds=list(range(seeds)),
        analyses={},
        baseline=optimizers[0],
        reference=REFERENCE,
    )
    for name, suffix in SUFFIXES.items():
        names = manifest.robust_tasks if name == "robustness" else list(manifest.tasks)
        if names and name not in without:
            over = OVER.get(name, "representative")
            chosen = "all" if every_seed and over in ("representative", "snapshots") else None
            manifest.analyses[name] = {
                "over": over, "suffix": suffix, "tasks": names, "seeds": chosen,
            }  # fmt: skip
    for index, (task, optimizer) in enumerate(manifest.pairs):
        rng = np.random.default_rng(index)
        gain = list(optimizers).index(optimizer)
        for seed in manifest.seeds:
            _final(manifest, task, optimizer, seed, gain, (task, optimizer, seed) in diverged, rng,
                   epochs)  # fmt: skip
        _selection(manifest, task, optimizer, gain, rng)
    for index, (task, optimizer) in enumerate(manifest.pairs):
        for name, writer in WRITERS.items():
            measured = manifest.analysis(name)
            if every_seed and name != "robustness":
                measured = [*measured, *manifest.representatives(name)]
            for found in measured:
                if (found.task, found.optimizer) == (task, optimizer):
                    seed = manifest.seeds[0] if found.seed is None else found.seed
                    rng = np.random.default_rng(1000 + index + 7919 * seed)
                    writer(found, manifest, list(optimizers).index(optimizer), rng)
    for name, module in MADE_UP.items():
        for found in manifest.analysis(name) if OVER.get(name) == "pair" else []:
            module.write(found, manifest)
    for name, writer in STUDY_WRITERS.items():
        if name not in without:
            manifest.analyses[name] = {
                "over": "study",
                "suffix": ".csv",
                "tasks": list(manifest.tasks),
            }
            writer(manifest.analysis(name)[0], manifest)
    manifest.write(root / "report.json")
    return manifest


def product(manifest: Manifest, analysis: str, task: str, optimizer: str) -> Path:
    """The file of an analysis of one task and optimizer."""
    return next(
        found.path
        for found in manifest.analysis(analysis)
        if (found.task, found.optimizer) == (task, optimizer)
    )


def metric_of(entry: dict) -> dict:
    """The metric block of a task's ``metrics.json``."""
    if entry["learns"] == "labels":
        return {"name": "AP", "direction": "max", "unit": ""}
    if entry["samples"] in ("molecules", "graphs"):
        return {"name": "MAE", "direction": "min", "unit": UNITS.get(entry["target"], "")}
    return {"name": "accuracy", "direction": "max", "unit": "%"}


def _final(manifest, task, optimizer, seed, gain, diverged, rng, epochs) -> None:
    metric = metric_of(manifest.tasks[task])
    progress = 1 - np.exp(-np.arange(1, epochs + 1) / 4) * (1 - 0.1 * gain)
    noise = rng.normal(0, 0.01, epochs)
    if metric["name"] == "accuracy":
        score = 100 * np.clip(progress * (0.7 + 0.04 * gain) + noise, 0, 1)
    elif metric["name"] == "AP":
        score = progress * 0.6 + noise / 2
    else:
        score = 0.05 * (1.5 - progress - 0.05 * gain) + noise / 40
    loss = 3.0 - 2.2 * progress - 0.1 * gain + np.abs(noise)
    rows = epochs // 2 if diverged else epochs
    history = pd.DataFrame(
        {
            "epoch": np.arange(1, epochs + 1),
            "lr": 1e-3 * (1 + np.cos(np.pi * np.arange(epochs) / epochs)) / 2,
            "train_loss": loss - 0.2 * progress,
            "validation_loss": loss,
            "validation_score": score,
            "test_loss": loss + 0.05,
            "test_score": score * 0.98,
            "seconds": 1.5 * (1 + 0.2 * gain),
        }
    ).head(rows)
    write_csv(manifest.final(task, optimizer, seed, "history.csv"), history)
    best = score.argmax() if metric["direction"] == "max" else score.argmin()

    confusion = np.eye(len(SHAPES), dtype=int) * (30 + 4 * gain) + rng.integers(0, 3, (40, 40))
    classes = {"confusion": confusion} if metric["name"] == "accuracy" and not diverged else {}
    write_npz(manifest.final(task, optimizer, seed, "predictions.npz"),
              {"target": np.arange(3), **classes})  # fmt: skip

    def at(epoch: int) -> dict:
        return {
            "epoch": int(epoch) + 1,
            "validation": {"loss": loss[epoch], "score": score[epoch]},
            "test": {"loss": loss[epoch] + 0.05, "score": score[epoch] * 0.98},
        }

    write_json(
        manifest.final(task, optimizer, seed),
        metrics_of(
            task, optimizer, seed, metric=metric, epochs=rows, steps=10 * rows,
            seconds=1.5 * rows * (1 + 0.2 * gain) + 0.01 * seed,
            **({"diverged_at": {"epoch": rows, "step": 100}} if diverged else {
                "status": "finished", "diverged_at": None,
                "at": {"best_validation": at(best), "last": at(epochs - 1), "best_test": at(best)},
            }),
            **({} if diverged or metric["name"] != "accuracy" else {"test": {
                "metrics": {"accuracy": score[best] * 0.98, "mean class accuracy": score[best] - 5},
                "classes": dict(zip(SHAPES, np.diag(confusion) / confusion.sum(1) * 100)),
            }}),
        ),
    )  # fmt: skip


def metrics_of(task: str, optimizer: str, seed: int, **more) -> dict:
    """``metrics.json`` of a cell that diverged in its first epoch, but for ``more``."""
    return {
        "task": task, "optimizer": optimizer, "lr": "1e-3", "wd": "1e-2", "seed": seed,
        "status": "diverged", "diverged_at": {"epoch": 1, "step": 1},
        "metric": {"name": "accuracy", "direction": "max", "unit": "%"},
        "at": dict.fromkeys(("best_validation", "last", "best_test")),
        "epochs": 0, "steps": 1, "parameters": 12345, "samples_per_second": 100.0,
        "seconds": 1.0, "peak_memory_mb": 250.0, "split_of_parameters": {},
        "provenance": PROVENANCE, **more,
    }  # fmt: skip


def write_representative(manifest: Manifest, task: str, optimizer: str, seed: int | None) -> None:
    """The representative, and its choice alone; of no seed where every cell diverged."""
    status = "diverged" if seed is None else "finished"
    path = None if seed is None else str(manifest.final(task, optimizer, seed, "checkpoint.pt"))
    own = {"task": task, "optimizer": optimizer, "seed": seed, "checkpoint": path}
    write_json(
        manifest.representative(task, optimizer),
        {**own, "status": status, "metric": metric_of(manifest.tasks[task]), "mean": 50.0,
         "at": "best_validation", "std": 1.0, "tied": [], "provenance": PROVENANCE,
         "scores": [{"seed": s, "score": 50.0, "status": status} for s in manifest.seeds]},
    )  # fmt: skip


def _selection(manifest, task, optimizer, gain, rng) -> None:
    sign = 1 if metric_of(manifest.tasks[task])["direction"] == "max" else -1
    cells = [
        {
            "lr": lr, "wd": wd, "seed": 0,
            "status": "diverged" if lr == "1e-2" and gain == 0 else "finished",
            "validation_score": None if lr == "1e-2" and gain == 0
            else 60 - 4 * sign * (np.log10(float(lr)) + 3) ** 2 + gain + rng.normal(0, 0.5),
            "validation_loss": 1.0, "test_score": 50.0, "epoch": 3, "path": "grid/...",
        }
        for lr in ("1e-4", "1e-3", "1e-2") for wd in ("0", "1e-2")
    ]  # fmt: skip
    choice = {
        "task": task, "optimizer": optimizer, "lr": "1e-3", "wd": "1e-2", "grid": cells,
        "status": "finished", "metric": metric_of(manifest.tasks[task]),
        "edges": {"lr": None, "wd": {"end": "high", "add": ["1e-1"]}},
        "rule": "the best mean", "score": 60.0, "provenance": PROVENANCE,
    }  # fmt: skip
    write_json(manifest.selection(task, optimizer), choice)


def _slice(product, manifest, gain, rng) -> None:
    axis = np.linspace(-1, 1, 21)
    x, y = np.meshgrid(axis, axis)
    loss = 0.1 + 3 * x**2 + (2 - 0.3 * gain) * y**2 + 0.5 * x * y
    loss += (0.3 - 0.1 * gain) * np.sin(9 * x) * np.sin(7 * y)
    path = product.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["axis_x"], file["axis_y"], file["loss"] = axis, axis, loss
        file["band_loss"] = 0.1 + np.linspace(2, 4 - gain, 6)[:, None] * axis**2
        file.attrs.update(
            task=product.task, optimizer=product.optimizer, cosine=0.003, split="train",
            samples=512,
            center_loss=loss[10, 10], chance_loss=2.48, range=1.0,
            checkpoint_loss=loss[10, 10], seed=1,
        )  # fmt: skip


def _rank(product, manifest, gain, rng) -> None:
    task, optimizer = product.task, product.optimizer
    layers = LAYERS.get(task, [f"blocks.{i}.a_rather_long_name.linear{i % 2}" for i in range(10)])
    rows = []
    for kind in ("weight", "representation"):
        for i, layer in enumerate(layers):
            base = 4 + 2.5 * i if kind == "weight" else 3 + i
            scale = max(0.1, 1 + gain * (0.8 - 0.09 * i))
            size = (64, 64) if kind == "weight" else (512, 64)
            if i == 0 and kind == "weight" and task == "egnn":
                rows.append((task, optimizer, "coordinate", kind, 1, 64, 1.0, 1.0))
            rows.append((task, optimizer, layer, kind, *size, base * scale, 2.5 * base * scale))
    columns = ["task", "optimizer", "layer", "kind", "rows", "columns"]
    frame = pd.DataFrame(rows, columns=[*columns, "stable_rank", "effective_rank"])
    write_csv(product.path, frame)


def _robustness(product, manifest, gain, rng) -> None:
    task, optimizer = product.task, product.optimizer
    rows = [
        (task, optimizer, seed, corruption, severity,
         68 + 3 * gain - (1 + i % 5) * severity + rng.normal(0, 1))
        for seed in manifest.seeds
        for i, corruption in enumerate(CORRUPTIONS)
        for severity in range(1, 6)
    ]  # fmt: skip
    columns = ["task", "optimizer", "seed", "corruption", "severity", "accuracy"]
    write_csv(product.path, pd.DataFrame(rows, columns=columns))


WRITERS = {
    "slice": _slice,
    "rank": _rank,
    "robustness": _robustness,
    **{
        name: module.write
        for name, module in MADE_UP.items()
        if name in SUFFIXES and OVER[name] != "pair"
    },
}


def diverge(product, analysis: str) -> None:
    """Leave a made-up product as the writer of analyses does where every cell diverged."""
    write(product.path, None, envelope(product, analysis, status="diverged"))


if __name__ == "__main__":
    chosen = {"demo": CLOUDS, "paper": PAPER}[sys.argv[2] if len(sys.argv) > 2 else "demo"]
    write_study(Path(sys.argv[1]), chosen, seeds=4)
