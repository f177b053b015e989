"""Labeled point clouds: any data set in ModelNet40's HDF5 layout, prepared and loaded.

Preparation reads a folder or an archive, checks all of it, holds out a validation split and
writes one HDF5 file: ``points [n, P, 3]`` float32, ``labels [n]``, ``class_names``, ``group [n]``,
``copy [n]`` (equal for exact copies) and ``split/{train,validation,test}`` (indices), with the
source's checksum and the version of this preparation as attributes. Its record lies beside it.
"""

import hashlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import torch
from torch import Tensor

from equiscape import io
from equiscape.data import duplicates, modelnet_layout
from equiscape.data.augment_clouds import augment_points, random_subsets
from equiscape.data.base import Batch, Dataset, Split
from equiscape.data.clouds import CloudSettings, unit_sphere
from equiscape.data.modelnet_layout import Part
from equiscape.data.splits import hold_out
from equiscape.errors import ConfigError, DataError
from equiscape.files import products
from equiscape.files.archives import Source, open_source
from equiscape.files.hdf5 import put, reading, writing
from equiscape.objectives import Classification
from equiscape.ops.chunks import upload

VERSION = 2
LOADER = ("points", "sample_points")
FILES = ("**/ply_data_*.h5", "**/shape_names.txt", "**/train_files.txt", "**/test_files.txt")
FORMAT = "equiscape-pointcloud-1"
SPLITS = ("train", "validation", "test")
WRITTEN_AT_ONCE = 32  # clouds in a chunk of the file


ARGUMENTS = ("num_outputs",)  # what the data dictates to a network
INPUTS = ("points",)  # of its forward
SAMPLES = "clouds"
LEARNS = "classes"
TARGETS: tuple[str, ...] = ()  # what a task may choose from
EXPECT = ("train", "test", "classes")
CORRUPTIBLE = True
AUGMENTATION = "equiscape.data.augment_clouds:Augmentation"
OVERRIDES = ("points", "sample_points")


@dataclass(frozen=True)
class Settings(CloudSettings):
    """Settings of a data set of this kind.

    Attributes:
        normals: give networks the unit normal of every point too (``normal`` in the files).
    """

    normals: bool = False


def prepare(entry: dict[str, Any], source: Path | None, output: Path) -> None:
    """Read, check and write a point-cloud data set.

    Args:
        entry: of ``datasets`` in the configuration. Used here: ``expect`` (numbers of ``train``
            and ``test`` clouds and of ``classes``), ``sha256`` (of an archive) and what
            :func:`write_clouds` takes.
        source: a folder, zip or tar archive in ModelNet40's layout.
        output: the prepared file; written atomically, its record after it.

    Raises:
        DataError: the source is missing, damaged, not what ``expect`` and ``sha256`` say, or has a
            cloud in two splits.
        ConfigError: ``validation`` cannot be held out of this data set.
    """
    if source is None:
        raise ConfigError(f"datasets.{Path(output).stem}.source is missing; name an archive.")
    source = Path(source)
    with open_source(source) as opened:
        names = modelnet_layout.class_names(opened)
        checksum = source_sha256(opened)
        wanted = (entry.get("sha256") or "").removeprefix("sha256:")
        if source.is_file() and wanted and ":" not in wanted and checksum != wanted.lower():
            raise DataError(f"{source} has SHA-256 {checksum} instead of {wanted}; get it again.")
        parts = modelnet_layout.parts(opened, len(names), bool(entry.get("normals")))
        write_clouds(entry, source, names, parts, output, checksum)


