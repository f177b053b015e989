"""Data sets: one file a kind, each with ``prepare`` and ``load`` (see :mod:`equiscape.data.base`).

``prepare(entry, source, output)`` writes one prepared HDF5 file from the ``datasets`` entry of the
configuration and its source, and its record beside it; ``load(path, device, entry)`` reads that
file into a :class:`~equiscape.data.base.Dataset` that is resident on a device.

A kind's module also declares, read from its source so that nothing heavy is imported:

``VERSION``   raised where the meaning of its prepared file changes: it is prepared anew, and
              nothing else
``EMBEDDED``  whether it needs no source
``LOADER``    settings that only loading depends on
``FILES``     patterns of the files that it reads, relative to a source folder (``**`` for any
              folders): what else lies there changes nothing
"""

import ast
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any

KINDS = {
    "pointcloud": "equiscape.data.pointcloud",
    "procedural": "equiscape.data.procedural",
    "qm9": "equiscape.data.qm9",
    "zinc": "equiscape.data.zinc",
    "peptides-func": "equiscape.data.peptides",
    "molecules-generated": "equiscape.data.generated_molecules",
    "teacher": "equiscape.data.teacher",
}
CORRUPTED_VERSION = 2
CORRUPTED_FILES = ("**/data_*_[1-5].npy", "**/label.npy")


def declared(kind: str, name: str, default: Any) -> Any:
    """What the module of a ``kind`` says of ``VERSION``, ``EMBEDDED``, ``LOADER`` or ``FILES``."""
    return _constants(KINDS.get(kind, kind)).get(name, default)


def reads(patterns: Iterable[str], file: PurePath) -> bool:
    """Whether a ``file``, relative to its source, is one that a kind with ``FILES`` reads."""
    return any(file.match(pattern.removeprefix("**/")) for pattern in patterns)


@lru_cache
def _constants(target: str) -> dict[str, Any]:
    """Literal values of the module's (or class's) own names, read without importing it."""
    module, _, attribute = target.partition(":")
    package, _, inside = module.partition(".")
    if package == "equiscape":
        path = Path(__file__).parents[1].joinpath(*inside.split(".")).with_suffix(".py")
    else:
        spec = find_spec(module)
        if spec is None or not spec.origin:
            return {}
        path = Path(spec.origin)
    body = ast.parse(path.read_text(encoding="utf-8")).body
    if attribute:
        body = next(
            (n.body for n in body if isinstance(n, ast.ClassDef) and n.name == attribute), []
        )
    found = {}
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


VERSIONS = {kind: declared(kind, "VERSION", 1) for kind in KINDS}
