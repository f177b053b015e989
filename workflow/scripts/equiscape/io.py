"""Files: atomic writes, JSON with provenance, checksums, checkpoints.

Nothing is ever half written: a file is made under a temporary name in its own folder, flushed to
the disk and renamed over its final name.
"""

import hashlib
import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equiscape.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("torch", "torch-geometric", "numpy", "scipy", "h5py", "pandas", "scikit-learn", "rdkit")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it there if the block succeeds.

    On an exception the temporary file is removed and ``path`` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp's 0600 would hide results from the group
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any:
    """Parse a JSON file.

    Raises:
        DataError: the file is absent or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run the rule that writes it first.") from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); delete it and rerun.") from None


def write_json(path: str | Path, data: Any) -> None:
    """Write ``data`` as strict JSON; non-finite floats become null, which JSON has no word for."""
    text = json.dumps(_finite(data), indent=2, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def _finite(data: Any) -> Any:
    """``data`` in JSON's own types, with NaN and infinities replaced by None."""
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if hasattr(data, "item"):  # numpy and torch scalars
        data = data.item()
    if isinstance(data, Path):
        return str(data)
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data


def write_csv(path: str | Path, frame: "pd.DataFrame") -> None:
    """Write a table without its index; floats keep all their digits."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settings_hash(settings: Any) -> str:
    """A short hash of JSON-like settings that does not depend on the order of their keys."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_checkpoint(path: str | Path, state: dict) -> None:
    """Save a nested dict of tensors and plain values; :mod:`equiscape.checkpoint` reads it."""
    import torch

    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def provenance(settings: Any, device: Any, seconds: float) -> dict:
    """What a result came from: versions, git revision, device, settings hash and wall seconds."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "revision": _revision(),
        "device": _device_name(device),
        "settings_hash": settings_hash(settings),
        "seconds": round(seconds, 3),
    }


@lru_cache
def _revision() -> str:
    """The git revision of the code, with ``+dirty`` where it has uncommitted changes."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+dirty"]
    try:
        run = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return run.stdout.strip() if run.returncode == 0 else "unknown"


def _device_name(device: Any) -> str:
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return str(device)
