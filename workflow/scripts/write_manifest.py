"""Write down what the tables and notebooks compare: the study's tasks, optimizers and seeds."""

from pathlib import Path
from typing import TYPE_CHECKING

from equiscape.report.manifest import Manifest
from equiscape.runtime import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(manifest: dict, config: dict, output: str) -> None:
    """Write the manifest of the study whose products lie beside ``output``.

    Tables and figures have the order of the configuration, which is no parameter of the rule: to
    change it reruns nothing.
    """
    ordered = {
        section: {
            name: manifest[section][name] for name in config[section] if name in manifest[section]
        }
        for section in ("tasks", "optimizers", "analyses")
    }
    Manifest.from_dict({**manifest, **ordered, "results": str(Path(output).parent)}).write(output)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake.params.manifest, snakemake.config, snakemake.output[0])
