"""Point clouds in ``.pcd`` files (format 0.7 of the Point Cloud Library), in text or binary."""

import re

import numpy as np

from equiscape.files.arrays import Malformed, load_text, plain_dtype

KINDS = {"F": "f", "I": "i", "U": "u"}


def read_pcd(data: bytes, normals: bool = False) -> np.ndarray:
    """The fields x, y and z of every point, ``[n, 3]`` float64, wherever they stand in a row.

    With ``normals`` also normal_x, normal_y and normal_z: ``[n, 6]``.

    Raises:
        Malformed: the header is damaged, lacks one of the three, or its rows are compressed; or
            the file does not hold the points that it counts.
    """
    found = re.search(rb"^DATA[ \t]+(\w+)[ \t]*\r?\n", data, re.MULTILINE)
    if found is None:
        raise Malformed("it is no .pcd file: it has no line DATA")
    head = {}
    for line in data[: found.start()].decode("latin-1").splitlines():
        key, *values = line.split("#")[0].split() or [""]
        head[key.upper()] = values
    try:
        names = [name.lower() for name in head["FIELDS"]]
        counts = [int(n) for n in head.get("COUNT", ["1"] * len(names))]
        number = int(head["POINTS"][0])
        sizes, kinds = head["SIZE"], [KINDS[kind.upper()] for kind in head["TYPE"]]
        columns = [(f"{kind}{size}", n) for kind, size, n in zip(kinds, sizes, counts, strict=True)]
        wanted = ["x", "y", "z", *(f"normal_{axis}" for axis in "xyz" if normals)]
        if normals and not set(wanted[3:]) <= set(names):
            raise Malformed("it has no normals")
        axes = [names.index(axis) for axis in wanted]
    except (KeyError, ValueError, IndexError):
        raise Malformed("its header does not describe the fields x, y and z") from None
    plain = all(plain_dtype(f"<{code}") is not None for code, _ in columns)
    if not plain or min(counts) < 1 or any(counts[axis] != 1 for axis in axes) or number < 0:
        raise Malformed("its header has a field of an unknown type or count")
    if len(columns) != len(names):
        raise Malformed("its header does not describe the fields x, y and z")
    rows, starts = data[found.end() :], np.cumsum([0, *counts])
    if found[1] == b"ascii":
        points = load_text(rows, "its rows", int(starts[max(axes)]) + 1)[:, starts[axes]]
        if len(points) != number:
            raise Malformed(f"it has {len(points)} points instead of the {number} that it counts")
        return points
    if found[1] != b"binary":
        raise Malformed(f"its rows are {found[1].decode()}; save it with DATA binary or DATA ascii")
    row = np.dtype([(str(i), f"<{code}", (n,)) for i, (code, n) in enumerate(columns)])
    if len(rows) < number * row.itemsize:
        raise Malformed(f"it holds {len(rows)} bytes instead of {number * row.itemsize}")
    table = np.frombuffer(rows, row, number)
    return np.concatenate([table[str(axis)].astype(np.float64) for axis in axes], axis=1)
