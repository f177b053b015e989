"""Parametric solids as quadrilateral meshes, their deformation, and points on their surface.

A *patch* is a grid of vertices ``[u, v, 3]``; a solid is a list of patches. Deforming vertices
before points are drawn keeps the drawing uniform on the deformed surface.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

Patch = np.ndarray
AROUND = 20  # vertices around a surface of revolution
UP = np.array([0.0, 0.0, 1.0])


def revolve(profile: ArrayLike, steps: int = 4) -> list[Patch]:
    """The surface that a polyline ``[(radius, height), ...]`` sweeps around the z axis."""
    profile = np.asarray(profile, float)
    along = np.linspace(0, len(profile) - 1, steps * (len(profile) - 1) + 1)
    radius = np.interp(along, np.arange(len(profile)), profile[:, 0])
    height = np.interp(along, np.arange(len(profile)), profile[:, 1])
    angle = np.linspace(0, 2 * np.pi, AROUND + 1)[:, None]
    ring = [
        radius * np.cos(angle),
        radius * np.sin(angle),
        np.broadcast_to(height, (AROUND + 1, len(along))),
    ]
    return [np.stack(ring, -1)]


def frustum(bottom: float, top: float, height: float) -> list[Patch]:
    """A closed cone, cylinder or anything between, standing on z = 0."""
    return revolve([(0, 0), (bottom, 0), (top, height), (0, height)])


def superquadric(size: ArrayLike, e1: float, e2: float, steps: int = 20) -> list[Patch]:
    """A superellipsoid (Barr 1981) of half axes ``size``; exponents near 0 make a box, 1 a ball."""

    def power(x: np.ndarray, exponent: float) -> np.ndarray:
        return np.sign(x) * np.abs(x) ** exponent

    latitude = np.linspace(-np.pi / 2, np.pi / 2, steps)[:, None]
    longitude = np.linspace(-np.pi, np.pi, steps + 4)[None]
    x = power(np.cos(latitude), e1) * power(np.cos(longitude), e2)
    y = power(np.cos(latitude), e1) * power(np.sin(longitude), e2)
    z = power(np.sin(latitude), e1) * np.ones_like(longitude)
    return [np.stack([x, y, z], -1) * np.asarray(size)]


def box(size: ArrayLike, center: ArrayLike = (0, 0, 0), steps: int = 4) -> list[Patch]:
    """A box of edge lengths ``size`` around ``center``."""
    half, patches = np.asarray(size, float) / 2, []
    a, b = np.meshgrid(*[np.linspace(-1, 1, steps)] * 2, indexing="ij")
    for axis in range(3):
        for side in (-1.0, 1.0):
            face = np.empty((steps, steps, 3))
            face[..., axis], face[..., axis - 1], face[..., axis - 2] = side, a, b
            patches.append(face * half + np.asarray(center))
    return patches


def tube(path: np.ndarray, radius: float) -> list[Patch]:
    """A tube of ``radius`` around a smooth ``path [n, 3]``."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    # Any vector that is nowhere parallel to the path spans the cross sections with the tangent.
    helper = np.eye(3)[np.abs(tangent).max(axis=0).argmin()]
    first = np.cross(tangent, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(tangent, first)
    angle = np.linspace(0, 2 * np.pi, 11)[:, None, None]
    return [path + radius * (np.cos(angle) * first + np.sin(angle) * second)]


def arc(radius: float, degrees: float, steps: int = 33) -> np.ndarray:
    """``[steps, 3]``: a circular arc in the x-z plane, symmetric about the z axis, open below."""
    angle = np.deg2rad(np.linspace(90 - degrees / 2, 90 + degrees / 2, steps))
    return radius * np.stack([np.cos(angle), np.zeros(steps), np.sin(angle)], -1)


def move(solid: list[Patch], offset: ArrayLike) -> list[Patch]:
    """The solid, shifted by ``offset``."""
    return [patch + np.asarray(offset, float) for patch in solid]


def deform(solid: list[Patch], bend: float, twist: float, taper: float) -> list[Patch]:
    """Taper, twist and bend a solid along z, which is first scaled to the height [-1, 1].

    Args:
        bend: angle in radians that the axis turns by over its length.
        twist: angle in radians between the cross sections at the two ends.
        taper: the cross sections shrink by ``1 - taper`` at the top, grow by ``1 + taper`` below.
    """
    everything = np.concatenate([patch.reshape(-1, 3) for patch in solid])
    low, high = everything.min(0), everything.max(0)
    center, scale = (low + high) / 2, max((high - low).max() / 2, 1e-9)
    return [_deform((patch - center) / scale, bend, twist, taper) for patch in solid]


def _deform(vertices: np.ndarray, bend: float, twist: float, taper: float) -> np.ndarray:
    x, y, z = np.moveaxis(vertices, -1, 0)
    x, y = x * (1 - taper * z), y * (1 - taper * z)
    angle = twist * z / 2
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    if abs(bend) > 1e-6:
        radius = 2 / bend  # the axis, of length 2, becomes an arc of this radius
        turned = z / radius
        x, z = radius - (radius - x) * np.cos(turned), (radius - x) * np.sin(turned)
    return np.stack([x, y, z], -1)


def sample_surface(
    solid: Sequence[Patch], number: int, unevenness: float, rng: np.random.Generator
) -> np.ndarray:
    """``[number, 3]`` points on the surface of a solid.

    Args:
        solid: its patches.
        number: of points.
        unevenness: 0 draws uniformly by area; a larger value favors one random side by a factor
            of up to ``exp(2 * unevenness)`` over the opposite one.
        rng: source of randomness.
    """
    corners = [
        np.stack([p[:-1, :-1], p[1:, :-1], p[1:, 1:], p[:-1, 1:]], 2).reshape(-1, 4, 3)
        for p in solid
    ]
    quads = np.concatenate(corners)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    a, b, c = np.moveaxis(triangles, 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    direction = rng.normal(size=3)
    lean = triangles.mean(1) @ (direction / np.linalg.norm(direction))
    weight = area * np.exp(unevenness * lean / max(np.abs(lean).max(), 1e-9))
    chosen = rng.choice(len(triangles), number, p=weight / weight.sum())
    u, v = rng.random((2, number, 1))
    folded = u + v > 1
    u, v = np.where(folded, 1 - u, u), np.where(folded, 1 - v, v)
    return a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]
