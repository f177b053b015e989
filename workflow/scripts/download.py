"""Download a data set's source, with its checksum verified."""

from pathlib import Path
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.data.download import download
from equiscape.runtime import conclude, job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with job(snakemake):
        download(
            snakemake.params.entry,
            Path(snakemake.params.folder),
            snakemake.output[0],
            snakemake.resources.least_speed,
        )
        file = Path(io.read_json(snakemake.output[0], "download")["path"])
        conclude(f"{file.name}, {file.stat().st_size / 1e6:.1f} MB")
