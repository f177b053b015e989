"""Measure the loss on a filter-normalised plane through a representative."""

import json
import time
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.landscape.slices import measure_slice, write_slice
from equiscape.runtime import job, resolve_device
from equiscape.task import load_representative

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    data: str,
    task: dict,
    representative: str,
    settings: dict,
    device: str,
    output: str,
    started: float,
) -> None:
    """Restore the representative, measure the plane and write it as HDF5."""
    where = resolve_device(device)
    loaded, model, chosen = load_representative(task, data, representative, where)
    plane = measure_slice(loaded, model, settings)
    seconds = time.monotonic() - started
    write_slice(
        output,
        plane,
        task=chosen["task"],
        optimizer=chosen["optimizer"],
        representative_seed=chosen["seed"],
        checkpoint=chosen["checkpoint"],
        provenance=json.dumps(io.provenance([task, settings], where, seconds)),
    )


if __name__ == "__main__":
    with job(snakemake) as start:
        main(
            data=snakemake.input.data,
            task=snakemake.params.task,
            representative=snakemake.input.representative,
            settings=snakemake.params.settings,
            device=snakemake.resources.device,
            output=snakemake.output[0],
            started=start,
        )
