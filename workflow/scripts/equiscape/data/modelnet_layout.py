"""ModelNet40's HDF5 layout (Qi et al. 2017), read with every check a damaged copy can fail.

A data set is ``ply_data_train*.h5`` and ``ply_data_test*.h5``, each with ``data [n, points, 3]``,
``label [n, 1]`` and perhaps ``group [n]`` (ids of near-duplicates), and ``shape_names.txt``, one
class a line. ``train_files.txt`` and ``test_files.txt``, where present, list the files, so that
one which is missing is noticed.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from equiscape.data.archives import DAMAGE, Source
from equiscape.errors import DataError

SIDES = ("train", "test")


@dataclass(frozen=True)
class Part:
    """The content of one file.

    Attributes:
        side: ``train`` or ``test``.
        file: its name.
        points: ``[n, points, 3]`` float32.
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
        DataError: the file is missing, empty, not text, or names a class twice.
    """
    try:
        names = source.read("shape_names.txt").decode().split("\n")
    except UnicodeDecodeError as error:
        raise source.damaged("shape_names.txt", error) from None
    names = [name.strip() for name in names if name.strip()]
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"shape_names.txt in {source.path} is empty or names a class twice; "
            "get the complete data set."
        )
    return names


def parts(source: Source, classes: int) -> Iterator[Part]:
    """The files of a data set, one after another: training files first.

    Raises:
        DataError: a file is missing, damaged or not in the layout, a label is not below
            ``classes``, or a coordinate is not finite; the message names the file.
    """
    for side in SIDES:
        for name in files(source, side):
            yield _read(source, side, name, classes)


def files(source: Source, side: str) -> list[str]:
    """Names of the files of one side, in order.

    Raises:
        DataError: there is none.
    """
    listing = f"{side}_files.txt"
    if listing in source.names:
        lines = source.read(listing).decode(errors="replace").split("\n")
        found = [PurePosixPath(line.strip()).name for line in lines if line.strip()]
    else:
        pattern = re.compile(rf"ply_data_{side}(\d+)\.h5")
        matches = [match for name in source.names if (match := pattern.fullmatch(name))]
        found = [match[0] for match in sorted(matches, key=lambda match: int(match[1]))]
    if not found:
        raise DataError(f"{source.path} holds no ply_data_{side}*.h5; get the complete data set.")
    return found


def _read(source: Source, side: str, name: str, classes: int) -> Part:
    raw = source.read(name)
    try:
        with h5py.File(io.BytesIO(raw), "r") as file:
            points, labels = file["data"][()], file["label"][()]
            groups = file["group"][()].astype(np.int64).ravel() if "group" in file else None
    except (*DAMAGE, KeyError, RuntimeError) as error:  # h5py raises each of them on damage
        raise source.damaged(name, error) from None
    labels = labels.astype(np.int64).ravel()

    def refuse(reason: str) -> DataError:
        return DataError(f"{name} in {source.path} {reason}; get the file again.")

    if points.ndim != 3 or points.shape[2] != 3 or not len(points):
        raise refuse(f"has data of shape {list(points.shape)} instead of [clouds, points, 3]")
    for what, array in (("label", labels), ("group", groups)):
        if array is not None and len(array) != len(points):
            raise refuse(f"has {len(points)} clouds but {len(array)} entries of {what}")
    if labels.min() < 0 or labels.max() >= classes:
        bad = labels[(labels < 0) | (labels >= classes)][0]
        raise refuse(f"has the label {bad}, but shape_names.txt names {classes} classes")
    points = np.ascontiguousarray(points, dtype=np.float32)
    finite = np.isfinite(points).all(axis=(1, 2))
    if not finite.all():
        raise refuse(f"has {np.sum(~finite)} clouds with coordinates that are not finite")
    return Part(side, name, points, labels, groups)


def write(folder: Path, names: list[str], sides: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write a data set in this layout: ``sides`` maps train and test to (points, labels)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shape_names.txt").write_text("".join(f"{name}\n" for name in names))
    for side in SIDES:
        points, labels = sides[side]
        (folder / f"{side}_files.txt").write_text(f"ply_data_{side}0.h5\n")
        with h5py.File(folder / f"ply_data_{side}0.h5", "w") as file:
            file["data"] = points.astype(np.float32)
            file["label"] = labels.astype(np.uint8 if len(names) <= 256 else np.int64)[:, None]
