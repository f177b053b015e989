"""Train all cells of a task and an optimizer in one process, those of one (lr, wd) in lockstep."""

import time
from itertools import groupby
from pathlib import Path
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
    snapshots: list[str],
    started: float,
) -> None:
    """Train ``cells``, each (lr, wd, seed), and write each into its ``files``.

    These are ``metrics`` and ``history``, of final cells ``checkpoint`` and ``predictions`` too.
    ``snapshots`` are paths that end in ``epoch<number>.pt``, of all cells.
    """
    where = resolve_device(device)
    loaded = load_task(prepared=data, device=where, **task)
    entry = {"name": optimizer_name, **optimizer}
    shared = {"task": task, "optimizer": entry, "data": io.sha256(data), "protocol": protocol}
    kept = [
        {int(Path(p).stem.removeprefix("epoch")): p for p in snapshots if _of(paths, p)}
        for paths in files
    ]
    training = {**task["entry"]["training"], "snapshots": sorted(kept[0])}
    written = []
    pairs = zip(cells, zip(files, kept), strict=True)
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
                keep_weights="checkpoint" in members[0][1][0],
            )
        for (seed, (paths, of_epochs)), result in zip(members, results):
            settings = {**shared, "lr": lr, "wd": wd, "seed": seed}
            seconds = time.monotonic() - started
            provenance = io.provenance(settings, where, seconds)
            result.write(**paths, snapshots=of_epochs, provenance=provenance)
            written.append(result.metrics)
    conclude(summary(written))


def _of(paths: dict[str, str], snapshot: str) -> bool:
    """Whether a snapshot is one of the cell that writes these files."""
    return Path(snapshot).parents[1] == Path(paths["metrics"]).parent


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
            snapshots=list(snakemake.output.get("snapshots", [])),
            started=start,
        )
