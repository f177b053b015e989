"""Meshes and clouds in files of their own: folders of ``class/split``, ``split/class``; or a CSV.

Meshes (``.off``, ``.ply``, ``.obj``, ``.stl``) are read by trimesh and sampled uniformly over their
surface; clouds (``.xyz``, ``.txt``, ``.pts``, ``.npy``, ``.pcd``) are drawn from. A CSV has
the columns ``path`` and ``label`` and, if one likes, ``split`` and ``group``. Copies of the same
bytes are one group, so that no split of ours has one on both sides; a group column says more.
"""

import hashlib
import io
import logging
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np

from equiscape.data.clouds import CloudSettings, beside, unit, unit_sphere
from equiscape.data.modelnet_layout import Part
from equiscape.data.pcd import read_pcd
from equiscape.data.pointcloud import load, write_clouds
from equiscape.data.splits import hold_out
from equiscape.errors import ConfigError, DataError, first_line
from equiscape.files.archives import Source, open_source
from equiscape.files.arrays import Malformed, load_text, npy
from equiscape.files.tables import read_table
from equiscape.settings import Above, Below, Count

__all__ = ["load", "prepare"]

log = logging.getLogger(__name__)

VERSION = 2
LOADER = ("points", "sample_points")
FILES = (
    *("**/*.off", "**/*.ply", "**/*.obj", "**/*.stl", "**/*.xyz", "**/*.pts"),
    *("**/*.txt", "**/*.npy", "**/*.pcd", "**/*.csv"),
)
ARGUMENTS = ("num_outputs",)  # what the data dictates to a network
INPUTS = ("points",)  # of its forward
SAMPLES = "clouds"
LEARNS = "classes"
TARGETS: tuple[str, ...] = ()
EXPECT = ("train", "test", "classes")
TABLE = "path"  # the column of a CSV that names files
CORRUPTIBLE = True
AUGMENTATION = "equiscape.data.augment_clouds:Augmentation"
OVERRIDES = ("points", "sample_points")
MESHES = (".off", ".ply", ".obj", ".stl")
CLOUDS = (".xyz", ".pts", ".txt", ".npy", ".pcd")
SIDES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
LARGEST = 2**30  # bytes of one file


@dataclass(frozen=True)
class Settings(CloudSettings):
    """Settings of a data set of this kind.

    Attributes:
        samples: points that are drawn from each mesh or cloud, and kept.
        normals: give networks the unit normal of every point too: of the face that it was drawn
            from, or, of a cloud, as the file has it.
        normalize: center each cloud and scale it into the unit sphere.
        test: share of each class that becomes the test split where the source names none.
        skip_damaged: leave out files that cannot be read, and name them in the log.
    """

    samples: Count = 2048
    normals: bool = False
    normalize: bool = True
    test: Annotated[float, Above(0), Below(1)] = 0.2
    skip_damaged: bool = False
    CONSTRAINTS = (
        (
            "points is None or points <= samples",
            "points must be at most {samples}, the samples that are drawn",
        ),
    )


@dataclass(frozen=True)
class Item:
    """One file: where it is, its class, its side (None where the source names none), its group."""

    path: str
    label: str
    side: str | None
    group: str


