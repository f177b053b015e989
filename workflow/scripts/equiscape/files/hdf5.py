"""HDF5: our own files, checksummed and written so that a full disk is one sentence; foreign ones.

A damaged HDF5 file can make the HDF5 library crash or never come back, and a crafted one can name
other files of this machine. So a file of our own is opened only once its SHA-256 is right
(:func:`reading`), and a foreign one is read by a child process (:class:`ForeignFiles`) that refuses
links, virtual data sets and storage in other files, and whose death is one sentence.
"""

import io
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import h5py
import numpy as np

from equiscape.errors import DataError, first_line
from equiscape.files import products
from equiscape.files.archives import FREE, RATIO
from equiscape.files.arrays import Malformed, plain_dtype
from equiscape.io import atomic_path

PATIENCE = 30.0  # seconds of CPU time, and twice of wall time, for a foreign file
BYTES_A_SECOND = 2**20  # and as many more as its size needs at this speed
ANSWER = 2**16  # most bytes of the child's header


class _Disk(io.RawIOBase):
    """A file for h5py to write to, whose first failure is kept and ends the writing in silence.

    HDF5 answers an error of the disk by tracebacks of its own, and by a crash when it is closed.
    """

    def __init__(self, file: BinaryIO):
        self.file: Any = file
        self.error: OSError | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readinto(self, buffer: Any) -> int:
        found = self.file.readinto(buffer)
        if self.error is not None:  # what was to be here could not be written
            buffer[found:] = bytes(len(buffer) - found)
            return len(buffer)
        return found

    def _attempt(self, action: Any, *arguments: Any) -> Any:
        if self.error is None:
            try:
                return action(*arguments)
            except OSError as error:
                self.error = error
        return None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.error is None:
            done += self._attempt(self.file.write, view[done:]) or 0
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._attempt(self.file.truncate, size)
        return size or 0

    def flush(self) -> None:
        self._attempt(self.file.flush)


@contextmanager
def writing(path: str | Path) -> Iterator[h5py.File]:
    """A new HDF5 file, atomically; a disk that fails raises its own ``OSError`` and no other."""
    with atomic_path(path) as temporary, open(temporary, "r+b", buffering=0) as raw:
        disk = _Disk(raw)
        try:
            with h5py.File(disk, "w") as file:
                yield file
        except Exception:
            if disk.error is None:
                raise
        if disk.error is not None:
            raise disk.error


def put(file: h5py.File, name: str, array: np.ndarray, **options: Any) -> h5py.Dataset:
    """Store an array with a checksum (fletcher32) for each chunk."""
    array = np.asarray(array)
    if not array.size or not array.ndim:
        return file.create_dataset(name, data=array)
    return file.create_dataset(name, data=array, fletcher32=True, **options)


@contextmanager
def reading(path: str | Path, form: str, rule: str = "prepare") -> Iterator[h5py.File]:
    """A file of our own, opened for reading without a lock, once its SHA-256 is right.

    Args:
        path: of the file; its record lies beside it (:mod:`equiscape.files.products`).
        form: its attribute ``format``.
        rule: the rule that makes it, for the messages.

    Raises:
        DataError: it is absent, not the file that was written, or of another format.
    """
    products.verify(path, rule)
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise DataError(f"{path} cannot be opened ({first_line(error)}).") from None
    with file:
        found = file.attrs.get("format")
        if found != form:
            raise DataError(
                f"{path} is of format {found!r} instead of {form!r}; "
                f"run again with --forcerun {rule}."
            )
        try:
            yield file
        except (OSError, KeyError, RuntimeError) as error:
            raise DataError(
                f"{path} is not what its format says ({first_line(error)}); "
                f"run again with --forcerun {rule}."
            ) from None


class ForeignFiles:
    """Reads arrays from HDF5 files of others, in a child process that lives as long as this.

    ``with ForeignFiles() as files: files.read(data, ["points"])``.
    """

    def __init__(self, patience: float = PATIENCE):
        self.patience = patience
        self._child: Any = None  # a Popen whose pipes are open

    def __enter__(self) -> "ForeignFiles":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            for pipe in (self._child.stdin, self._child.stdout):
                pipe.close()
            self._child.wait()
            self._child = None

    def _start(self) -> Any:
        if self._child is None:
            worker = Path(__file__).with_name("hdf5_worker.py")
            self._child = subprocess.Popen(
                [sys.executable, "-P", str(worker)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "HDF5_PLUGIN_PRELOAD": "::", "OMP_NUM_THREADS": "1"},
            )
        return self._child

    def read(
        self, data: bytes, names: Iterable[str], optional: Iterable[str] = ()
    ) -> dict[str, np.ndarray]:
        """The arrays ``names`` of the file whose bytes are ``data``, and the ``optional`` ones.

        Raises:
            Malformed: it is damaged, lacks an array, holds anything but plain numbers there, or
                refers to other files.
        """
        seconds = self.patience + len(data) / BYTES_A_SECOND
        request = {
            "bytes": len(data),
            "names": list(names),
            "optional": list(optional),
            "seconds": seconds,
            "largest": max(FREE, RATIO * len(data)),
        }
        child = self._start()
        until = time.monotonic() + 2 * seconds
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            view = memoryview(data)
            while view:
                view = view[child.stdin.write(view) :]
            reply = json.loads(self._line(until))
            if "error" in reply:
                raise Malformed(reply["error"])
            return {name: self._array(code, shape, until) for name, code, shape in reply["arrays"]}
        except (OSError, EOFError, TimeoutError):
            self._end()
            raise Malformed("HDF5 does not survive reading it") from None

    def _array(self, code: str, shape: list[int], until: float) -> np.ndarray:
        dtype = plain_dtype(code) or np.dtype("u1")
        array = np.empty(shape, dtype)
        view = memoryview(array.reshape(-1).data).cast("B") if array.size else memoryview(b"")
        while view:
            self._wait(until)
            got = self._child.stdout.readinto(view)
            if not got:
                raise EOFError
            view = view[got:]
        return array

    def _wait(self, until: float) -> None:
        left = until - time.monotonic()
        if left < 0 or not select.select([self._child.stdout], [], [], left)[0]:
            raise TimeoutError

    def _line(self, until: float) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):
            self._wait(until)
            piece = self._child.stdout.read(1)
            if not piece or len(line) > ANSWER:
                raise EOFError
            line += piece
        return bytes(line)
