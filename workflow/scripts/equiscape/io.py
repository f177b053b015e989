"""Files: atomic writes, JSON with provenance, checksums, checkpoints.

Nothing is ever half written: a file is made under a temporary name in its own folder, flushed to
the disk and renamed over its final name.
"""

import csv
import fcntl
import glob
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equiscape.errors import DataError
from equiscape.table import Table

if TYPE_CHECKING:
    import pandas as pd

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
DAY = 86_400  # seconds
LARGEST_JSON = 2**28  # bytes
PACKAGES = ("torch", "torch-geometric", "numpy", "scipy", "h5py", "pandas", "scikit-learn", "rdkit")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it there if the block succeeds.

    On an exception the temporary file is removed and ``path`` is left as it was. What a killed
    process left of the same file is removed first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        _sweep(left)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    with suppress(OSError):  # some file systems have no locks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        os.close(handle)


def _sweep(left: Path) -> None:
    """Remove a temporary file that no living process holds; a day old, where locks are unknown."""
    with suppress(OSError):
        handle = os.open(left, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
        except BlockingIOError:
            pass
        except OSError:
            if time.time() - os.fstat(handle).st_mtime > DAY:
                left.unlink()
        finally:
            os.close(handle)


def read_json(path: str | Path, schema: str) -> Any:
    """Parse a JSON file, in UTF-8 with or without a byte order mark.

    Args:
        path: of the file.
        schema: the name in ``workflow/schemas`` (``"metrics"``) of what it has to fit; a reader
            that takes anything would trip over a damaged or foreign file later, and elsewhere.

    Raises:
        DataError: the file is absent, cannot be read, is not strict JSON, or does not fit.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST_JSON + 1)
        if len(raw) > LARGEST_JSON:
            raise ValueError(f"it is larger than {LARGEST_JSON} bytes")
        data = json.loads(
            raw.decode("utf-8-sig"), parse_constant=_no_constant, parse_float=_finite_float
        )
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run the rule that writes it first.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); {_remedy(schema)}.") from None
    return fitting(path, data, schema)


def fitting(path: str | Path, data: Any, schema: str) -> Any:
    """``data`` of the file in ``path``, which fit a schema of ``workflow/schemas``.

    Raises:
        DataError: they do not; names the file, the place and the remedy.
    """
    fault = misfit(data, schema)
    if fault is not None:
        raise DataError(f"{path} does not fit {schema}.schema.yaml ({fault}); {_remedy(schema)}.")
    return data


def _remedy(schema: str) -> str:
    rule = _validator(schema).schema.get("x-rule", "and its rule")
    return f"make it again with --forcerun {rule}"


def misfit(data: Any, schema: str) -> str | None:
    """Where and why ``data`` do not fit a schema of ``workflow/schemas``; None where they do."""
    fault = next(iter(_validator(schema).iter_errors(data)), None)
    if fault is None:
        return None
    where = ".".join(map(str, fault.absolute_path)) or "the file"
    reason = fault.message  # it begins with the value, which may be the whole file
    return f"{where}: {reason if len(reason) <= 200 else '... ' + reason[-190:]}"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _finite_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_constant(text)


@lru_cache
def _validator(schema: str) -> Any:
    import yaml
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    def load(name: str) -> Any:
        return yaml.safe_load((SCHEMAS / name).read_text(encoding="utf-8"))

    shared = "analysis.schema.yaml"  # which those of single analyses build on
    registry: Registry = Registry().with_resource(shared, Resource.from_contents(load(shared)))
    return Draft202012Validator(load(f"{schema}.schema.yaml"), registry=registry)


def write_json(path: str | Path, data: Any) -> None:
    """Write ``data`` as strict JSON; NaN and infinity become null, since JSON has neither."""
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


def write_csv(path: str | Path, table: "Table | pd.DataFrame") -> None:
    """Write a table without an index; floats keep all their digits, NaN and None are empty."""
    with atomic_path(path) as temporary:
        if not isinstance(table, Table):
            table.to_csv(temporary, index=False)
            return
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.columns)
            writer.writerows(map(_cell, row) for row in table.rows)


def _cell(value: Any) -> Any:
    """``value`` as pandas would write it."""
    if hasattr(value, "item"):  # numpy and torch scalars
        value = value.item()
    return "" if isinstance(value, float) and math.isnan(value) else value


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settings_hash(settings: Any) -> str:
    """A short hash of JSON-like settings that does not depend on the order of their keys."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_hash(*modules: str) -> str:
    """A hash of this library's source, and of the files of ``modules`` beyond it."""
    paths = sorted(Path(__file__).resolve().parent.rglob("*.py"))
    for module in modules:
        file = getattr(sys.modules.get(module), "__file__", None)
        paths += [Path(file)] if file else []
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def save_checkpoint(path: str | Path, state: dict) -> None:
    """Save a nested dict of tensors and plain values; :mod:`equiscape.checkpoint` reads it.

    The same values give the same bytes, whether a training was interrupted or not: torch would
    write the name of the file, and which equal strings were one object.
    """
    import torch

    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(_canonical(state), file)


def _canonical(value: Any) -> Any:
    """``value`` rebuilt: equal strings are one object, each tensor has its own storage."""
    if isinstance(value, dict):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_canonical, value))
    if isinstance(value, str):
        return sys.intern(str(value))
    return value.detach().clone() if hasattr(value, "detach") else value


def write_npz(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write numpy arrays by name, compressed; the same arrays give the same bytes."""
    import numpy as np

    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


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
    """The git revision of the code, with ``+dirty`` where it has uncommitted changes.

    Only of the workflow's own repository: an unpacked source archive, or an installed library,
    inside another one is ``unknown``.
    """
    folder = Path(__file__).resolve().parent
    top = _git(["rev-parse", "--show-toplevel"], folder)
    if top is None or Path(top).resolve() != folder.parents[2]:
        return "unknown"
    command = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+dirty"]
    return _git(command, folder) or "unknown"


def _git(arguments: list[str], folder: Path) -> str | None:
    """What git answers in ``folder``; None where it cannot."""
    try:
        run = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def _device_name(device: Any) -> str:
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return str(device)
