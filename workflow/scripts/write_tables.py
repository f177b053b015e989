"""Write every table of the study, ours beside the published figures."""

from pathlib import Path
from typing import TYPE_CHECKING

from equiscape.report.manifest import Manifest
from equiscape.report.tables import write_tables
from equiscape.runtime import conclude, job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(manifest: str, folder: Path) -> None:
    """Read the manifest and write its tables as CSV and Markdown."""
    written = write_tables(Manifest.read(manifest), folder)
    conclude(f"{len({path.stem for path in written})} tables")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake.input.manifest, Path(snakemake.output[0]).parent)
