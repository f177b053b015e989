"""Source files, wherever they lie: a folder, a zip or a tar archive, read member by member.

Nothing is unpacked to the disk, so a hostile or damaged archive leaves nothing behind; a member
with an absolute path or with ``..`` in it is refused all the same, since no honest archive has one.
A compressed tar is read to its end before anything of it is used, since its checksum stands there;
members that would unpack to far more than they are, encrypted ones and such as this Python cannot
unpack are refused by name.
"""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, BinaryIO, cast

from equiscape.errors import DataError, first_line

# What the readers raise on bytes that are not what they ought to be.
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(ValueError, NotImplementedError, RuntimeError, MemoryError, OverflowError, KeyError),
)
MEMBERS = 200_000  # most files of an archive
FREE = 2**26  # bytes that may unpack from anything
RATIO = 250  # most bytes unpacked for one packed, beyond that: coordinates pack 1.1 to 10 times
LARGEST = 2**36  # bytes of a member
DEPTH = 3  # folders below a source that are looked into
SYSTEMS = ("lost+found", "System Volume Information")  # folders that a file system keeps for itself
PIECE = 2**20
COMPRESSED: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


class Source(ABC):
    """Files by their base names, as data sets name them; folders inside a source do not matter.

    Attributes:
        path: of the folder or archive, for messages.
        names: base names of its files, sorted.
        members: their paths inside of the source, sorted.
    """

    def __init__(self, path: Path, members: list[str]):
        self.path = path
        if len(members) > MEMBERS:
            raise DataError(f"{path} holds {len(members)} files, more than {MEMBERS}; is it data?")
        for member in members:
            check_member(member, path)
        self._members: dict[str, list[str]] = {}
        self.members = []
        for member in sorted(members, key=lambda member: (member.count("/"), member)):
            name = PurePosixPath(member).name
            if name.startswith("._") or "__MACOSX" in member:  # what macOS adds to its zips
                continue
            self.members.append(member)
            self._members.setdefault(name, []).append(member)
        self.members.sort()
        self.names = sorted(self._members)

    def read(self, name: str) -> bytes:
        """The bytes of a file, by its base name or its path in the source.

        Raises:
            DataError: it is absent, damaged, or there twice; the message names it.
        """
        with self.open(name) as file:
            try:
                return file.read()
            except DAMAGE as error:
                raise self.damaged(name, error) from None

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A file, opened for reading in binary; large members need not fit into memory."""
        member = name if "/" in name else self._find(name)
        try:
            file = self._open(member)
        except DAMAGE as error:
            raise self.damaged(name, error) from None
        with file:
            yield file

    def _find(self, name: str) -> str:
        """The member called ``name``: the one nearest to the top of the source."""
        found = self._members.get(name)
        if not found:
            inner = [other for other in self.names if other.endswith(SUFFIXES)]
            remedy = f"unpack {inner[0]} and give that" if inner else "get the complete data set"
            raise DataError(f"{name} is missing from {self.path}; {remedy}.")
        if len(found) > 1 and found[0].count("/") == found[1].count("/"):
            raise DataError(
                f"{self.path} holds {name} twice ({found[0]} and {found[1]}); keep one of them."
            )
        return found[0]

    def damaged(self, name: str, error: Exception) -> DataError:
        """The error for a file that cannot be read."""
        return DataError(
            f"{name} in {self.path} is damaged ({first_line(error)}); get the file again."
        )

    @abstractmethod
    def _open(self, member: str) -> BinaryIO: ...

    def close(self) -> None:  # noqa: B027  a folder has nothing to close
        """Release the archive."""


class _Folder(Source):
    def __init__(self, path: Path):
        super().__init__(path, [str(PurePosixPath(file)) for file in files_below(path)])

    def _open(self, member: str) -> BinaryIO:
        return open(self.path / member, "rb")


def files_below(folder: Path) -> list[Path]:
    """Files in ``folder`` and in the folders below it that a source looks into, relative to it.

    Links are followed, but not to a folder that they lie in; a link to nothing is a file, whose
    reader says so.

    Raises:
        DataError: a folder cannot be read.
    """
    return sorted(_files(folder, folder, ()))


def _files(folder: Path, root: Path, above: tuple[str, ...]) -> Iterator[Path]:
    above = (*above, os.path.realpath(folder))
    try:
        entries = sorted(folder.iterdir())
    except PermissionError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}).") from None
    for entry in entries:
        hidden = entry.name.startswith(".") or entry.name in SYSTEMS
        if entry.is_file() or (entry.is_symlink() and not entry.exists() and not hidden):
            yield entry.relative_to(root)
        elif len(above) <= DEPTH and entry.is_dir() and not hidden and not _leads_up(entry, above):
            yield from _files(entry, root, above)


def _leads_up(entry: Path, above: tuple[str, ...]) -> bool:
    """Whether a folder is a link to one of those ``above`` it."""
    return entry.is_symlink() and os.path.realpath(entry) in above


class _Zip(Source):
    def __init__(self, path: Path):
        self._archive = zipfile.ZipFile(path)
        infos = [info for info in self._archive.infolist() if not info.is_dir()]
        super().__init__(path, [info.filename for info in infos])

    def _open(self, member: str) -> BinaryIO:
        info = self._archive.getinfo(member)
        if info.flag_bits & 1:
            raise ValueError("it is encrypted")
        if info.compress_type not in (0, 8, 12, 14):
            raise ValueError(f"it is compressed by method {info.compress_type}, unknown to Python")
        check_size(info.file_size, info.compress_size)
        return cast(BinaryIO, _Whole(self._archive.open(info), info.file_size))

    def close(self) -> None:
        self._archive.close()


class _Tar(Source):
    def __init__(self, path: Path):
        _drain(path)
        self._archive = tarfile.open(path)  # noqa: SIM115  closed by close()
        names: list[str] = []
        last = -1
        for member in self._archive:
            if member.offset <= last or len(names) > MEMBERS:
                raise tarfile.ReadError("its members overlap")
            last = member.offset
            if not (member.isfile() or member.isdir()):
                check_member(member.linkname or "..", path)
            elif member.issparse() or not 0 <= member.size <= LARGEST:
                raise tarfile.ReadError(f"the size of {member.name!r} is not that of its bytes")
            if member.isfile():
                names.append(member.name)
        super().__init__(path, names)

    def _open(self, member: str) -> BinaryIO:
        info = self._archive.getmember(member)
        file = self._archive.extractfile(info)
        return io.BytesIO() if file is None else cast(BinaryIO, _Whole(file, info.size))

    def close(self) -> None:
        self._archive.close()


class _Whole(io.RawIOBase):
    """A member that must hold the number of bytes that its archive says: no fewer, no more."""

    def __init__(self, file: IO[bytes], size: int):
        self._file, self._size, self._read = file, size, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._size + 1 if size is None or size < 0 else size)
        self._read += len(data)
        ended = size is None or size < 0 or (size > 0 and not data)
        if self._read > self._size or (ended and self._read < self._size):
            raise EOFError(f"it has not the {self._size} bytes that it should")
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def check_size(size: int, packed: int) -> None:
    """Refuse what unpacks to far more than it is, or to more than any file of a data set.

    Raises:
        ValueError: with both sizes in bytes.
    """
    if size > LARGEST or (size > FREE and size > RATIO * max(packed, 1)):
        raise ValueError(f"it would unpack from {packed} to {size} bytes")


def unpacked(path: Path, largest: int = 2**30) -> bytes:
    """The content of a file, unpacked where it is compressed, read to its end.

    Raises:
        EOFError, OSError, zlib.error, lzma.LZMAError: it is damaged.
        ValueError: it unpacks to far more than it is, or to more than ``largest`` bytes.
    """
    with open(path, "rb") as file:
        head = file.read(6)
    opener: Any = next((o for magic, o in COMPRESSED.items() if head.startswith(magic)), open)
    pieces, size, packed = [], 0, path.stat().st_size
    with opener(path, "rb") as stream:
        while piece := stream.read(PIECE):
            size += len(piece)
            check_size(size, packed)
            if size > largest:
                raise ValueError(f"it unpacks to more than {largest} bytes")
            pieces.append(piece)
    return b"".join(pieces)


def _drain(path: Path) -> None:
    """Read a compressed tar to its end, where its checksum stands.

    Raises:
        EOFError, OSError, zlib.error, lzma.LZMAError: it is damaged.
        ValueError: it unpacks to far more than it is.
    """
    with open(path, "rb") as file:
        head = file.read(6)
    for magic, opener in COMPRESSED.items():
        if head.startswith(magic):
            packed, size = path.stat().st_size, 0
            with opener(path, "rb") as stream:
                while piece := stream.read(PIECE):
                    size += len(piece)
                    check_size(size, packed)


def check_member(name: str, archive: Path) -> None:
    """Refuse an archive member that would land outside the folder it is unpacked into.

    Raises:
        DataError: ``name`` is empty, absolute (on POSIX or Windows) or climbs by ``..``.
    """
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    climbs = ".." in posix.parts or ".." in windows.parts
    if not posix.name or "\0" in name:
        raise DataError(f"{archive} has a member without a name; get it from another source.")
    if posix.is_absolute() or windows.drive or windows.root or climbs:
        raise DataError(
            f"{archive} has a member {name!r} that points outside the archive; "
            "do not use this file, get it from another source."
        )


@contextmanager
def open_source(path: str | Path) -> Iterator[Source]:
    """Open a folder, a zip or a tar archive (plain, gz, bz2, xz).

    Raises:
        DataError: ``path`` does not exist, is not an archive, is damaged, or holds a hostile
            member.
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
            elif _is_tar(path):
                source = _Tar(path)
            else:
                raise DataError(f"{path} is neither a zip nor a tar archive; {_looks_like(path)}.")
        except PermissionError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}).") from None
        except DAMAGE as error:
            raise DataError(
                f"{path} is a damaged archive ({first_line(error)}); get it again."
            ) from None
    try:
        yield source
    finally:
        source.close()


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (EOFError, zlib.error, lzma.LZMAError, ValueError, MemoryError):
        return True  # a compressed file that breaks off: reading it says how


def _looks_like(path: Path) -> str:
    """What to do about a file that is no archive, from its first bytes."""
    with open(path, "rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, which servers send instead of a file: get it again"
    if head.startswith(b"pk"):
        return "it is a zip archive cut short: get it again"
    return "get it again"
