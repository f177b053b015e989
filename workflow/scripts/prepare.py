"""Prepare a data set: one HDF5 file with samples, targets and splits."""

from pathlib import Path
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.data import KINDS
from equiscape.data.download import verify
from equiscape.registry import lookup
from equiscape.runtime import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(name: str, entry: dict, source: str | None, record: str | None, output: str) -> None:
    """Prepare the data set ``name`` from a local ``source``, or from what a download recorded."""
    if source is None and record is not None:
        source = io.read_json(record)["path"]
    if source is not None and Path(source).is_file():
        verify(Path(source), entry.get("sha256"))
    kind = lookup(KINDS, entry["kind"], f"datasets.{name}.kind")
    kind.prepare({"name": name, **entry}, Path(source) if source else None, Path(output))


if __name__ == "__main__":
    with job(snakemake):
        main(
            name=snakemake.params.name,
            entry=snakemake.params.entry,
            source=snakemake.params.source,
            record=snakemake.input[0] if snakemake.input else None,
            output=snakemake.output[0],
        )