def prepare(entry: dict[str, Any], source: Path | None, output: Path) -> None:
    """Sample every file, split them where the source does not, and write the prepared clouds.

    Args:
        entry: see :class:`Settings`.
        source: a folder or an archive, or a CSV whose paths are relative to its folder.
        output: the prepared file.

    Raises:
        DataError: there is nothing to read, or a file is damaged; the message names it.
        ConfigError: a split cannot be made.
    """
    if source is None:
        raise ConfigError(f"datasets.{output.stem}.source is missing; name a folder or a CSV.")
    source, seed = Path(source), int(entry.get("seed", 0))
    table = source if source.suffix.lower() == ".csv" else None
    with open_source(source.parent if table else source) as opened:
        items = listed(table) if table else walked(opened)
        read = [(item, *found) for item in items if (found := _points(opened, item, entry))]
    if not read:
        raise DataError(
            f"{source} holds no meshes or clouds that can be read; give another folder."
        )
    names = sorted({item.label for item, _, _ in read})
    labels = np.array([names.index(item.label) for item, _, _ in read])
    own = [item.group or digest for item, _, digest in read]
    _, groups = np.unique(own, return_inverse=True)
    sides = np.array([item.side or "" for item, _, _ in read], dtype="U5")
    if (sides == "").any():
        if (sides != "").any():
            raise DataError(
                f"{source} has {np.sum(sides == '')} files in no split and {np.sum(sides != '')} "
                "in one; put all or none of them into train and test folders."
            )
        train, test = hold_out(labels, groups, entry.get("test", 0.2), seed, 1, names)
        sides[train], sides[test] = "train", "test"
    clouds = np.stack([points for _, points, _ in read])
    if entry.get("normalize", True):
        clouds = unit_sphere(clouds)
    digest = hashlib.sha256("".join(f"{i.path} {d}\n" for i, _, d in read).encode()).hexdigest()

    def parts() -> Iterator[Part]:
        for side in ("train", "test"):
            mine = np.flatnonzero(sides == side)
            if not len(mine):
                raise DataError(f"{source} has no {side} files; give both splits, or none.")
            yield Part(side, f"{side} files", clouds[mine], labels[mine], groups[mine])

    write_clouds({**entry, "normalize": False}, source, names, parts(), output, digest, VERSION)


def walked(source: Source) -> list[Item]:
    """The files of ``class/split/*``, ``split/class/*`` or ``class/*``.

    Raises:
        DataError: a file is in no class.
    """
    items = []
    for member in source.members:
        path = PurePosixPath(member)
        if path.suffix.lower() not in (*MESHES, *CLOUDS):
            continue
        above = list(path.parts[:-1])
        sides = [i for i, part in enumerate(above) if part.lower() in SIDES]
        side = SIDES[above.pop(sides[-1]).lower()] if sides else None
        if not above:
            raise DataError(
                f"{member} in {source.path} is in no folder of a class; "
                "put files into class/split/ or split/class/."
            )
        items.append(Item(member, above[-1], side, ""))
    return items


def listed(table: Path) -> list[Item]:
    """The rows of a CSV with ``path`` and ``label``, and perhaps ``split`` and ``group``.

    Raises:
        DataError: a column is missing, a path is empty or twice, or a split is neither.
    """
    items = []
    for number, row in enumerate(read_table(table, (TABLE, "label")), 2):
        path, label = row.get(TABLE, "").replace("\\", "/"), row.get("label", "")
        side = row.get("split", "").lower()
        if not path or not label or (side and side not in SIDES):
            raise DataError(f"line {number} of {table} needs a path, a label and train or test.")
        items.append(Item(path, label, SIDES.get(side), row.get("group", "")))
    paths = [item.path for item in items]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise DataError(f"{table} lists {twice} twice; keep one line of it.")
    return items


def _points(source: Source, item: Item, entry: dict[str, Any]) -> tuple[np.ndarray, str] | None:
    """``[samples, C]`` float32 of one file and the checksum of its bytes; None where skipped."""
    try:
        data = source.read(item.path if "/" in item.path else f"./{item.path}")
        if len(data) > LARGEST:
            raise Malformed(f"it is larger than {LARGEST} bytes")
        # of the bytes, not the place in a list: other files change nothing
        rng = np.random.default_rng([int(entry.get("seed", 0)), zlib.crc32(data)])
        suffix = PurePosixPath(item.path).suffix.lower()
        number, normals = int(entry.get("samples", 2048)), bool(entry.get("normals"))
        points = sampled(data, suffix, number, rng, normals)
    except (Malformed, DataError) as error:
        if not entry.get("skip_damaged"):
            raise DataError(
                f"{item.path} in {source.path} cannot be read ({first_line(error)}); mend it, or "
                "leave such files out by `skip_damaged: true`."
            ) from None
        log.warning("left out: %s (%s)", item.path, first_line(error))
        return None
    return points, hashlib.sha256(data).hexdigest()


