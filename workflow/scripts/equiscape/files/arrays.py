"""numpy's ``.npy`` and ``.npz`` files, and delimited text, with every length checked first."""

import ast
import io
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from equiscape.errors import DataError, EquiscapeError
from equiscape.files.archives import open_source

HEADER = 10_000  # bytes of the header of an .npy file
CODE = re.compile(r"[<>|=]?(?:[?]|b1|[iu][1248]|f[248]|[US][0-9]{1,4})")
PYTHON2 = re.compile(rb"(\d)L\b")


class Malformed(EquiscapeError):
    """The bytes are not what the format says."""


def plain_dtype(code: str, *, text: bool = False) -> np.dtype | None:
    """The type that ``code`` spells: whole or floating numbers and booleans (and text); else None.

    Types with fields, objects, dates and types of unknown size are None.
    """
    if not CODE.fullmatch(code) or (code.lstrip("<>|=")[0] in "US" and not text):
        return None
    return np.dtype(code)


def npy(data: bytes) -> np.ndarray:
    """The array of an ``.npy`` file.

    Raises:
        Malformed: its header is not one, its type is not plain, or its length is not what shape
            and type make it.
    """
    if data[:6] != b"\x93NUMPY" or len(data) < 12:
        raise Malformed("it is no .npy file")
    wide = data[6] >= 2
    (length,) = struct.unpack_from("<I" if wide else "<H", data, 8)
    start = 12 if wide else 10
    if data[6] not in (1, 2, 3) or length > HEADER or start + length > len(data):
        raise Malformed("its header has a wrong length")
    try:
        text = PYTHON2.sub(rb"\1", data[start : start + length]).decode("latin-1")
        header = ast.literal_eval(text.strip())
        code, order, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        raise Malformed("its header cannot be read") from None
    dtype = plain_dtype(code, text=True) if isinstance(code, str) else None
    if dtype is None:
        raise Malformed(f"it holds {str(code)[:40]!r} instead of plain numbers")
    whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or len(shape) > 8 or type(order) is not bool or set(header) - set(NPY_KEYS):
        raise Malformed("its header cannot be read")
    count = 1
    for n in shape:
        count *= n
    if count * dtype.itemsize != len(data) - start - length:
        raise Malformed(
            f"it holds {len(data) - start - length} bytes instead of the "
            f"{count * dtype.itemsize} of its shape"
        )
    if not count or not dtype.itemsize:
        try:
            return np.empty(shape, dtype)
        except ValueError:
            raise Malformed("its shape is too large") from None
    array = np.frombuffer(data, dtype, count, start + length)
    if dtype.kind == "U" and array.view(f"{dtype.str[0]}u4").max(initial=0) > 0x10FFFF:
        raise Malformed("its text is not Unicode")
    return array.reshape(shape, order="F" if order else "C")


NPY_KEYS = ("descr", "fortran_order", "shape")


def read_npy(file: BinaryIO | bytes, size: int | None = None) -> np.ndarray:
    """:func:`npy` of an open file, of which at most ``size`` bytes are read."""
    return npy(file if isinstance(file, bytes) else file.read(-1 if size is None else size))


def load_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file, never unpickled; their checksums are compared.

    Raises:
        DataError: the file is damaged or lacks one.
    """
    arrays = {}
    with open_source(path) as source:
        for name in names:
            member = f"{name}.npy"
            if member not in source.names:
                raise DataError(f"{path} has no array {name!r}; give the file as published.")
            try:
                arrays[name] = npy(source.read(member))
            except Malformed as error:
                raise source.damaged(member, error) from None
    return arrays


def load_text(data: bytes, what: str, columns: int) -> np.ndarray:
    """Rows of at least ``columns`` numbers, split by blanks or commas: the first ``columns``.

    Lines that start with ``#`` or ``//``, and empty ones, are left out.

    Raises:
        Malformed: a row has fewer numbers, or something else.
    """
    rows = []
    for number, line in enumerate(decode(data).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith(("#", "//")):
            continue
        try:
            row = [float(part) for part in re.split(r"[\s,;]+", line)[:columns]]
        except ValueError:
            raise Malformed(f"line {number} of {what} is not a row of numbers") from None
        if len(row) < columns:
            raise Malformed(f"line {number} of {what} has {len(row)} numbers, not {columns}")
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(-1, columns)


def decode(data: bytes) -> str:
    """Text in UTF-8, with or without a byte order mark.

    Raises:
        Malformed: it is in another encoding.
    """
    try:
        return io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=None).read()
    except UnicodeDecodeError as error:
        raise Malformed(f"it is not UTF-8 text (byte {error.start})") from None


def whole(
    array: np.ndarray, what: str, low: int | None = None, high: int | None = None
) -> np.ndarray:
    """``array`` as int64, where it holds whole numbers from ``low`` to ``high`` (both included).

    Raises:
        Malformed: it does not; the message names ``what``, the value and its place.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "iufb" or (array.dtype.kind == "f" and array.dtype.itemsize > 8):
        raise Malformed(f"{what} are of type {array.dtype}, not whole numbers")
    if array.dtype.kind == "f":
        bad = ~(np.isfinite(array) & (array == np.floor(array)) & (np.abs(array) < 2**53))
    else:
        bad = array > np.iinfo(np.int64).max if array.dtype == np.uint64 else np.zeros(1, bool)
    if not bad.any():
        converted = array.astype(np.int64)
        bad = np.zeros(converted.shape, bool)
        if low is not None:
            bad |= converted < low
        if high is not None:
            bad |= converted > high
        if not bad.any():
            return converted
        limits = (
            f"from {low if low is not None else '...'} to {high if high is not None else '...'}"
        )
    else:
        limits = "whole numbers"
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    where = place[0] if len(place) == 1 else list(place)
    raise Malformed(f"{what} are not {limits} ({array[place]} at {where})")
