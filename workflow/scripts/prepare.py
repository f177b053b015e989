"""Prepare a data set: one HDF5 file with samples, targets and splits."""

from pathlib import Path
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.data import KINDS
from equiscape.data.download import verify
from equiscape.files import products
from equiscape.registry import lookup
from equiscape.runtime import conclude, job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(name: str, entry: dict, source: str | None, inputs: list[str], output: str) -> None:
    """Prepare the data set ``name`` from a local ``source``, or from what a download recorded.

    Args:
        name: of the data set.
        entry: its settings.
        source: a local source, or None.
        inputs: the files of a local source, or the record of a download.
        output: the file to write; its record goes beside it.
    """
    if source is None and inputs:
        source = io.read_json(inputs[0], "download")["path"]
        inputs = []
    before = products.stamp(inputs)
    if source is not None and Path(source).is_file():
        verify(Path(source), entry.get("sha256"))
    kind = lookup(KINDS, entry["kind"], f"datasets.{name}.kind")
    kind.prepare({"name": name, **entry}, Path(source) if source else None, Path(output))
    products.amend(output, sources=before)
    counts = io.read_json(products.record_of(output), "product").get("samples") or {}
    if counts:
        conclude(", ".join(f"{number} {split}" for split, number in counts.items()))


if __name__ == "__main__":
    with job(snakemake):
        main(
            name=snakemake.params.name,
            entry=snakemake.params.entry,
            source=snakemake.params.source,
            inputs=[path for path in snakemake.input if path not in snakemake.input.plugins],
            output=snakemake.output[0],
        )
