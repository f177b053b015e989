"""The 13 corruptions of ModelNet40-C (Sun et al. 2022) that need points only, not a mesh.

Each is a small function of clouds ``[n, N, 3]``, a severity from 1 to 5 and the clouds' random
numbers, and returns ``[n, M, 3]``. Constants are the benchmark's, stated for N = 1,024 points;
where a constant counts points, it grows in proportion with N. Every cloud has random numbers of
its own, so it comes out the same whatever stands beside it.

Clouds with normals are ``[n, N, 6]``. Maps of space (rotation, shear, distortions) turn normals
with the surface; noise leaves them; copies keep theirs; a point of the background has any.

The published arrays redraw 1,024 of a cloud's 2,048 points for each corruption and severity (the
same places in every cloud); here it is always the first 1,024, so that a cloud under two
corruptions, and clean, has the same points.

Occlusion and lidar, the other two of the benchmark, scan the mesh: they exist as published arrays
only.
"""

import itertools
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import comb
from typing import Any

import numpy as np

from equiscape.data.clouds import Map, mapped, shifted, unit, with_normals
from equiscape.errors import ConfigError
from equiscape.registry import unknown

SEVERITIES = (1, 2, 3, 4, 5)
POINTS = 1024  # of a cloud, for which the benchmark's counts are stated
BLOCK = 64  # clouds at once: the widest arrays then stay near the cache's size
LATTICE = np.array(list(itertools.product(np.linspace(-1, 1, 5), repeat=3)))  # [125, 3]


class Draws:
    """Random numbers for n clouds, each from a stream of its own: arrays ``[n, *shape]``."""

    def __init__(self, generators: Sequence[np.random.Generator]):
        self.generators = generators

    def _stack(self, draw: Callable[[np.random.Generator], Any]) -> np.ndarray:
        return np.stack([draw(generator) for generator in self.generators])

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Uniform in [low, high)."""
        return (low + (high - low) * self._stack(lambda g: g.random(shape))).astype(np.float32)

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal."""
        return self._stack(lambda g: g.standard_normal(shape)).astype(np.float32)

    def signs(self, *shape: int) -> np.ndarray:
        """-1 or 1."""
        return self._stack(lambda g: g.choice(np.array([-1, 1], dtype=np.float32), shape))

    def indices(self, below: int, *shape: int) -> np.ndarray:
        """Integers below a bound, with replacement."""
        return self._stack(lambda g: g.integers(below, size=shape))

    def subset(self, count: int, of: int) -> np.ndarray:
        """``[n, count]`` distinct integers below ``of``."""
        return self._stack(lambda g: g.permutation(of)[:count])


