"""Choose the learning rate and weight decay of a task and an optimizer from its grid cells."""

from typing import TYPE_CHECKING

from equiscape import io
from equiscape.runtime import conclude, job
from equiscape.selection import select, write_selection

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(paths: list[str], output: str, choice: str, started: float) -> None:
    """Read the grid cells' metrics and write the selection, and its choice alone."""
    cells = [io.read_json(path, "metrics") for path in paths]
    selection = select(cells, paths)
    write_selection(selection, cells, output, choice, started)
    if selection["lr"] is None:
        conclude("every cell of the grid diverged")
    else:
        at_edge = any((selection["edges"][name] or {}).get("add") for name in ("lr", "wd"))
        edge = ", at an edge of its grid" if at_edge else ""
        conclude(f"lr {selection['lr']}, wd {selection['wd']} of {len(cells)} cells{edge}")


if __name__ == "__main__":
    with job(snakemake) as start:
        main(list(snakemake.input), snakemake.output.selection, snakemake.output.choice, start)
