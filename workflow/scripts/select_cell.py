"""Choose the learning rate and weight decay of a task and an optimizer from its grid cells."""

import time
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.runtime import job
from equiscape.selection import select

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(cells: list[str], output: str, started: float) -> None:
    """Read the grid cells' metrics and write the selection."""
    selection = select([io.read_json(path) for path in cells], cells)
    seconds = time.monotonic() - started
    io.write_json(output, {**selection, "provenance": io.provenance(cells, "cpu", seconds)})


if __name__ == "__main__":
    with job(snakemake) as start:
        main(list(snakemake.input), snakemake.output[0], start)
