"""What the constructors that a pickle may name build here: plain arrays, checked, and no more."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from equiscape.errors import EquiscapeError
from equiscape.files.arrays import plain_dtype


class Refused(EquiscapeError):
    """The pickle holds something that is not a plain array or a builtin."""


@dataclass(frozen=True)
class Name:
    """A global that a pickle names: what it builds here."""

    name: str
    build: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Unbuilt:
    """An array before its state: a ``BUILD`` puts the array in its place."""


@dataclass(frozen=True)
class Storage:
    """A tensor's storage in torch's older format, before its bytes have been read."""

    key: str
    dtype: np.dtype
    numel: int


def refuse(reason: str) -> NoReturn:
    """Give up on a pickle for ``reason``."""
    raise Refused(reason)


def _integers(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(type(v) is int and v >= 0 for v in values):
        refuse(f"the {what} of an array is not a tuple of numbers")
    return values


def plain_array(shape: Any, dtype: Any, fortran: Any, data: Any) -> np.ndarray:
    """An array from its parts, all of them foreign."""
    if isinstance(data, str):  # Python 2 wrote bytes as text
        data = data.encode("latin-1")
    shape = _integers(shape, "shape")
    if not isinstance(dtype, np.dtype) or type(data) is not bytes or len(shape) > 8:
        refuse("an array without a plain type, shape and bytes")
    count = 1
    for length in shape:
        count *= length
    if count * dtype.itemsize != len(data):
        refuse(f"an array of shape {list(shape)} with {len(data)} bytes")
    array = np.frombuffer(data, dtype)
    return array.reshape(shape, order="F" if fortran is True or fortran == 1 else "C")


def _dtype(code: Any, *flags: Any) -> np.dtype:
    if not isinstance(code, str) or any(type(flag) not in (bool, int) for flag in flags):
        refuse("a type that is no plain number")
    return plain_dtype(code) or refuse(f"arrays of type {code[:20]!r}")


def typed(dtype: np.dtype, state: Any) -> np.dtype:
    """The type with the byte order of its state, which must hold nothing else."""
    plain = isinstance(state, tuple) and len(state) >= 8 and state[1] in ("<", ">", "|", "=")
    if not plain or state[2:5] != (None,) * 3 or state[5] not in (-1, dtype.itemsize):
        refuse("a type with fields")
    if state[7] != 0 or len(state) > 9 or (len(state) == 9 and state[8] is not None):
        refuse("a type with flags or metadata")
    return dtype if state[1] in "|=" else dtype.newbyteorder(state[1])


def _scalar(dtype: Any, data: Any) -> Any:
    return plain_array((), dtype, False, data).item()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return plain_array(shape, dtype, order == "F", data)


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        refuse("text in another encoding")
    return text.encode("latin-1")


def _no_bytes(*parts: Any) -> bytes:
    return b"" if not parts else refuse("bytes made from something else")


def _ordered(*pairs: Any) -> dict:
    return {} if not pairs else refuse("an OrderedDict that is not empty")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> np.ndarray:
    """A tensor as an array: a strided view of its storage, inside of it, copied."""
    size, stride = _integers(size, "size"), _integers(stride, "stride")
    if not isinstance(storage, np.ndarray) or storage.ndim != 1 or type(offset) is not int:
        refuse("a tensor without a storage")
    if len(size) != len(stride) or len(size) > 8:
        refuse("a tensor whose size and stride differ in length")
    count = int(np.prod([int(s) for s in size], dtype=object)) if size else 1
    last = offset + sum((s - 1) * t for s, t in zip(size, stride)) if count else offset
    if not 0 <= offset <= last <= len(storage) - (count > 0) or count > len(storage):
        refuse("a tensor that reaches beyond its storage")
    index = np.full((), offset, np.int64)
    for length, step in zip(size, stride):
        index = index[..., None] + np.arange(length, dtype=np.int64) * step
    return storage[index]


def _storage(data: Any) -> np.ndarray:
    """A storage in torch's format before 1.6: pickles one after another, then the bytes."""
    if type(data) is not bytes:
        refuse("a storage without bytes")
    from equiscape.files.pickles import Machine

    machine = Machine(data)
    parts = [machine.run() for _ in range(5)]
    where = machine.at
    magic, protocol, _, found, keys = parts
    if magic != 0x1950A86A20F9469CFC6C or protocol != 1001 or not isinstance(found, Storage):
        refuse("a storage in a format of its own")
    if keys != [found.key]:
        refuse("a storage with other keys")
    header = data[where : where + 8]
    size = found.numel * found.dtype.itemsize
    if len(header) != 8 or struct.unpack("<q", header)[0] != found.numel:
        refuse("a storage of another length")
    if len(data) != where + 8 + size:
        refuse("a storage that is cut short")
    return np.frombuffer(data, found.dtype, found.numel, where + 8)


def persistent(identity: Any) -> Storage:
    """The storage that a persistent id of ``torch.save`` names."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        refuse("a reference to something outside")
    _, kind, key, _, numel = identity[:5]
    dtype = STORAGES.get(kind.name) if isinstance(kind, Name) else None
    if dtype is None or not isinstance(key, str) or type(numel) is not int or numel < 0:
        refuse("a storage of another kind")
    return Storage(key, np.dtype(dtype), numel)


STORAGES = {
    f"torch.{kind}Storage": dtype
    for kind, dtype in {
        "Double": "<f8", "Float": "<f4", "Half": "<f2", "Long": "<i8", "Int": "<i4",
        "Short": "<i2", "Char": "<i1", "Byte": "<u1", "Bool": "?",
    }.items()
}  # fmt: skip
NDARRAY = Name("numpy.ndarray")
NAMES: dict[str, Callable[..., Any] | None] = {
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _frombuffer,
    "_codecs.encode": _encode,
    "builtins.bytes": _no_bytes,
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
    **dict.fromkeys(STORAGES),
}


def _reconstruct(kind: Any, shape: Any, code: Any) -> Unbuilt:
    if kind != NDARRAY or shape != (0,) or code not in (b"b", "b"):
        refuse("an object that is no array")
    return Unbuilt()


NAMES["numpy.core.multiarray._reconstruct"] = _reconstruct


def global_name(module: Any, name: Any) -> Name:
    """The stand-in for a global; any that is not an array's constructor is refused."""
    if not isinstance(module, str) or not isinstance(name, str):
        refuse("a global without a name")
    full = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
    full = full.replace("__builtin__.", "builtins.", 1)
    if full == NDARRAY.name:
        return NDARRAY
    if full not in NAMES:
        refuse(f"it names {module[:60]}.{name[:60]}")
    return Name(full, NAMES[full])
