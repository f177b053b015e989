"""Source files, wherever they lie: a folder, a zip or a tar archive, read member by member.

Nothing is unpacked to the disk, so a hostile or damaged archive leaves nothing behind; a member
with an absolute path or with ``..`` in it is refused all the same, since no honest archive has one.
"""

import io
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from equiscape.errors import DataError, first_line

# What the readers raise on bytes that are not what they ought to be.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError)


class Source(ABC):
    """Files by their base names, as data sets name them; folders inside a source do not matter.

    Attributes:
        path: of the folder or archive, for messages.
        names: base names of its files, sorted.
    """

    def __init__(self, path: Path, members: list[str]):
        self.path = path
        for member in members:
            check_member(member, path)
        self._members: dict[str, str] = {}
        for member in members:
            name = PurePosixPath(member).name
            if name.startswith("._") or "__MACOSX" in member:  # what macOS adds to its zips
                continue
            if name in self._members:
                raise DataError(
                    f"{path} holds {name} twice ({self._members[name]} and {member}); "
                    "keep one of them."
                )
            self._members[name] = member
        self.names = sorted(self._members)

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: it is absent or damaged; the message names it and its archive.
        """
        with self.open(name) as file:
            try:
                return file.read()
            except DAMAGE as error:
                raise self.damaged(name, error) from None

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A file, opened for reading in binary; large members need not fit into memory."""
        if name not in self._members:
            raise DataError(f"{name} is missing from {self.path}; get the complete data set.")
        try:
            file = self._open(self._members[name])
        except DAMAGE as error:
            raise self.damaged(name, error) from None
        with file:
            yield file

    def damaged(self, name: str, error: Exception) -> DataError:
        """The error for a file that cannot be read."""
        reason = first_line(error)
        return DataError(f"{name} in {self.path} is damaged ({reason}); get the file again.")

    @abstractmethod
    def _open(self, member: str) -> BinaryIO: ...

    def close(self) -> None:  # noqa: B027  a folder has nothing to close
        """Release the archive."""


class _Folder(Source):
    def __init__(self, path: Path):
        super().__init__(path, [file.name for file in path.iterdir() if file.is_file()])

    def _open(self, member: str) -> BinaryIO:
        return open(self.path / member, "rb")


class _Zip(Source):
    def __init__(self, path: Path):
        self._archive = zipfile.ZipFile(path)
        super().__init__(path, [i.filename for i in self._archive.infolist() if not i.is_dir()])

    def _open(self, member: str) -> BinaryIO:
        return self._archive.open(member)

    def close(self) -> None:
        self._archive.close()


class _Tar(Source):
    def __init__(self, path: Path):
        self._archive = tarfile.open(path)  # noqa: SIM115  closed by close()
        members = self._archive.getmembers()
        for member in members:
            if not (member.isfile() or member.isdir()):
                check_member(member.linkname or "..", path)
        super().__init__(path, [m.name for m in members if m.isfile()])

    def _open(self, member: str) -> BinaryIO:
        file = self._archive.extractfile(member)
        return file if file is not None else io.BytesIO()

    def close(self) -> None:
        self._archive.close()


def check_member(name: str, archive: Path) -> None:
    """Refuse an archive member that would land outside the folder it is unpacked into.

    Raises:
        DataError: ``name`` is absolute (on POSIX or Windows) or climbs by ``..``.
    """
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    climbs = ".." in posix.parts or ".." in windows.parts
    if posix.is_absolute() or windows.drive or windows.root or climbs:
        raise DataError(
            f"{archive} has a member {name!r} that points outside the archive; "
            "do not use this file, get it from another source."
        )


@contextmanager
def open_source(path: str | Path) -> Iterator[Source]:
    """Open a folder, a zip or a tar archive (plain, gz, bz2, xz).

    Raises:
        DataError: ``path`` does not exist, is not an archive, or holds a hostile member.
    """
    path = Path(path)
    if path.is_dir():
        source: Source = _Folder(path)
    elif not path.exists():
        raise DataError(f"{path} does not exist; give an archive or a folder.")
    else:
        try:
            if zipfile.is_zipfile(path):
                source = _Zip(path)
            elif tarfile.is_tarfile(path):
                source = _Tar(path)
            else:
                raise DataError(f"{path} is neither a zip nor a tar archive; {_looks_like(path)}.")
        except DAMAGE as error:
            raise DataError(
                f"{path} is a damaged archive ({first_line(error)}); get it again."
            ) from None
    try:
        yield source
    finally:
        source.close()


def _looks_like(path: Path) -> str:
    """What to do about a file that is no archive, from its first bytes."""
    with open(path, "rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, which servers send instead of a file: delete it, get it again"
    if head.startswith(b"pk"):
        return "it is a zip archive cut short: delete it, get it again"
    return "delete it, get it again"
