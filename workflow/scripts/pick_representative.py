"""Copy the representative's result out of those of every final seed."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from equiscape import io
from equiscape.runtime import conclude, job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(choice: str, results: list[str], outputs: list[str]) -> None:
    """Copy the result of the chosen seed, and the envelope beside it where there is one.

    Where every cell diverged there is no choice, and the first seed's result says so.
    """
    seed = io.read_json(choice, "representative_choice")["seed"]
    chosen = next((path for path in results if Path(path).stem == f"seed{seed}"), results[0])
    for output in outputs:
        source = Path(chosen).with_suffix(Path(output).suffix)
        with io.atomic_path(output) as temporary:
            shutil.copyfile(source, temporary)
    conclude("every final cell diverged" if seed is None else f"that of seed {seed}")


if __name__ == "__main__":
    with job(snakemake):
        seeds = [path for name, path in snakemake.input.items() if name.startswith("seed")]
        main(snakemake.input.choice, seeds, list(snakemake.output))
