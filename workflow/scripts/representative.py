"""Find the final cell nearest the mean score of its seeds: the one that is analysed."""

import time
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.runtime import job
from equiscape.selection import representative

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(metrics: list[str], checkpoints: list[str], output: str, started: float) -> None:
    """Read the final cells' metrics and write the representative."""
    cells = [io.read_json(path) for path in metrics]
    result = representative(cells, checkpoints)
    seconds = time.monotonic() - started
    io.write_json(output, {**result, "provenance": io.provenance(cells, "cpu", seconds)})


if __name__ == "__main__":
    with job(snakemake) as start:
        main(
            list(snakemake.input.metrics),
            list(snakemake.input.checkpoints),
            snakemake.output[0],
            start,
        )
