"""Evaluate every final cell of a task and an optimizer on corrupted test clouds."""

from pathlib import Path
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.runtime import job, resolve_device
from equiscape.task import load_task
from equiscape.training.robustness import measure_robustness

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    data: str,
    task: dict,
    optimizer: str,
    metrics: list[str],
    checkpoints: list[str],
    corrupted: str,
    device: str,
    output: str,
) -> None:
    """Restore the final cells that did not diverge and write their accuracies as a tidy CSV."""
    loaded = load_task(prepared=data, device=resolve_device(device), **task)
    cells = [io.read_json(path) for path in metrics]
    models = {
        cell["seed"]: loaded.restore(checkpoint)
        for cell, checkpoint in zip(cells, checkpoints)
        if cell["status"] == "finished"
    }
    frame = measure_robustness(loaded, models, Path(corrupted))
    frame.insert(0, "task", loaded.name)
    frame.insert(1, "optimizer", optimizer)
    io.write_csv(output, frame)


if __name__ == "__main__":
    with job(snakemake):
        main(
            data=snakemake.input.data,
            task=snakemake.params.task,
            optimizer=snakemake.wildcards.optimizer,
            metrics=list(snakemake.input.metrics),
            checkpoints=list(snakemake.input.checkpoints),
            corrupted=snakemake.input.corrupted,
            device=snakemake.resources.device,
            output=snakemake.output[0],
        )
