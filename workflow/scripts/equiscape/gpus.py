"""One GPU a job where several jobs run on one machine without a scheduler that deals them out.

Snakemake counts GPUs (``--resources gpu=2``) and does not say which one a job gets. So the process
that starts the jobs names the GPUs in an environment variable, and each job takes a lock on one of
them before CUDA is initialized and sees no other. The lock is a ``flock`` of an open file, so the
kernel frees it however the job ends.
"""

import errno
import fcntl
import glob
import logging
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from equiscape.errors import DeviceError

log = logging.getLogger("equiscape")

VARIABLE = "EQUISCAPE_GPUS"  # slots, each the name of a GPU as CUDA_VISIBLE_DEVICES takes it
WAIT = 0.2  # seconds between two looks for a free GPU


def visible() -> list[str]:
    """The GPUs that processes started from here see, by the names of ``CUDA_VISIBLE_DEVICES``.

    Without importing torch: those that the variable lists up to the first that CUDA would not
    take, else as many as the driver has device files, else as ``nvidia-smi`` lists.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        names: list[str] = []
        for name in (part.strip() for part in named.split(",")):
            if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", name):
                break
            names.append(name)
        return names
    count = sum(bool(re.search(r"nvidia\d+$", path)) for path in glob.glob("/dev/nvidia*"))
    if not count and shutil.which("nvidia-smi"):
        with suppress(OSError, subprocess.TimeoutExpired):
            run = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
            count = sum(line.startswith("GPU ") for line in run.stdout.splitlines())
    return [str(number) for number in range(count)]


def announce(limit: int | None, environment: MutableMapping[str, str]) -> list[str]:
    """Name the GPUs for the jobs that will be started, in ``environment``.

    Args:
        limit: jobs with a GPU that run at once; None where nobody counts them, which leaves the
            choice to CUDA. More than there are GPUs share them evenly.
        environment: of the jobs.

    Returns:
        The slots: a GPU's name as often as jobs may share it, other GPUs first.
    """
    names = visible()
    environment.pop(VARIABLE, None)
    if not limit or not names:
        return []
    slots = [names[i % len(names)] for i in range(max(limit, len(names)))]
    environment[VARIABLE] = ",".join(slots)
    return slots


@contextmanager
def assigned(wanted: bool, folder: Path | None = None) -> Iterator[str | None]:
    """Within the block, this process holds one of the announced GPUs and sees no other.

    It waits for one that is free. Call it before CUDA is initialized.

    Args:
        wanted: whether the job uses a GPU.
        folder: of the lock files; by default one of this user's in the folder for temporary files.

    Yields:
        The GPU's name; None where none was announced or wanted.

    Raises:
        DeviceError: the folder cannot be used.
    """
    slots = [name for name in os.environ.get(VARIABLE, "").split(",") if name]
    if not wanted or not slots:
        yield None
        return
    handle, name = _take(slots, folder or _own_folder())
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = name
    log.info("this job has GPU %s of %s", name, ", ".join(dict.fromkeys(slots)))
    try:
        yield name
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES")
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
        os.close(handle)


def _take(slots: Sequence[str], folder: Path) -> tuple[int, str]:
    """An open, locked file of the first free slot, and the slot's GPU."""
    paths = [
        folder / f"{name.replace('/', '_')}.{slots[:i].count(name)}" for i, name in enumerate(slots)
    ]
    said = False
    while True:
        for name, path in zip(slots, paths):
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise _refused(path, error) from None
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle, name
            except OSError as error:
                os.close(handle)
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise _refused(path, error) from None
        if not said:
            log.info("waiting for one of the GPUs %s", ", ".join(dict.fromkeys(slots)))
            said = True
        time.sleep(WAIT)


def _own_folder() -> Path:
    """This user's folder of locks; another of each SLURM job, which numbers its GPUs from 0."""
    job = os.environ.get("SLURM_JOB_ID", "")
    name = "-".join(["equiscape-gpus", str(os.getuid()), *([job] if job.isdigit() else [])])
    folder = Path(tempfile.gettempdir()) / name
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise _refused(folder, error) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise DeviceError(f"{folder} belongs to someone else; give another folder with TMPDIR.")
    return folder


def _refused(path: Path, error: OSError) -> DeviceError:
    return DeviceError(
        f"the lock of a GPU, {path}, cannot be used ({error.strerror}); "
        "give another folder for temporary files with TMPDIR."
    )
