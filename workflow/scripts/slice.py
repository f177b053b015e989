"""Measure the loss on a filter-normalised plane through a representative."""

from typing import TYPE_CHECKING

from equiscape import io
from equiscape.landscape.slices import measure_slice, write_slice
from equiscape.runtime import job, resolve_device
from equiscape.task import load_task

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    data: str, task: dict, representative: str, settings: dict, device: str, output: str
) -> None:
    """Restore the representative, measure the plane and write it as HDF5."""
    loaded = load_task(prepared=data, device=resolve_device(device), **task)
    chosen = io.read_json(representative)
    model = loaded.restore(chosen["checkpoint"])
    plane = measure_slice(loaded, model, settings)
    write_slice(output, plane, task=chosen["task"], optimizer=chosen["optimizer"])


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
