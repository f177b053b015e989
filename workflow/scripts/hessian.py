"""Measure the Hessian of the training loss at a representative."""

import logging
import time
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.landscape.hessian import measure_hessian
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
    """Restore the representative, measure its Hessian and write it as JSON."""
    where = resolve_device(device)
    loaded, model, chosen = load_representative(task, data, representative, where)
    result = measure_hessian(loaded, model, settings, progress=logging.getLogger("equiscape").info)
    seconds = time.monotonic() - started
    io.write_json(
        output,
        {
            "task": chosen["task"],
            "optimizer": chosen["optimizer"],
            "seed": chosen["seed"],
            "checkpoint": chosen["checkpoint"],
            **result,
            "provenance": io.provenance([task, settings], where, seconds),
        },
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
