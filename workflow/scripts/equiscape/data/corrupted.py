"""Corrupted test clouds in one file: generated from prepared data, or the published arrays.

Format ``equiscape-corrupted-1``: ``labels [n]`` and one array ``{corruption}/{severity}
[n, M, 3]`` float32 for each pair, with the source, its checksum and the version of this
preparation as attributes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import h5py
import numpy as np

from equiscape.data import CORRUPTED_VERSION
from equiscape.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from equiscape.data.pointcloud import open_prepared, read_rows
from equiscape.errors import ConfigError, DataError
from equiscape.files import products
from equiscape.files.archives import Source, open_source
from equiscape.files.arrays import Malformed, npy, whole
from equiscape.files.hdf5 import put, reading, writing
from equiscape.io import sha256
from equiscape.registry import unknown
from equiscape.seeds import sequence_seed
from equiscape.settings import AtLeast, Distinct, PositiveInt, Seed

FORMAT = "equiscape-corrupted-1"
GENERATED = "generated"
PUBLISHED = (
    *("uniform", "gaussian", "background", "impulse", "upsampling", "rotation", "shear"),
    *("distortion", "distortion_rbf", "distortion_rbf_inv", "cutout", "density", "density_inc"),
    *("occlusion", "lidar"),
)
"""The corruptions of the published archive; generated ones may be others."""


@dataclass(frozen=True)
class Settings:
    """Settings of ``corruptions`` of a data set of clouds.

    Attributes:
        source: ``generated``, or where the published arrays are: URL, archive or folder.
        sha256: checksum of the published archive.
        mirrors: further URLs of the same archive.
        samples: generated ones: a fixed random subset of the test clouds; None takes all.
        severities: which, of 1 to 5.
        names: which corruptions; None takes all.
        seed: of the generated corruptions.
    """

    source: str
    sha256: str | None = None
    mirrors: list[str] = field(default_factory=list)
    samples: PositiveInt | None = None
    severities: Annotated[list[Literal[1, 2, 3, 4, 5]], AtLeast(1), Distinct()] = (1, 2, 3, 4, 5)  # type: ignore[assignment]  # a tuple once read
    names: Annotated[list[str], AtLeast(1), Distinct()] | None = None
    seed: Seed = 0


def prepare(
    entry: dict[str, Any], source: Path | None, prepared: Path | None, output: Path
) -> None:
    """Write the corrupted clouds of a data set, atomically.

    Args:
        entry: of ``datasets`` in the configuration. Used here: ``points`` and ``corruptions``:
            ``source`` (``generated``, or anything else for the published arrays), ``names``
            (default all), ``severities`` (default 1 to 5) and, for generated ones, ``samples``
            (a fixed random subset of the test split; default all of it) and ``seed``.
        source: archive or folder of the published arrays; None where they are generated.
        prepared: the prepared data set whose test clouds are corrupted; None for published ones.
        output: the file to write.

    Raises:
        DataError: a source is missing or damaged.
        ConfigError: an unknown corruption or severity.
    """
    settings = entry["corruptions"]
    if settings["source"] == GENERATED:
        write_corrupted(cast(Path, prepared), output, {**settings, "points": entry.get("points")})
    else:
        write_published(cast(Path, source), output, settings)


def write_corrupted(prepared: Path, output: Path, settings: dict[str, Any]) -> None:
    """Generate corrupted test clouds of a prepared data set; see :func:`prepare`.

    A cloud's random numbers depend on ``seed`` and its place in the prepared file, so a subset
    holds the same clouds as the whole.
    """
    names, severities = _chosen(settings, tuple(CORRUPTIONS))
    with open_prepared(prepared) as file, writing(output) as out:
        indices = file["split/test"][()]
        samples, seed = settings.get("samples"), settings.get("seed", 0)
        if samples is not None and samples < len(indices):
            indices = np.sort(np.random.default_rng(seed).choice(indices, samples, replace=False))
        number = settings.get("points") or file["points"].shape[1]
        full = read_rows(file["points"], indices, file["points"].shape[1])
        if np.abs(full).max() > 1.01:
            raise DataError(
                f"{prepared} has coordinates beyond [-1, 1], but corruptions suppose that box; "
                "set `normalize: true` for its data set."
            )
        seeds = [sequence_seed(seed, i) for i in indices]
        put(out, "labels", file["labels"][()][indices])
        for name in names:
            # Only this one needs more points than a network sees.
            dense = name == "density_inc"
            clouds, options = (full, {"number": number}) if dense else (full[:, :number], {})
            for severity in severities:
                made = corrupt(clouds, name, severity, seeds, **options)
                put(out, f"{name}/{severity}", np.asarray(made))
        _sign(out, GENERATED, products.verify(prepared, "prepare")["sha256"])
    products.sign(output, format=FORMAT, preparation_version=CORRUPTED_VERSION)


def write_published(source: Path, output: Path, settings: dict[str, Any]) -> None:
    """Copy the published arrays, ``data_{corruption}_{severity}.npy`` and ``label.npy``.

    They are read without pickle, one at a time.
    """
    names, severities = _chosen(settings, PUBLISHED)
    with open_source(source) as arrays, writing(output) as out:
        try:
            labels = whole(_array(arrays, "label.npy").ravel(), "labels", 0)
        except Malformed as error:
            raise arrays.damaged("label.npy", error) from None
        if not len(labels):
            raise DataError(f"label.npy in {source} is empty; get the complete data set.")
        put(out, "labels", labels)
        for name in names:
            for severity in severities:
                file = f"data_{name}_{severity}.npy"
                points = _array(arrays, file)
                if points.ndim != 3 or points.shape[2] != 3 or len(points) != len(labels):
                    raise DataError(
                        f"{file} in {source} has the shape {list(points.shape)} instead of "
                        f"[{len(labels)}, points, 3]; get the complete data set."
                    )
                if points.dtype.kind not in "fiu" or not np.isfinite(points).all():
                    raise DataError(
                        f"{file} in {source} has coordinates that are not finite; get it again."
                    )
                put(out, f"{name}/{severity}", points.astype(np.float32))
        checksum = sha256(source) if Path(source).is_file() else ""
        _sign(out, str(settings["source"]), checksum)
    products.sign(output, format=FORMAT, preparation_version=CORRUPTED_VERSION)


def _array(source: Source, name: str) -> np.ndarray:
    try:
        return npy(source.read(name))
    except Malformed as error:
        raise source.damaged(name, error) from None


def _chosen(settings: dict[str, Any], known: tuple[str, ...]) -> tuple[list[str], list[int]]:
    names = list(settings.get("names") or known)
    for name in names:
        if name not in known:
            raise unknown(name, known, "corruptions.names")
    severities = list(settings.get("severities") or SEVERITIES)
    for severity in severities:
        if severity not in SEVERITIES:
            raise ConfigError(f"corruptions.severities: {severity} is not one of 1, 2, 3, 4, 5.")
    return names, severities


def _sign(file: h5py.File, source: str, checksum: str) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["source"] = source
    file.attrs["source_sha256"] = checksum
    file.attrs["preparation_version"] = CORRUPTED_VERSION


def read_corrupted(path: Path) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Yield (corruption, severity, points ``[n, M, 3]``, labels ``[n]``), pair by pair.

    Raises:
        DataError: the file is missing, damaged or of another format.
    """
    with reading(path, FORMAT, "corrupt") as file:
        labels = file["labels"][()]
        names = [name for name in dict.fromkeys((*CORRUPTIONS, *PUBLISHED)) if name in file]
        for name in names:
            for severity in sorted(map(int, file[name])):
                yield name, severity, file[f"{name}/{severity}"][()], labels