def write_clouds(
    entry: dict[str, Any],
    source: Path,
    names: list[str],
    parts: Iterable[Part],
    output: Path,
    checksum: str,
    version: int = VERSION,
) -> None:
    """Write labeled clouds with a validation split: what every kind of clouds ends in.

    Args:
        entry: ``normalize``, ``validation`` (default 0.1), ``validation_minimum`` (0), ``seed``
            (0), ``duplicates`` (``refuse``, ``group`` or ``keep``) and ``expect``.
        source: for messages.
        names: of the classes.
        parts: training clouds, then test clouds.
        output: the prepared file.
        checksum: of the source.
        version: of the kind's preparation.

    Raises:
        DataError: a cloud is in two splits, or the counts are not the expected ones.
        ConfigError: ``validation`` cannot be held out of this data set.
    """
    chosen = duplicates.policy(entry)
    with writing(output) as file:
        labels, groups, test, copies, places = _copy(source, parts, file, entry.get("normalize"))
        _check_expected(source, entry.get("expect") or {}, len(names), test)
        training = np.flatnonzero(~test)
        kept, together = training, groups
        if chosen == "group":
            kept = training[~np.isin(copies[training], copies[test])]
            together = duplicates.joined(groups, copies)
        train, validation = hold_out(
            labels[kept],
            None if together is None else together[kept],
            entry.get("validation", 0.1),
            entry.get("seed", 0),
            entry.get("validation_minimum") or 0,
            names,
        )
        splits = dict(zip(SPLITS, (kept[train], kept[validation], np.flatnonzero(test))))
        counts = duplicates.check(splits, copies, chosen, source, _place(places), labels)
        counts["left_out"] = len(training) - len(kept)
        put(file, "labels", labels)
        put(file, "group", np.arange(len(labels)) if together is None else together)
        put(file, "copy", copies)
        file["class_names"] = np.array(names, dtype=h5py.string_dtype())
        for split, samples in splits.items():
            put(file, f"split/{split}", samples)
        file.attrs["format"] = FORMAT
        file.attrs["name"] = Path(output).stem
        file.attrs["source_sha256"] = checksum
        file.attrs["preparation_version"] = version
        file.attrs["duplicates"] = counts["copies"]
    products.sign(
        output,
        format=FORMAT,
        preparation_version=version,
        samples={split: len(samples) for split, samples in splits.items()},
        duplicates=counts,
    )


def source_sha256(source: Source) -> str:
    """SHA-256 of an archive; of a folder, over the names and bytes of the files it is read from."""
    if source.path.is_file():
        return io.sha256(source.path)
    names = [file for side in modelnet_layout.SIDES for file in modelnet_layout.files(source, side)]
    digest = hashlib.sha256()
    for name in ["shape_names.txt", *names]:
        with source.open(name) as file:
            digest.update(
                f"{name} {hashlib.file_digest(cast(Any, file), 'sha256').hexdigest()}\n".encode()
            )
    return digest.hexdigest()


Copied = tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray, list[tuple[str, int]]]


def _copy(source: Path, parts: Iterable[Part], file: h5py.File, normalize: bool | None) -> Copied:
    """Copy the points, part by part.

    Returns:
        labels, groups (or None), which are test clouds, the same number for exact copies, and each
        part's name and first cloud.
    """
    points, labels, groups, test, digests, places = None, [], [], [], [], []
    for part in parts:
        clouds = unit_sphere(part.points) if normalize else part.points
        if points is None:
            shape = clouds.shape[1:]
            points = file.create_dataset(
                "points",
                (0, *shape),
                np.float32,
                maxshape=(None, *shape),
                chunks=(WRITTEN_AT_ONCE, *shape),
                fletcher32=True,
            )
        if clouds.shape[1:] != points.shape[1:]:
            raise DataError(
                f"{part.file} in {source} has {clouds.shape[1]} points a cloud and the files "
                f"before it {points.shape[1]}; get the complete data set."
            )
        start = len(points)
        points.resize(start + len(clouds), axis=0)
        points[start:] = clouds
        places.append((part.file, start))
        digests += [duplicates.fingerprint(cloud) for cloud in part.points]
        labels.append(part.labels)
        groups.append(part.groups)
        test.append(np.full(len(clouds), part.side == "test"))
    if points is None:
        raise DataError(f"{source} holds no clouds; get the complete data set.")
    is_test, copies = np.concatenate(test), duplicates.numbered(digests)
    known = [group for group in groups if group is not None]
    if len(known) < len(groups):
        return np.concatenate(labels), None, is_test, copies, places
    # Each side may count its groups from zero, so equal ids of train and test mean nothing.
    pairs = np.stack([is_test.astype(np.int64), np.concatenate(known)], axis=1)
    _, renumbered = np.unique(pairs, axis=0, return_inverse=True)
    renumbered = renumbered.reshape(-1).astype(np.int64)
    return np.concatenate(labels), renumbered, is_test, copies, places


def _place(places: list[tuple[str, int]]) -> Any:
    """A function that says in which part a cloud is."""
    starts = np.array([start for _, start in places])

    def name(cloud: int) -> str:
        part = int(np.searchsorted(starts, cloud, side="right")) - 1
        return f"cloud {cloud - starts[part]} of {places[part][0]}"

    return name


def _check_expected(source: Path, expect: dict, classes: int, test: np.ndarray) -> None:
    found = {"train": int(np.sum(~test)), "test": int(np.sum(test)), "classes": classes}
    for what, count in expect.items():
        if what not in found:
            raise ConfigError(f"expect: {what!r} is unknown; known are: {', '.join(found)}.")
        if found[what] != count:
            raise DataError(
                f"{source} holds {found[what]} {what}{'' if what == 'classes' else ' clouds'} "
                f"instead of {count}; get the complete data set."
            )


