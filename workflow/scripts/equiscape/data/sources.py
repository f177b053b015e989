"""Reading third-party molecular files: checksums of several files, and pickles without code.

A pickle may name any Python function and call it while it is read. The ones that public data sets
are stored as hold arrays only, so :func:`load_pickle` knows the few constructors of arrays and
refuses every other name before anything is called.
"""

import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from equiscape.errors import DataError, first_line
from equiscape.io import sha256

RECONSTRUCT = np.empty(0).__reduce__()[0]  # numpy's own constructor, wherever this version has it


def require(folder: Path, names: Iterable[str], what: str) -> list[Path]:
    """The paths of files in ``folder``.

    Raises:
        DataError: one is absent.
    """
    paths = [folder / name for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{folder} lacks {', '.join(missing)} of {what}; give a complete source.")
    return paths


def checksum(paths: Iterable[Path]) -> str:
    """One SHA-256 for several files, from theirs in order; of a single file, its own."""
    sums = [sha256(path) for path in paths]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def load_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file, never unpickled.

    Raises:
        DataError: the file is damaged or lacks one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except KeyError as error:
        raise DataError(f"{path} has no array {error}; give the file as published.") from None
    except Exception as error:
        reason = first_line(error)
        raise DataError(f"{path} is damaged ({reason}); fetch it again.") from None


def _tensor_storage(data: bytes) -> Any:
    """A tensor's storage from its own nested format, again without code."""
    import torch

    return torch.load(io.BytesIO(data), weights_only=True)


class _ArrayUnpickler(pickle.Unpickler):
    """Knows the constructors of numpy arrays and torch tensors, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return RECONSTRUCT
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            from torch._utils import _rebuild_tensor_v2

            return _rebuild_tensor_v2
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _tensor_storage
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def load_pickle(path: Path) -> Any:
    """Nested builtins, numpy arrays and torch tensors from a pickle; nothing else is ever called.

    Raises:
        DataError: the file is damaged, or names anything but those.
    """
    try:
        with open(path, "rb") as file:
            return _ArrayUnpickler(file).load()
    except Exception as error:
        reason = first_line(error)
        raise DataError(
            f"{path} is not a pickle of plain arrays ({reason}); fetch the published file."
        ) from None
