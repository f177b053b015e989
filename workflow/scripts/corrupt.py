"""Corrupt the test clouds of a data set, or read the published corrupted clouds."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.data.corrupted import prepare
from equiscape.data.download import verify
from equiscape.files import products
from equiscape.runtime import conclude, job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    entry: dict,
    source: str | None,
    record: str | None,
    files: list[str],
    prepared: str | None,
    output: str,
) -> None:
    """Write the corrupted clouds from a local source, a download or the prepared data."""
    if source is None and record is not None:
        source = io.read_json(record, "download")["path"]
    before = products.stamp(files)
    if source is not None and Path(source).is_file():
        verify(Path(source), entry["corruptions"].get("sha256"))
    prepare(
        entry, Path(source) if source else None, Path(prepared) if prepared else None, Path(output)
    )
    products.amend(output, sources=before)
    conclude(f"corrupted clouds, {Path(output).stat().st_size / 1e6:.1f} MB")


def strings(files: str | Iterable[str] | None) -> list[str]:
    """Snakemake gives one file as a string, several as a list."""
    return [files] if isinstance(files, str) else list(files or ())


if __name__ == "__main__":
    with job(snakemake):
        main(
            entry=snakemake.params.entry,
            source=snakemake.params.source,
            record=snakemake.input.get("record"),
            files=strings(snakemake.input.get("files")),
            prepared=snakemake.input.get("prepared"),
            output=snakemake.output[0],
        )