def uniform(points: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Uniform noise on every coordinate."""
    bound = 0.01 * severity
    return unit_box(shifted(points, draws.uniform(-bound, bound, points.shape[1], 3)))


def gaussian(points: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Gaussian noise on every coordinate, clipped to the box."""
    std = (0.01, 0.015, 0.02, 0.025, 0.03)[severity - 1]
    x = points[..., :3] + np.float32(std) * draws.normal(points.shape[1], 3)
    return with_normals(np.clip(x, -1, 1), points)


def background(points: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Further points anywhere in the box."""
    count = points.shape[1] // (45, 40, 35, 30, 20)[severity - 1]
    added = draws.uniform(-1, 1, count, 3)
    if points.shape[2] > 3:
        added = np.concatenate([added, unit(draws.normal(count, 3))], axis=2)
    return unit_box(np.concatenate([points, added], axis=1))


def impulse(points: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """A few points moved by 0.1 along each axis, to either side."""
    number = points.shape[1]
    count = number // (30, 25, 20, 15, 10)[severity - 1]
    moved = np.zeros_like(points[..., :3])
    where = draws.subset(count, number)[..., None]
    np.put_along_axis(moved, where, np.float32(0.1) * draws.signs(count, 3), axis=1)
    return unit_box(shifted(points, moved))


def upsampling(points: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Noisy copies of some points, of all at severity 5."""
    number = points.shape[1]
    count = number // (5, 4, 3, 2, 1)[severity - 1]
    copies = take(points, draws.subset(count, number))
    copies = shifted(copies, draws.uniform(-0.05, 0.05, count, 3))
    return unit_box(np.concatenate([points, copies], axis=1))


def rotation(points: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Row vectors times ``Rx Ry Rz``, by a limited angle about each axis."""
    rotations = small_rotations(severity, draws)
    return unit_box(mapped(points, lambda x: x @ rotations))


def small_rotations(severity: int, draws: Draws) -> np.ndarray:
    """``[n, 3, 3]``: ``Rx Ry Rz``, each angle within 2.5 degrees of the severity's, either sign."""
    center = (2.5, 5.0, 7.5, 10.0, 15.0)[severity - 1]
    angles = np.deg2rad(draws.uniform(center - 2.5, center + 2.5, 3) * draws.signs(3))
    rotations = np.broadcast_to(np.eye(3, dtype=np.float32), (len(angles), 3, 3))
    for axis, angle in enumerate(angles.T):
        turn = np.zeros((len(angles), 3, 3), np.float32)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[:, axis, axis] = 1
        turn[:, i, i] = turn[:, j, j] = np.cos(angle)
        turn[:, j, i], turn[:, i, j] = np.sin(angle), -np.sin(angle)
        rotations = rotations @ turn
    return rotations


def shear(points: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Row vectors times the shear: x and z take shares, y (upright in ModelNet40) stays."""
    matrices = shears(severity, draws)
    return unit_box(mapped(points, lambda x: x @ matrices))


def shears(severity: int, draws: Draws) -> np.ndarray:
    """``[n, 3, 3]``: ``[[1, 0, b], [d, 1, e], [f, 0, 1]]``, entries near the severity's size."""
    center = 0.05 * severity
    b, d, e, f = (draws.uniform(center - 0.05, center + 0.05, 4) * draws.signs(4)).T
    one, zero = np.ones_like(b), np.zeros_like(b)
    return np.stack([one, zero, b, d, one, e, f, zero, one], axis=-1).reshape(-1, 3, 3)


def distortion(points: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Free-form deformation (Sederberg & Parry 1986): the control points of the box are moved.

    The box [-1, 1]^3 carries 5 x 5 x 5 control points and Bernstein polynomials of degree 4;
    points outside it stay where they are.
    """
    bound = 2 * 0.1 * severity  # 0.1 s of the box, whose edges are 2 long
    shifts = draws.uniform(-bound, bound, len(LATTICE), 3)
    t = (points[..., :3] + 1) / 2
    inside = ((t >= 0) & (t <= 1)).all(-1, keepdims=True)

    def deformed(points: np.ndarray) -> np.ndarray:
        t = (points + 1) / 2
        basis = np.stack([comb(4, i) * t**i * (1 - t) ** (4 - i) for i in range(5)], axis=-1)
        x, y, z = np.moveaxis(basis, 2, 0)
        weights = x[..., :, None, None] * y[..., None, :, None] * z[..., None, None, :]
        moved = weights.reshape(*points.shape[:2], len(LATTICE)) @ shifts
        return points + np.where(inside, moved, 0)

    return unit_box(mapped(points, deformed))


def distortion_rbf(points: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Moved control points, interpolated by multiquadrics sqrt(r^2 + 1/4)."""
    return unit_box(mapped(points, _interpolated(severity, draws, inverse=False)))


def distortion_rbf_inv(points: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Moved control points, interpolated by inverse multiquadrics 1 / sqrt(r^2 + 1/4)."""
    return unit_box(mapped(points, _interpolated(severity, draws, inverse=True)))


def _interpolated(severity: int, draws: Draws, inverse: bool) -> Map:
    """The map under which each lattice point moves 0.025 s in a random direction."""
    moves = np.float32(0.025 * severity) * directions(draws, len(LATTICE))
    coefficients = _coefficients(inverse).astype(np.float32) @ moves  # [n, 129, 3]
    weights, constant, slope = np.split(coefficients, [125, 126], axis=1)
    return lambda x: x + (radial(x, inverse) @ weights + constant + x @ slope)


def directions(draws: Draws, count: int) -> np.ndarray:
    """``[n, count, 3]`` unit vectors as ModelNet40-C's generator draws them.

    Both angles are uniform, ``(cos a sin c, sin a sin c, cos c)``, so the directions crowd about
    the third axis: root mean squares of 0.50, 0.50 and 0.71, where directions that are uniform on
    the sphere have 0.577 each.
    """
    a, c = np.moveaxis(draws.uniform(-np.pi, np.pi, count, 2), -1, 0)
    return np.stack([np.cos(a) * np.sin(c), np.sin(a) * np.sin(c), np.cos(c)], axis=-1)


@lru_cache
def _coefficients(inverse: bool) -> np.ndarray:
    """``[129, 125]``: values at the lattice to weights, constant and slope of the interpolant.

    The weights are orthogonal to affine functions, so the system is the usual saddle point
    ``[[K, P], [P^T, 0]]`` with ``P = [1, x, y, z]``.
    """
    n = len(LATTICE)
    affine = np.concatenate([np.ones((n, 1)), LATTICE], axis=1)
    kernel = radial(LATTICE[None], inverse)[0]
    system = np.block([[kernel, affine], [affine.T, np.zeros((4, 4))]])
    return np.linalg.inv(system)[:, :n]


def radial(points: np.ndarray, inverse: bool) -> np.ndarray:
    """``[n, N, 125]``: the radial function between points and the lattice."""
    lattice = LATTICE.astype(points.dtype)
    squares = (points**2).sum(-1)[..., None] + (lattice**2).sum(-1) - 2 * points @ lattice.T
    values = np.sqrt(np.maximum(squares, 0) + points.dtype.type(0.25))
    return 1 / values if inverse else values


def cutout(points: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Holes: the nearest neighbors of random points are gone."""
    times = (2, 3, 5, 7, 10)[severity - 1]
    size = of_1024(30, points.shape[1])
    for _ in range(min(times, (points.shape[1] - 1) // size)):  # a tiny cloud keeps a point
        points = without(points, nearest(points, draws.indices(points.shape[1]), size))
    return points


def density(points: np.ndarray, severity: int, draws: Draws) -> np.ndarray:
    """Thin patches: three quarters of the neighbors of random points are gone."""
    size, lost = of_1024(100, points.shape[1]), of_1024(75, points.shape[1])
    for _ in range(min(severity, (points.shape[1] - 1) // size)):  # a tiny cloud keeps a point
        patch = nearest(points, draws.indices(points.shape[1]), size)
        gone = np.take_along_axis(patch, draws.subset(lost, size), axis=1)
        points = without(points, gone)
    return points


def density_inc(
    points: np.ndarray, severity: int, draws: Draws, number: int | None = None
) -> np.ndarray:
    """Dense patches: they keep every point of the full cloud, the rest is drawn thinly.

    ``points`` are the full clouds (2,048 in the benchmark), of which ``number`` (half of them by
    default) come back: the patches first, then others, drawn with replacement.
    """
    number = number or points.shape[1] // 2
    size, patches = min(of_1024(100, number), max(1, number // severity)), []
    fit = min(severity, (points.shape[1] - 1) // size, number // size)
    for _ in range(fit):  # a tiny cloud keeps a point
        patch = nearest(points, draws.indices(points.shape[1]), size)
        patches.append(take(points, patch))
        points = without(points, patch)
    rest = draws.indices(points.shape[1], number - len(patches) * size)
    return np.concatenate([*patches, take(points, rest)], axis=1)


CORRUPTIONS: dict[str, Callable[..., np.ndarray]] = {
    "uniform": uniform,
    "gaussian": gaussian,
    "background": background,
    "impulse": impulse,
    "upsampling": upsampling,
    "rotation": rotation,
    "shear": shear,
    "distortion": distortion,
    "distortion_rbf": distortion_rbf,
    "distortion_rbf_inv": distortion_rbf_inv,
    "cutout": cutout,
    "density": density,
    "density_inc": density_inc,
}


def corrupt(
    points: np.ndarray | Sequence[np.ndarray],
    name: str,
    severity: int,
    seeds: Sequence[int],
    **options: Any,
) -> np.ndarray | list[np.ndarray]:
    """Corrupt clouds.

    Args:
        points: ``[n, N, C]``, or a sequence of clouds ``[N_i, C]`` of any sizes, which are
            corrupted size by size, so that none is padded; C is 3, or 6 with unit normals.
        name: of :data:`CORRUPTIONS`.
        severity: 1 to 5.
        seeds: one for each cloud; its random numbers depend on it, ``name`` and ``severity``.
        options: of the corruption (``number`` of ``density_inc``).

    Returns:
        ``[n, M, C]`` float32, or a list of ``[M_i, C]``, as the clouds came.

    Raises:
        ConfigError: the corruption or the severity is unknown.
    """
    if name not in CORRUPTIONS:
        raise unknown(name, CORRUPTIONS, "corruptions.names")
    if severity not in SEVERITIES:
        raise ConfigError(f"corruptions.severities: {severity} is not one of 1, 2, 3, 4, 5.")
    if not isinstance(points, np.ndarray):
        corrupted: list[np.ndarray] = [np.empty(0)] * len(points)
        sizes = np.array([len(cloud) for cloud in points])
        for size in np.unique(sizes):
            same = np.flatnonzero(sizes == size).tolist()
            clouds = np.stack([points[i] for i in same])
            made = corrupt(clouds, name, severity, [seeds[i] for i in same], **options)
            for i, cloud in zip(same, made):
                corrupted[i] = cloud
        return corrupted
    points = points.astype(np.float32, copy=False)
    made = []
    for start in range(0, len(points), BLOCK):
        draws = Draws([_stream(s, name, severity) for s in seeds[start : start + BLOCK]])
        made.append(CORRUPTIONS[name](points[start : start + BLOCK], severity, draws, **options))
    return np.concatenate(made)


def _stream(seed: int, name: str, severity: int) -> np.random.Generator:
    return np.random.default_rng([int(seed), zlib.crc32(name.encode()), severity])


def unit_box(points: np.ndarray) -> np.ndarray:
    """Clouds with the bounding box centered on the origin and its longest side 2 long."""
    x = points[..., :3]
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    longest = (high - low).max(axis=2, keepdims=True)
    x = (x - (low + high) / 2) * (2 / np.maximum(longest, np.finfo(np.float32).tiny))
    return with_normals(x, points)


def of_1024(count: int, number: int) -> int:
    """A count stated for 1,024 points, for ``number`` of them; at least 1."""
    return max(1, round(count * number / POINTS))


def nearest(points: np.ndarray, centers: np.ndarray, size: int) -> np.ndarray:
    """``[n, size]``: indices of the points nearest to point ``centers[i]``, itself among them."""
    points = points[..., :3]
    squares = ((points - take(points, centers[:, None])) ** 2).sum(-1)
    return np.argpartition(squares, size - 1, axis=1)[:, :size]


def take(points: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """``[n, k, C]``: the points ``indices [n, k]`` of each cloud."""
    return np.take_along_axis(points, indices[..., None], axis=1)


def without(points: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """``[n, N - k, C]``: the clouds less the points ``indices [n, k]``, k different ones each."""
    kept = np.ones(points.shape[:2], bool)
    np.put_along_axis(kept, indices, False, axis=1)
    return points[kept].reshape(len(points), -1, points.shape[2])
