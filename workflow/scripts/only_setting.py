"""Write the selection of a grid of one setting, which is taken without training."""

from typing import TYPE_CHECKING

from equiscape.runtime import conclude, job
from equiscape.selection import untried, write_selection

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    task: str, optimizer: str, setting: list[str], output: str, choice: str, started: float
) -> None:
    """Write the selection and its choice alone, as ``select_cell.py`` does of a searched grid."""
    lr, wd = setting
    selection = untried(task, optimizer, lr, wd)
    write_selection(selection, selection, output, choice, started)
    conclude(f"lr {lr}, wd {wd}, the only candidate")


if __name__ == "__main__":
    with job(snakemake) as start:
        main(
            snakemake.wildcards.task,
            snakemake.wildcards.optimizer,
            list(snakemake.params.setting),
            snakemake.output.selection,
            snakemake.output.choice,
            start,
        )
