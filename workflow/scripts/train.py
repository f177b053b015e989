"""Train one cell: a (task, optimizer, lr, wd, seed) of the grid, or a final one."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.runtime import conclude, job, resolve_device
from equiscape.task import load_task
from equiscape.training.cell import diverged_cell, train_cell
from equiscape.training.summary import summary

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    data: str,
    task: dict,
    optimizer_name: str,
    optimizer: dict,
    lr: str | None,
    wd: str | None,
    seed: int,
    protocol: int,
    device: str,
    resume: str,
    execution: dict,
    metrics: str,
    history: str,
    checkpoint: str | None,
    predictions: str | None,
    snapshots: list[str],
    ranks: list[str],
    started: float,
) -> None:
    """Train the cell and write its metrics and history; its weights and snapshots if asked for.

    ``snapshots`` are paths that end in ``epoch<number>.pt``: which there are is part of no setting.

    ``ranks`` are tables of the analysis ``rank``, whose names end in the optimizer's: constraints
    that say ``ranks_of`` get theirs.

    ``execution`` (``resume_seconds``, ``micro_batch``) changes nothing in the result, so it stands
    apart from what the cell's resume points are keyed by.
    """
    where = resolve_device(device)
    loaded = load_task(prepared=data, device=where, **task)
    settings = {
        "task": task,
        "optimizer": {"name": optimizer_name, **optimizer},
        "lr": lr,
        "wd": wd,
        "seed": seed,
        "data": io.sha256(data),
        "protocol": protocol,
    }
    training = dict(task["entry"]["training"])
    if ranks:
        settings["ranks"] = {Path(path).stem.rpartition("_")[2]: io.sha256(path) for path in ranks}
        training["constraints"] = with_ranks(training["constraints"], ranks)
    epochs = {int(Path(path).stem.removeprefix("epoch")): path for path in snapshots}
    training |= {**execution, "snapshots": sorted(epochs)}
    if lr is None:  # every cell of the grid diverged
        result = diverged_cell(loaded, settings["optimizer"], seed, training)
    else:
        result = train_cell(
            loaded,
            settings["optimizer"],
            lr,
            wd,
            seed,
            training,
            Path(resume) / io.settings_hash(settings),
            keep_weights=checkpoint is not None,
        )
    seconds = time.monotonic() - started
    provenance = io.provenance(settings, where, seconds)
    result.write(metrics, history, provenance, checkpoint, predictions, epochs)
    result.discard_resume()
    conclude(summary([result.metrics]))


def with_ranks(constraints: list, tables: list[str]) -> list:
    """``constraints``, those that say ``ranks_of`` with the stable ranks of weights by layer."""
    import pandas as pd

    ranks = {}
    for path in tables:
        table = pd.read_csv(path)
        weights = table[table["kind"] == "weight"]
        ranks[Path(path).stem.rpartition("_")[2]] = dict(
            zip(weights["layer"], weights["stable_rank"].astype(float))
        )
    return [
        {**entry, "ranks": ranks[entry["ranks_of"]]}
        if isinstance(entry, dict) and entry.get("ranks_of")
        else entry
        for entry in constraints
    ]


if __name__ == "__main__":
    with job(snakemake) as start:
        choice = snakemake.input.get("choice")
        chosen = io.read_json(choice, "choice") if choice else snakemake.params
        main(
            data=snakemake.input.data,
            task=snakemake.params.task,
            optimizer_name=snakemake.wildcards.optimizer,
            optimizer=snakemake.params.optimizer,
            lr=chosen["lr"],
            wd=chosen["wd"],
            seed=int(snakemake.params.seed),
            protocol=snakemake.params.protocol,
            device=snakemake.resources.device,
            resume=snakemake.resources.resume,
            execution={
                "resume_seconds": float(snakemake.resources.resume_seconds),
                "micro_batch": snakemake.resources.micro_batch or None,
            },
            metrics=snakemake.output.metrics,
            history=snakemake.output.history,
            checkpoint=snakemake.output.get("checkpoint"),
            predictions=snakemake.output.get("predictions"),
            snapshots=list(snakemake.output.get("snapshots", [])),
            ranks=list(snakemake.input.get("ranks", [])),
            started=start,
        )
