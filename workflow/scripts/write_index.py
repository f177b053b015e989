"""Write the study's one page from its tables, figures and products."""

from pathlib import Path
from typing import TYPE_CHECKING

from equiscape.report.index import write_index
from equiscape.report.manifest import Manifest
from equiscape.runtime import conclude, job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(manifest: str, output: str) -> None:
    """Read the manifest and write the page beside it."""
    write_index(Manifest.read(manifest), output)
    conclude(f"a page of {Path(output).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake.input.manifest, snakemake.output[0])
