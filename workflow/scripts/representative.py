"""Find the final cell nearest the mean score of its seeds: the one that is analyzed."""

import time
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.runtime import conclude, job
from equiscape.selection import check_cell, representative

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    metrics: list[str], checkpoints: list[str], output: str, choice: str, started: float
) -> None:
    """Read the final cells' metrics and write the representative, and its checkpoint alone.

    The choice is the same file, byte for byte, as long as the same weights stand for the cells; so
    a seed that is added without becoming the representative leaves the analyses as they are.
    """
    cells = [io.read_json(path, "metrics") for path in metrics]
    for cell, path in zip(cells, metrics):
        check_cell(cell, path)
    result = representative(cells, checkpoints)
    chosen = {key: result[key] for key in ("task", "optimizer", "seed", "checkpoint")}
    checkpoint = result["checkpoint"]  # None where every cell diverged
    io.write_json(choice, {**chosen, "sha256": checkpoint and io.sha256(checkpoint)})
    seconds = time.monotonic() - started
    io.write_json(output, {**result, "provenance": io.provenance(cells, "cpu", seconds)})
    conclude("every final cell diverged" if result["seed"] is None else f"seed {result['seed']}")


if __name__ == "__main__":
    with job(snakemake) as start:
        main(
            list(snakemake.input.metrics),
            list(snakemake.input.checkpoints),
            snakemake.output.representative,
            snakemake.output.choice,
            start,
        )