def sampled(
    data: bytes, suffix: str, number: int, rng: np.random.Generator, normals: bool = False
) -> np.ndarray:
    """``[number, 3]`` float32 points of a mesh's surface or of a cloud, or 6 with ``normals``.

    Raises:
        Malformed: the file is damaged, empty, not finite, or without the normals.
    """
    columns = 6 if normals else 3
    if suffix in MESHES:
        vertices, faces, given = mesh(data, suffix)
        if len(faces):
            points = surface(vertices, faces, number, rng)[:, :columns]
        else:
            points = np.concatenate([vertices, given], axis=1)[:, :columns]
    elif suffix == ".npy":
        array = npy(data)
        if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
            raise Malformed(f"it has the shape {list(array.shape)} instead of [points, 3]")
        points = array[:, :columns].astype(np.float64)
    else:
        points = read_pcd(data, normals) if suffix == ".pcd" else load_text(data, "it", columns)
    if not len(points) or not np.isfinite(points).all():
        raise Malformed("it has no points, or some that are not finite")
    if normals:
        if points.shape[1] < columns:
            raise Malformed("it has no normals")
        points = beside(points[:, :3], points[:, 3:])
    if len(points) != number:
        points = points[rng.choice(len(points), number, replace=len(points) < number)]
    return points.astype(np.float32)


def mesh(data: bytes, suffix: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices ``[v, 3]``, triangles ``[f, 3]``, and normals ``[v, 3]`` of a cloud in ``.ply``.

    ModelNet's merged ``OFF`` headers are mended. Normals that a file does not have are ``[v, 0]``.

    Raises:
        Malformed: trimesh cannot read it.
    """
    import trimesh

    if suffix == ".off":  # "OFF123 456 0" for "OFF" and "123 456 0" below it
        data = re.sub(rb"\A(\s*OFF)[ \t]*(?=\d)", rb"\1\n", data)
    try:
        loaded: Any = trimesh.load(
            io.BytesIO(data), file_type=suffix[1:], process=False, resolver=None
        )
        if isinstance(loaded, trimesh.Scene):
            parts = list(loaded.geometry.values())
            clouds = [part for part in parts if isinstance(part, trimesh.PointCloud)]
            loaded = clouds[0] if len(clouds) == len(parts) == 1 else loaded.to_mesh()
        vertices = np.asarray(loaded.vertices, dtype=np.float64).reshape(-1, 3)
        faces = np.asarray(getattr(loaded, "faces", np.empty((0, 3))), np.int64).reshape(-1, 3)
        normals = np.empty((len(vertices), 0)) if len(faces) else _ply_normals(loaded)
    except Exception as error:  # whatever a parser makes of damage
        raise Malformed(first_line(error)) from None
    if len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise Malformed("it has a face of vertices that it does not have")
    return vertices, faces, normals


def _ply_normals(cloud: Any) -> np.ndarray:
    """The properties nx, ny and nz of a cloud that trimesh read from a ``.ply``."""
    raw = cloud.metadata.get("_ply_raw", {}).get("vertex", {}).get("data", {})
    names, known = ("nx", "ny", "nz"), raw if isinstance(raw, dict) else raw.dtype.names or ()
    if not set(names) <= set(known):
        return np.empty((len(cloud.vertices), 0))
    return np.stack([np.asarray(raw[name], dtype=np.float64).ravel() for name in names], axis=1)


def surface(
    vertices: np.ndarray, faces: np.ndarray, number: int, rng: np.random.Generator
) -> np.ndarray:
    """``[number, 6]`` points, uniform over the area of triangles, and the normals of these.

    Raises:
        Malformed: the mesh has no area, or coordinates that are not finite.
    """
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(across, axis=1)
    if not np.isfinite(area).all() or not area.sum() > 0:
        raise Malformed("its triangles have no area")
    which = rng.choice(len(area), number, p=area / area.sum())
    chosen = corners[which]
    u, v = rng.random((2, number, 1))
    over = u + v > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    points = chosen[:, 0] + u * (chosen[:, 1] - chosen[:, 0]) + v * (chosen[:, 2] - chosen[:, 0])
    return np.concatenate([points, unit(across[which])], axis=1)
