"""A real SLURM of one node with two pretend GPUs, in a folder and on ports of its own.

As a command, ``python tests/slurm/cluster.py`` starts it, prints how to talk to it and stops it on
Ctrl-C. It needs root and Debian's packages slurm-wlm and munge; nothing of the machine's own
configuration is read or changed.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PARTITION = "pretend"
GPUS = 2
MEMORY_MB = 64000  # believed, as the cores are: jobs ask for more than they use here

SLURM_CONF = """
ClusterName=pretend
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire={requeue_delay}
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=1800
KillWait=10
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName={partition} Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why a cluster cannot be started here, in one sentence; None where it can."""
    absent = [name for name in DAEMONS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "the SLURM test starts daemons that change user, so it needs root"
    return None


def _path() -> str:
    """Daemons lie in /usr/sbin, which is not on everybody's path."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class DidNotStart(RuntimeError):
    """A daemon ended or took too long as the cluster was started."""


class Cluster:
    """A context manager; within it the node is idle and takes jobs.

    Args:
        folder: for configuration, state and logs; made by this class, absolute and short, since
            the path of a Unix socket has at most 107 characters.
        cpus: that SLURM believes the node has, whatever the machine has.
    """

    def __init__(self, folder: Path, cpus: int = 4):
        self.folder, self.cpus = folder, cpus
        self.host = socket.gethostname().split(".")[0]
        self.processes: dict[str, subprocess.Popen] = {}

    @property
    def environment(self) -> dict[str, str]:
        """For clients: which cluster they talk to."""
        path = f"{self.folder / 'bin'}{os.pathsep}{_path()}"
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def __enter__(self) -> "Cluster":
        for name in ("bin", "munge", "state", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge/key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        (self.folder / "slurm.conf").write_text(
            SLURM_CONF.format(
                host=self.host,
                folder=self.folder,
                controller_port=_free_port(),
                node_port=_free_port(),
                cpus=self.cpus,
                memory=MEMORY_MB,
                gpus=GPUS,
                partition=PARTITION,
                requeue_delay=20,
            )
        )
        # a GPU needs a device file that exists; nobody opens these
        (self.folder / "gres.conf").write_text(f"Name=gpu File=/dev/tty[0-{GPUS - 1}]\n")
        # Snakemake's SLURM plugin clears the variables SLURM_* ahead of srun, which then looks for
        # its configuration where a site has it
        wrapper = self.folder / "bin/srun"
        wrapper.write_text(
            f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"\n'
        )
        wrapper.chmod(0o755)
        try:
            self.start("munged")
            self._wait(lambda: (self.folder / "munge/socket").exists(), "munge's socket")
            self.start("slurmctld")
            self._wait(lambda: self.ask("scontrol", "ping").returncode == 0, "the controller")
            self.start("slurmd")
            self._wait(lambda: "idle" in self.node_state(), "the node")
        except BaseException as error:
            self.__exit__()
            if isinstance(error, RuntimeError):
                raise DidNotStart(str(error)) from None
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if "slurmctld" in self.processes:
            self.ask("scancel", "--partition", PARTITION)
            deadline = time.monotonic() + 60  # a job's processes outlive slurmd
            while self.ask("squeue", "--noheader").stdout and time.monotonic() < deadline:
                time.sleep(0.5)
        for name in reversed(list(self.processes)):
            self.stop(name)

    def start(self, name: str) -> None:
        """Start one daemon in the foreground of a process of ours, so that its id is known."""
        arguments = {
            "munged": [
                "--foreground",
                "--force",
                "--num-threads=2",
                *(f"--{key}={self.folder}/munge/{key}" for key in ("socket",)),
                f"--key-file={self.folder}/munge/key",
                f"--pid-file={self.folder}/munge/pid",
                f"--log-file={self.folder}/munge/log",
                f"--seed-file={self.folder}/munge/seed",
            ],
            "slurmctld": ["-D", "-f", f"{self.folder}/slurm.conf"],
            "slurmd": ["-D", "-f", f"{self.folder}/slurm.conf", "-N", self.host],
        }[name]
        with open(self.folder / f"{name}.out", "ab") as output:
            self.processes[name] = subprocess.Popen(
                [shutil.which(name, path=_path()) or name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def stop(self, name: str) -> None:
        """End one daemon that :meth:`start` started."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart_controller(self, seconds_down: float = 2.0) -> None:
        """Stop slurmctld for some seconds, as an administrator or a crash would."""
        self.stop("slurmctld")
        time.sleep(seconds_down)
        self.start("slurmctld")
        self._wait(lambda: self.ask("scontrol", "ping").returncode == 0, "the controller")

    def ask(self, *command: str) -> subprocess.CompletedProcess:
        """Run one of SLURM's commands."""
        return subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def node_state(self) -> str:
        """What sinfo calls the node; a drained one is put back to work."""
        state = self.ask("sinfo", "--noheader", "--format=%t").stdout.strip()
        if state.startswith(("drain", "down")):
            self.ask("scontrol", "update", f"nodename={self.host}", "state=resume")
        return state

    def jobs(self) -> dict[str, dict[str, str]]:
        """Job id -> what ``scontrol show job`` says of it, finished jobs included."""
        found = {}
        for block in self.ask("scontrol", "show", "job", "--details").stdout.split("\n\n"):
            fields = dict(re.findall(r"(\S+?)=(\S*)", block))
            if "JobId" in fields:
                found[fields["JobId"]] = fields
        return found

    def _wait(self, condition, what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            dead = [name for name, p in self.processes.items() if p.poll() is not None]
            if dead or time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not come up\n{self.logs()}")
            time.sleep(0.2)

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        files = [*self.folder.glob("*.log"), *self.folder.glob("*.out"), self.folder / "munge/log"]
        return "\n".join(
            f"{file.name}: {file.read_text(errors='replace')[-2000:]}"
            for file in files
            if file.is_file()
        )


def process_environment(pid: int) -> Mapping[str, str]:
    """The environment that a process was started with (Linux)."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(entry.decode(errors="replace").split("=", 1) for entry in entries if b"=" in entry)


if __name__ == "__main__":
    if reason := missing():
        sys.exit(f"No SLURM here: {reason}")
    home = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with Cluster(home) as cluster:
            print(f"export SLURM_CONF={home}/slurm.conf   # partition {PARTITION}; Ctrl-C ends it")
            signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        shutil.rmtree(home, ignore_errors=True)
