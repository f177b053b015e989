"""Execute a notebook of the report and make a page of it."""

from pathlib import Path
from typing import TYPE_CHECKING

from equiscape.report.notebook import execute
from equiscape.runtime import conclude, job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with job(snakemake):
        execute(
            snakemake.input.notebook,
            Path(snakemake.input.template).parent,
            snakemake.output.ipynb,
            snakemake.output.html,
            {"manifest": snakemake.input.manifest, "figures": str(snakemake.params.figures)},
        )
        count = len(snakemake.output.png)
        conclude(f"{count} figure{'s' * (count != 1)}")
