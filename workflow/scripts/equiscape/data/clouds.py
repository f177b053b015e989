"""What all kinds of labeled clouds share: their settings, the unit sphere, and normals.

Clouds are ``[n, P, C]``: C is 3, coordinates, or 6, coordinates and unit normals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from equiscape.files.arrays import Malformed
from equiscape.settings import Above, Below, Count, NonNegativeInt, Seed

TOLERANCE = 0.05  # of the length of normals in files
STEP = 1e-4  # of the differences that a map's derivative is taken from, in float64
Map = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class CloudSettings:
    """Settings of any data set of labeled clouds.

    Attributes:
        points: of a cloud that the networks see; None for all.
        sample_points: redraw the points of a training cloud each epoch, instead of taking the
            first.
        normalize: center each cloud and scale it into the unit sphere.
        validation: share of the training clouds held out for selection.
        validation_minimum: validation clouds that every class has at least.
        duplicates: exact copies in two splits: ``refuse`` them, ``group`` them on one side, or
            ``keep`` them.
        seed: of all that is drawn.
    """

    points: Count | None = None
    sample_points: bool = False
    normalize: bool = False
    validation: Annotated[float, Above(0), Below(1)] = 0.1
    validation_minimum: NonNegativeInt = 0
    duplicates: Literal["refuse", "group", "keep"] = "refuse"
    seed: Seed = 0
    CONSTRAINTS: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "'train' not in expect or expect['train'] * validation >= 0.5",
            "validation must leave at least one of the clouds that expect.train counts",
        ),
        (
            "'train' not in expect or expect['train'] * (1 - validation) >= 0.5",
            "validation must leave at least one of the clouds that expect.train counts",
        ),
        (
            "'classes' not in expect or expect['classes'] >= 2",
            "expect.classes must be at least 2",
        ),
        (
            "'classes' not in expect or 'train' not in expect "
            "or expect['classes'] <= expect['train']",
            "expect.classes must be at most expect.train",
        ),
        (
            "'classes' not in expect or 'train' not in expect "
            "or expect['classes'] * (validation_minimum + 1) <= expect['train']",
            "validation_minimum must leave a training cloud of each class that expect counts",
        ),
    )


def unit_sphere(points: np.ndarray) -> np.ndarray:
    """``[n, P, C]`` clouds, each centered on its mean and scaled so that its radius is 1."""
    x = points[..., :3]
    centered = x - x.mean(axis=1, keepdims=True)
    radius = np.sqrt((centered**2).sum(-1)).max(axis=1)[:, None, None]
    return with_normals(centered / np.maximum(radius, np.finfo(points.dtype).tiny), points)


def with_normals(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The coordinates ``x [n, P, 3]`` beside the normals of ``points``, where these have some."""
    return x if points.shape[-1] == 3 else np.concatenate([x, points[..., 3:]], axis=-1)


def shifted(points: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Clouds whose points are moved ``by [n, P, 3]``; their normals stay."""
    return with_normals(points[..., :3] + by, points)


def mapped(points: np.ndarray, f: Map) -> np.ndarray:
    """Clouds under a smooth map ``f`` of space, and their normals under its derivative.

    A normal is orthogonal to the surface, so it goes by the inverse transpose of the derivative,
    which is taken by central differences: exact to rounding for linear maps.
    """
    x = f(points[..., :3])
    if points.shape[-1] == 3:
        return x
    at, steps = points[..., :3].astype(np.float64), STEP * np.eye(3)
    a, b, c = (f(at + step) - f(at - step) for step in steps)  # columns of the derivative
    n = points[..., 3:]
    rows = np.cross(b, c) * n[..., :1] + np.cross(c, a) * n[..., 1:2] + np.cross(a, b) * n[..., 2:]
    turned = np.sign((a * np.cross(b, c)).sum(-1, keepdims=True))
    return np.concatenate([x, unit(rows * turned).astype(points.dtype)], axis=-1)


def beside(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Coordinates ``[..., 3]`` and their normals, scaled to length 1, as ``[..., 6]``.

    Raises:
        Malformed: a normal has another length than 1, to 5 %: columns of colors are none.
    """
    length = np.linalg.norm(normals.astype(np.float64), axis=-1)
    if not (np.abs(length - 1) < TOLERANCE).all():  # also where one is not finite
        worst = length.ravel()[np.argmax(np.nan_to_num(np.abs(length - 1), nan=np.inf))]
        raise Malformed(f"a normal has the length {worst:.3g} instead of 1")
    scaled = (normals / length[..., None]).astype(points.dtype)
    return np.concatenate([points, scaled], axis=-1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; zero where there is no direction."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(vectors.dtype).tiny)
