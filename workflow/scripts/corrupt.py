"""Corrupt the test clouds of a data set, or read the published corrupted clouds."""

from pathlib import Path
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.data.corrupted import prepare
from equiscape.data.download import verify
from equiscape.runtime import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    entry: dict, source: str | None, record: str | None, prepared: str | None, output: str
) -> None:
    """Write the corrupted clouds from a local source, a download or the prepared data."""
    if source is None and record is not None:
        source = io.read_json(record)["path"]
    if source is not None and Path(source).is_file():
        verify(Path(source), entry["corruptions"].get("sha256"))
    prepare(
        entry, Path(source) if source else None, Path(prepared) if prepared else None, Path(output)
    )


if __name__ == "__main__":
    with job(snakemake):
        main(
            entry=snakemake.params.entry,
            source=snakemake.params.source,
            record=snakemake.input.get("record"),
            prepared=snakemake.input.get("prepared"),
            output=snakemake.output[0],
        )
