"""Measure stable and effective ranks of a representative's weights and representations."""

from typing import TYPE_CHECKING

from equiscape import io
from equiscape.runtime import job, resolve_device
from equiscape.spectra.ranks import measure_ranks
from equiscape.task import load_representative

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    data: str, task: dict, representative: str, settings: dict, device: str, output: str
) -> None:
    """Restore the representative, measure its ranks and write them as a tidy CSV."""
    loaded, model, chosen = load_representative(task, data, representative, resolve_device(device))
    ranks = measure_ranks(loaded, model, settings)
    ranks.insert(0, "task", chosen["task"])
    ranks.insert(1, "optimizer", chosen["optimizer"])
    io.write_csv(output, ranks)


if __name__ == "__main__":
    with job(snakemake):
        main(
            data=snakemake.input.data,
            task=snakemake.params.task,
            representative=snakemake.input.representative,
            settings=snakemake.params.settings,
            device=snakemake.resources.device,
            output=snakemake.output[0],
        )
