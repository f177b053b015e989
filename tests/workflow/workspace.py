"""Runs of the real workflow in a folder of their own, on a study of the smallest size."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
TINY = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())


class Workspace:
    """A folder with a study in it, and Snakemake run there."""

    def __init__(self, folder: Path, config: dict):
        self.folder = folder
        self.config = deepcopy(config)
        self.said = ""  # by the run that made what lies in the folder

    def command(self, *targets: str, options: Iterable[str] = (), cores: int = 2) -> list[str]:
        (self.folder / "study.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        base = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        base += ["--configfile", "study.yaml", "--cores", str(cores)]
        base += ["--rerun-triggers", "mtime", "params", "input"]
        return [*base, *options, "--", *targets]

    def environment(self) -> dict[str, str]:
        binaries = Path(sys.executable).parent
        return {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *targets: str, options: Iterable[str] = (), ok: bool = True, **kwargs) -> str:
        """Run to the end; the output of a failed run is in the test's message."""
        run = subprocess.run(
            self.command(*targets, options=options, **kwargs),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=900,
        )
        output = run.stdout + run.stderr
        assert (run.returncode == 0) == ok, output[-6000:]
        return output

    def planned(self, *targets: str, options: Iterable[str] = ()) -> dict[str, int]:
        """Rule -> number of jobs that a dry run lists."""
        output = self.run(*targets, options=["--dry-run", *options])
        stats = re.findall(r"^(\w+)\s+(\d+)$", output.split("Job stats:")[-1], re.M)
        return {rule: int(count) for rule, count in stats if rule != "total"}

    def __truediv__(self, path: str) -> Path:
        return self.folder / path