@dataclass(frozen=True)
class CloudBatch(Batch):
    """A batch of clouds that also knows all their points, for drawing other ones.

    ``inputs`` is ``(points [B, N, C],)``; ``every_point`` is ``[B, P, C]``, or None where the
    points of a cloud are always its first N.
    """

    every_point: Tensor | None = None


class PointClouds(Dataset):
    """Point clouds with one label each, resident on a device.

    Args:
        points: of each split, ``[n, P, 3]``, or ``[n, P, 6]`` with normals.
        labels: of each split, ``[n]`` int64.
        class_names: one a class.
        number: N, how many points of a cloud a network sees: the first N, or, if
            ``sample_points``, N others for each training batch.
    """

    def __init__(
        self,
        points: dict[str, Tensor],
        labels: dict[str, Tensor],
        class_names: list[str],
        number: int | None = None,
        sample_points: bool = False,
    ):
        self.points, self.labels, self.class_names = points, labels, class_names
        self.number = points["train"].shape[1] if number is None else number
        self.sample_points = sample_points
        self.objective = Classification()

    def model_arguments(self) -> dict[str, Any]:
        """``num_outputs``, the number of classes, and ``normals`` where there are some."""
        normals = {"normals": True} if self.points["train"].shape[2] > 3 else {}
        return {"num_outputs": len(self.class_names), **normals}

    def outputs(self) -> dict[str, Any]:
        """The names of the classes."""
        return {**super().outputs(), "class_names": list(self.class_names)}

    def size(self, split: Split) -> int:
        """The number of clouds in ``split``."""
        return len(self.labels[split])

    def gather(self, split: Split, indices: Tensor) -> Batch:
        """Clouds ``[B, N, C]`` and labels ``[B]``."""
        labels, rows = self.labels[split], indices
        indices = upload(indices, labels.device)
        every = self.points[split][indices]
        return CloudBatch(
            inputs=(every[:, : self.number],),
            target=labels[indices],
            size=len(indices),
            rows=(split, rows, indices),
            every_point=every if self.sample_points and split == "train" else None,
        )

    def augment(self, batch: Batch, settings: dict[str, Any], generator: torch.Generator) -> Batch:
        """Redraw the points where ``sample_points``, then transform them."""
        (points,) = batch.inputs
        every = getattr(batch, "every_point", None)
        if every is None and not any(value is not None for value in settings.values()):
            return batch
        if every is not None:
            points = random_subsets(every, self.number, generator)
        return Batch((augment_points(points, settings, generator),), batch.target, batch.size)


def load(path: Path, device: torch.device | str, entry: dict[str, Any]) -> PointClouds:
    """Load a prepared file onto ``device``.

    Args:
        path: what :func:`prepare` wrote.
        device: where the clouds stay.
        entry: of the data set, a task's ``data`` on top. Used here: ``points`` (default all) and
            ``sample_points``.

    Raises:
        DataError: the file is missing, damaged or of another format.
        ConfigError: ``points`` is more than a cloud has.
    """
    sample = bool(entry.get("sample_points", False))
    with open_prepared(path) as file:
        available = file["points"].shape[1]
        number = int(entry.get("points") or available)
        if not 0 < number <= available:
            raise ConfigError(
                f"points: {number} were asked for, but a cloud of {path} has {available}; "
                "lower the number."
            )
        points, labels = {}, {}
        every_label = torch.from_numpy(file["labels"][()])
        for split in SPLITS:
            indices = file[f"split/{split}"][()]
            kept = available if sample and split == "train" else number
            points[split] = torch.from_numpy(read_rows(file["points"], indices, kept)).to(device)
            labels[split] = every_label[torch.from_numpy(indices)].to(device)
        names = [name.decode() for name in file["class_names"][()]]
    return PointClouds(points, labels, names, number, sample)


def open_prepared(path: Path) -> AbstractContextManager[h5py.File]:
    """Open a prepared file for reading, in a ``with`` statement.

    Raises:
        DataError: it is missing, damaged or of another format.
    """
    return reading(path, FORMAT)


def read_rows(points: h5py.Dataset, indices: np.ndarray, number: int) -> np.ndarray:
    """The first ``number`` points of the clouds ``indices``, read in blocks of whole chunks."""
    chosen = np.empty((len(indices), number, points.shape[2]), np.float32)
    block = 16 * WRITTEN_AT_ONCE
    for start in range(0, len(points), block):
        inside = np.flatnonzero((indices >= start) & (indices < start + block))
        if len(inside):
            chosen[inside] = points[start : start + block, :number][indices[inside] - start]
    return chosen
