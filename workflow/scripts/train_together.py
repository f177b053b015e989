"""Train all cells of a task and an optimizer in one process, those of one (lr, wd) in lockstep."""

import time
from itertools import groupby
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.runtime import conclude, job, resolve_device
from equiscape.task import load_task
from equiscape.training.cell import diverged_cell
from equiscape.training.summary import summary
from equiscape.training.together import train_together

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    data: str,
    task: dict,
    optimizer_name: str,
    optimizer: dict,
    cells: list[tuple[str | None, str | None, int]],
    protocol: int,
    device: str,
    files: list[dict[str, str]],
    started: float,
) -> None:
    """Train ``cells``, each (lr, wd, seed), and write each into its ``files``.

    These are ``metrics`` and ``history``, of final cells ``checkpoint`` and ``predictions`` too.
    """
    where = resolve_device(device)
    loaded = load_task(prepared=data, device=where, **task)
    entry = {"name": optimizer_name, **optimizer}
    shared = {"task": task, "optimizer": entry, "data": io.sha256(data), "protocol": protocol}
    training = task["entry"]["training"]
    written = []
    pairs = zip(cells, files, strict=True)
    for (lr, wd), group in groupby(pairs, key=lambda pair: tuple(pair[0][:2])):
        members = [(seed, paths) for (_, _, seed), paths in group]
        seeds = [seed for seed, _ in members]
        if lr is None:  # every cell of the grid diverged
            results = [diverged_cell(loaded, entry, seed, training) for seed in seeds]
        else:
            results = train_together(
                loaded,
                entry,
                lr,
                wd,
                seeds,
                training,
                keep_weights="checkpoint" in members[0][1],
            )
        for (seed, paths), result in zip(members, results):
            settings = {**shared, "lr": lr, "wd": wd, "seed": seed}
            seconds = time.monotonic() - started
            result.write(**paths, provenance=io.provenance(settings, where, seconds))
            written.append(result.metrics)
    conclude(summary(written))


if __name__ == "__main__":
    with job(snakemake) as start:
        choice = snakemake.input.get("choice")
        chosen = io.read_json(choice, "choice") if choice else None
        outputs = ("metrics", "history", "checkpoint", "predictions")
        names = [name for name in outputs if snakemake.output.get(name)]
        main(
            data=snakemake.input.data,
            task=snakemake.params.task,
            optimizer_name=snakemake.params.optimizer_name,
            optimizer=snakemake.params.optimizer,
            cells=[
                (chosen["lr"] if chosen else lr, chosen["wd"] if chosen else wd, int(seed))
                for lr, wd, seed in snakemake.params.cells
            ],
            protocol=snakemake.params.protocol,
            device=snakemake.resources.device,
            files=[
                dict(zip(names, paths))
                for paths in zip(*(snakemake.output[name] for name in names))
            ],
            started=start,
        )
