"""ModelNet40's HDF5 layout (Qi et al. 2017), read with every check a damaged copy can fail.

A data set is ``ply_data_train*.h5`` and ``ply_data_test*.h5``, each with ``data [n, points, 3]``,
``label [n, 1]`` and perhaps ``group [n]`` (ids of near-duplicates) and ``normal`` (of the shape of
``data``), and ``shape_names.txt``, one class a line. ``train_files.txt`` and ``test_files.txt``,
where present, list the files, so that one which is missing is noticed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import h5py
import numpy as np

from equiscape.data.clouds import beside
from equiscape.errors import DataError
from equiscape.files.archives import Source
from equiscape.files.arrays import Malformed, decode, whole
from equiscape.files.hdf5 import ForeignFiles

SIDES = ("train", "test")
FILES = ("**/ply_data_*.h5", "**/shape_names.txt", "**/train_files.txt", "**/test_files.txt")
MESHES = (".off", ".ply", ".obj", ".stl", ".xyz", ".pcd")


@dataclass(frozen=True)
class Part:
    """The content of one file.

    Attributes:
        side: ``train`` or ``test``.
        file: its name.
        points: ``[n, points, 3]`` float32, or ``[n, points, 6]`` with unit normals.
        labels: ``[n]`` int64.
        groups: ``[n]`` int64 or None; only comparable within a side.
    """

    side: str
    file: str
    points: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None


def class_names(source: Source) -> list[str]:
    """The names of ``shape_names.txt``.

    Raises:
        DataError: the file is missing, empty, not text, or names a class twice; or the source is
            a folder of meshes.
    """
    if "shape_names.txt" not in source.names:
        meshes = [name for name in source.names if name.lower().endswith(MESHES)]
        if meshes:
            raise DataError(
                f"{source.path} holds {len(meshes)} files such as {meshes[0]}, not ModelNet40's "
                "HDF5 layout; give `kind: files` for meshes and clouds in files of their own."
            )
    names = [name.strip() for name in _text(source, "shape_names.txt") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"shape_names.txt in {source.path} is empty or names a class twice; "
            "get the complete data set."
        )
    return names


def _text(source: Source, name: str) -> list[str]:
    try:
        return decode(source.read(name)).split("\n")
    except Malformed as error:
        raise source.damaged(name, error) from None


def parts(source: Source, classes: int, normals: bool = False) -> Iterator[Part]:
    """The files of a data set, one after another: training files first, with ``normals`` or not.

    Raises:
        DataError: a file is missing, damaged, listed twice or not in the layout, a label is not
            below ``classes``, a coordinate is not finite, or a normal of no length 1; the message
            names the file.
    """
    listed = {side: files(source, side) for side in SIDES}
    both = sorted(set(listed["train"]) & set(listed["test"]))
    if both:
        raise DataError(
            f"{source.path} lists {both[0]} among its training and its test files; "
            "tests on training data mean nothing: correct train_files.txt and test_files.txt."
        )
    with ForeignFiles() as foreign:
        for side in SIDES:
            for name in listed[side]:
                yield _read(source, side, name, classes, foreign, normals)


def files(source: Source, side: str) -> list[str]:
    """Names of the files of one side, in order.

    Raises:
        DataError: there is none, or one is listed twice.
    """
    listing = f"{side}_files.txt"
    if listing in source.names:
        lines = _text(source, listing)
        found = [PureWindowsPath(line.strip()).name for line in lines if line.strip()]
    else:
        pattern = re.compile(rf"ply_data_{side}(\d+)\.h5")
        matches = [match for name in source.names if (match := pattern.fullmatch(name))]
        found = [match[0] for match in sorted(matches, key=lambda match: int(match[1]))]
    if not found:
        raise DataError(f"{source.path} holds no ply_data_{side}*.h5; get the complete data set.")
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise DataError(f"{listing} in {source.path} lists {twice} twice; keep one line of it.")
    return found


def _read(
    source: Source, side: str, name: str, classes: int, foreign: ForeignFiles, normals: bool
) -> Part:
    def refuse(reason: str) -> DataError:
        return DataError(f"{name} in {source.path} {reason}; get the file again.")

    try:
        arrays = foreign.read(source.read(name), ("data", "label"), ("group", "normal"))
    except Malformed as error:
        raise source.damaged(name, error) from None
    points, labels = arrays["data"], arrays["label"]
    if points.ndim != 3 or points.shape[2] != 3 or not points.size:
        raise refuse(f"has data of shape {list(points.shape)} instead of [clouds, points, 3]")
    for what, array in (("label", labels), ("group", arrays.get("group"))):
        if array is not None and array.size != len(points):
            raise refuse(f"has {len(points)} clouds but {array.size} entries of {what}")
    try:
        labels = whole(labels.ravel(), "labels")
        groups = whole(arrays["group"].ravel(), "groups") if "group" in arrays else None
    except Malformed as error:
        raise refuse(f"has a label or a group that is not a whole number: {error}") from None
    if labels.min() < 0 or labels.max() >= classes:
        bad = labels[(labels < 0) | (labels >= classes)][0]
        raise refuse(f"has the label {bad}, but shape_names.txt names {classes} classes")
    points = np.ascontiguousarray(points, dtype=np.float32)
    finite = np.isfinite(points).all(axis=(1, 2))
    if not finite.all():
        raise refuse(f"has {np.sum(~finite)} clouds with coordinates that are not finite")
    if normals:
        if "normal" not in arrays or arrays["normal"].shape != points.shape:
            raise DataError(
                f"{name} in {source.path} has no normals of its points; set `normals: false`, or "
                "get files with an array `normal`."
            )
        try:
            points = beside(points, arrays["normal"])
        except Malformed as error:
            raise refuse(f"has normals that are none: {error}") from None
    return Part(side, name, points, labels, groups)


def write(folder: Path, names: list[str], sides: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write a data set in this layout: ``sides`` maps train and test to (points, labels)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shape_names.txt").write_text("".join(f"{name}\n" for name in names))
    for side in SIDES:
        points, labels = sides[side]
        (folder / f"{side}_files.txt").write_text(f"ply_data_{side}0.h5\n")
        with h5py.File(folder / f"ply_data_{side}0.h5", "w", locking=False) as file:
            file["data"] = points.astype(np.float32)
            file["label"] = labels.astype(np.uint8 if len(names) <= 256 else np.int64)[:, None]
