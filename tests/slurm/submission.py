"""The real workflow through ``profiles/slurm``, with the site's facts of the pretend cluster."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml
from cluster import PARTITION, Cluster, process_environment
from workspace import ROOT, Workspace

PROFILE = ROOT / "profiles/slurm"
IMPATIENT = Path(__file__).parent / "impatient_snakemake.py"


class Submission(Workspace):
    """A workspace whose Snakemake hands every job to SLURM."""

    def __init__(self, folder: Path, config: dict, cluster: Cluster):
        super().__init__(folder, config)
        self.cluster = cluster
        self.announced: int | None = None  # seconds ahead of a job's end; None for the profile's
        profile = yaml.safe_load((PROFILE / "profile.yaml").read_text())
        self.defaults = profile["default-resources"]

    @property
    def extra(self) -> str:
        """The profile's ``slurm_extra``, a Python expression."""
        extra = self.defaults["slurm_extra"]
        if self.announced is None:
            return extra
        assert "--signal=URG@" in extra
        return re.sub(r"(--signal=\w+)@\d+", rf"\1@{self.announced}", extra)

    def command(
        self, *targets: str, options: Iterable[str] = (), device: str = "cpu", cores: int = 2
    ) -> list[str]:
        """The profile's own command with account, partition, status command and device replaced.

        Default resources on the command line take the place of all of the profile's, so the others
        are repeated.
        """
        (self.folder / "study.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        defaults = {**self.defaults, "slurm_partition": PARTITION}
        del defaults["slurm_account"]
        defaults["slurm_extra"] = self.extra
        return [
            *(sys.executable, str(IMPATIENT), "--snakefile", str(ROOT / "Snakefile")),
            *("--profile", str(PROFILE), "--configfile", "study.yaml"),
            *("--config", f"device={device}"),
            *("--default-resources", *(f"{key}={value}" for key, value in defaults.items())),
            *("--slurm-status-command", "squeue", "--slurm-no-account"),
            *("--slurm-init-seconds-before-status-checks", "1"),
            *options,
            "--",
            *targets,
        ]

    def environment(self) -> dict[str, str]:
        mine = super().environment()
        theirs = self.cluster.environment
        return {**mine, **theirs, "PATH": f"{theirs['PATH']}{os.pathsep}{mine['PATH']}"}

    def start(self, *targets: str, **arguments) -> subprocess.Popen:
        """Start Snakemake; its output goes to ``snakemake.out`` in the workspace."""
        command = self.command(*targets, **arguments)  # writes the study first
        with open(self / "snakemake.out", "wb") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        """What Snakemake has said so far."""
        return (self / "snakemake.out").read_text(errors="replace")


class Training:
    """A training process of a submission, found in /proc."""

    def __init__(self, pid: int, cell: str, log: Path):
        self.pid, self.cell, self.log = pid, cell, log
        variables = process_environment(pid)
        self.job = variables["SLURM_JOB_ID"]
        self.gpu = variables.get("CUDA_VISIBLE_DEVICES")
        self.said = ""
        self.held = False

    @property
    def alive(self) -> bool:
        try:
            return "train.py" in Path(f"/proc/{self.pid}/cmdline").read_text()
        except OSError:
            return False

    def listen(self) -> None:
        """Take a copy of the cell's log, which the next attempt begins anew."""
        if self.alive:
            self.said = self.log.read_text()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


def trainings(submission: Submission) -> list[Training]:
    """The training processes that run in the submission's folder and have opened their log."""
    found = []
    logs = submission.folder.resolve() / "results/logs"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if "train.py" not in (entry / "cmdline").read_text():
                continue
            opened = [Path(os.readlink(link)) for link in (entry / "fd").iterdir()]
            log = next((p for p in opened if p.suffix == ".log" and logs in p.parents), None)
            if log is not None:
                cell = log.relative_to(logs).with_suffix("").as_posix()
                found.append(Training(int(entry.name), cell, log))
        except OSError:  # it has just ended
            continue
    return found
