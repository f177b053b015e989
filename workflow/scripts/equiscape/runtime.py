"""What every rule's script needs around its one call: log, threads, device, clear errors."""

import atexit
import ctypes
import errno
import gc
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equiscape import gpus
from equiscape.errors import DeviceError, EquiscapeError, first_line, listed

log = logging.getLogger("equiscape")


@contextmanager
def job(snakemake: Any) -> Iterator[float]:
    """Run the body of a rule's script: log to the rule's log file, end errors in one sentence.

    Modules may be imported from the study's ``plugins`` folders. A job that asks for a GPU holds
    one of this machine's to its end, see :mod:`equiscape.gpus`.

    ``snakemake`` is the object that Snakemake hands to a ``script:``; the library itself never
    imports Snakemake. Yields the start time (``time.monotonic``), for provenance.

    An :class:`EquiscapeError` is printed as one sentence on the terminal and in the log and ends
    the process with status 1; its ``status`` attribute, if it has one, overrides that. So does a
    full disk, and a file or folder that the system refuses; whether the outputs can be written is
    tried before the body runs. Any other exception is a bug and keeps its traceback.
    """
    path = Path(str(snakemake.log[0])) if snakemake.log else None
    handlers: list[logging.Handler] = []
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(path, mode="w"))
        except OSError as error:
            _say(snakemake.rule, f"the log cannot be written: {refusal(error)}")
            raise SystemExit(1) from None
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=handlers or None,
        force=True,
    )
    logging.captureWarnings(True)
    set_threads(snakemake.threads)
    keep_freed_memory()
    spare_collections()
    config = getattr(snakemake, "config", {})
    folders = [str(Path(folder).absolute()) for folder in config.get("plugins") or []]
    sys.path[1:1] = [folder for folder in folders if folder not in sys.path]
    try:
        for output in getattr(snakemake, "output", ()):
            try_output(Path(str(output)))
        resources = getattr(snakemake, "resources", None)
        with gpus.assigned(bool(getattr(resources, "gpu", 0))):
            started, before = time.monotonic(), cpu_seconds()
            log.info("%s", _job_line(snakemake))
            yield started
            outputs = [str(path) for path in getattr(snakemake, "output", ())]
            written = f"; wrote {listed(outputs)}" if outputs else ""
            spent = f"CPU {cpu_seconds() - before:.2f} s after {before:.2f} s of starting"
            log.info("finished in %.1f s (%s)%s", time.monotonic() - started, spent, written)
    except EquiscapeError as error:
        _say(snakemake.rule, str(error))
        raise SystemExit(getattr(error, "status", 1)) from None
    except Exception as error:
        if disk_full(error):
            sentence = (
                f"no space is left on the disk ({error}); free some, or give the run another place "
                "with --directory, and run the same command again."
            )
        elif has_errno(error, REFUSED):
            sentence = refusal(error)
        else:
            log.exception("unexpected error")
            raise
        _say(snakemake.rule, sentence)
        raise SystemExit(1) from None


def cpu_seconds() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def conclude(result: str) -> None:
    """Say in one line what a job found: in its log, and so on the terminal when it has finished."""
    log.info("result: %s", result)


def _job_line(snakemake: Any) -> str:
    """The rule of a job, with its wildcards."""
    wildcards = getattr(snakemake, "wildcards", None)
    given = [f"{name} {value}" for name, value in wildcards.items()] if wildcards else []
    return ", ".join([f"rule {snakemake.rule}", *given])


def _say(rule: str, sentence: str) -> None:
    """Put one sentence on the terminal and in the log."""
    log.error("error: %s", sentence)
    over_a_bar = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{over_a_bar}{rule}: {sentence}", file=sys.stderr)


# what a system answers where a path, its rights or its file system are at fault, not this project
REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
    *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ELOOP, errno.ENXIO, errno.ENODEV),
    *(errno.EMFILE, errno.ENFILE),
)


def try_output(path: Path) -> None:
    """Make and remove a file beside an output, as it will be written.

    Raises:
        OSError: it cannot be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        reason = os.strerror(errno.ENOTDIR)
        raise NotADirectoryError(errno.ENOTDIR, reason, str(path.parent)) from None
    with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=".part", dir=path.parent):
        pass


def refusal(error: BaseException) -> str:
    """One sentence about a file or folder that the system refuses."""
    name = getattr(error, "filename", None)
    reason = getattr(error, "strerror", None) or first_line(error)
    what = f"{name} cannot be used ({reason})" if name else f"the system refuses a file ({reason})"
    return f"{what}; check the path, its permissions and the file system, and run it again."


def disk_full(error: BaseException) -> bool:
    """Whether ``error`` says that a disk or a quota is used up."""
    return has_errno(error, (errno.ENOSPC, errno.EDQUOT))


def has_errno(error: BaseException, numbers: tuple[int, ...]) -> bool:
    """Whether ``error`` is one of the system's ``numbers`` (HDF5 says it in its text alone)."""
    if not isinstance(error, (OSError, RuntimeError)):
        return False
    return getattr(error, "errno", None) in numbers or any(
        os.strerror(number) in str(error) for number in numbers
    )


def set_threads(threads: int) -> None:
    """Let torch, and whatever this process starts, use ``threads`` CPU threads.

    Two training processes on one machine slow each other down several times over if each takes
    every core, so the number comes from the rule's ``threads``.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT, MAPPED_FROM = 2**31 - 1, 2**30  # bytes


def keep_freed_memory() -> bool:
    """Let this process use again what it has freed, instead of giving it back to the system.

    glibc takes blocks above its threshold (32 MB at most by itself) from the kernel and gives them
    back when they are freed, and gives back what is free at the end of its heap. The temporaries of
    a training step are such blocks: every step then waits for the kernel to hand out the same pages
    anew, filled with zeros. What a process that keeps them saves is measured in
    benchmarks/results.md. It is for processes that end with their work: a program that this library
    is only a part of may want its memory back. Results do not change by a bit.

    Returns:
        Whether it was done: not on another C library, nor where the environment sets one of
        glibc's own ``MALLOC_..._`` variables.
    """
    chosen = any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ)
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT) and mallopt(M_MMAP_THRESHOLD, MAPPED_FROM))


def spare_collections() -> None:
    """Let Python's garbage collector pass over what has been imported, now and at the end.

    What torch's import leaves are some hundred thousand objects that live as long as the process.
    Each full collection walks through them, and several more do as the interpreter ends, for a
    third of what the import itself takes.
    """
    gc.freeze()
    atexit.register(gc.freeze)  # what came to it since


def resolve_device(name: str) -> Any:
    """``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"`` as a device.

    ``auto`` within a SLURM job that was given a GPU is ``cuda``: a broken one must not go unseen.

    Raises:
        DeviceError: CUDA was asked for and does not work here; training never falls back to the
            CPU in silence.
    """
    import torch

    if name == "auto":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        given = "SLURM_JOB_ID" in os.environ and visible not in ("", "NoDevFiles")
        name = "cuda" if given or torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        try:
            torch.zeros(1, device=name)
        except (RuntimeError, AssertionError) as error:
            reason = first_line(error)
            raise DeviceError(
                f"device: {name!r} does not work on {os.uname().nodename} ({reason}); "
                "give the job a GPU or set `device: cpu` in the configuration."
            ) from None
    elif name != "cpu":
        raise DeviceError(f"device: {name!r} is unknown; use auto, cpu, cuda or cuda:N.")
    return torch.device(name)


@contextmanager
def matmul_precision(level: str, device: Any) -> Iterator[None]:
    """Within the block, float32 products on CUDA at torch's precision ``level``."""
    import torch

    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(level)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
