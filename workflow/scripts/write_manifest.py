"""Write down what the tables and notebooks compare: the study's tasks, optimizers and seeds."""

from pathlib import Path
from typing import TYPE_CHECKING

from equiscape.report.manifest import Manifest
from equiscape.runtime import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(manifest: dict, output: str) -> None:
    """Write the manifest of the study whose products lie beside ``output``."""
    Manifest.from_dict({**manifest, "results": str(Path(output).parent)}).write(output)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake.params.manifest, snakemake.output[0])
