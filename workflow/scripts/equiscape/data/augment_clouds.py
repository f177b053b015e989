"""Random transforms of batches of point clouds, on the device that holds them."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equiscape.registry import call, unknown

ROTATIONS = ("none", "y", "z", "so3")


def augment_points(
    points: Tensor, settings: Mapping[str, Any], generator: torch.Generator
) -> Tensor:
    """Rotate, scale, shift, jitter and drop points, each cloud by itself, in that order.

    Args:
        points: ``[clouds, points, 3]``; left as they are.
        settings: any of

            - ``rotate``: ``y`` or ``z`` turns about that axis, ``so3`` by any rotation
              (ModelNet40's shapes stand along y, the generated ones along z);
            - ``scale: [low, high]``: factor of each axis, uniform;
            - ``shift: s``: of each axis, uniform in ``[-s, s]``;
            - ``jitter: {std, clip}``: Gaussian noise on each coordinate, clipped;
            - ``dropout: p``: a share of the points, uniform in ``[0, p]``, is replaced by the
              cloud's first point (Qi et al. 2017, PointNet++).

        generator: on the device of ``points``.

    Raises:
        ConfigError: a setting is unknown.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    return call(_augment, "training.augmentation", settings, points=points, generator=generator)


def _augment(
    points: Tensor,
    generator: torch.Generator,
    rotate: str = "none",
    scale: tuple[float, float] = (1.0, 1.0),
    shift: float = 0.0,
    jitter: Mapping[str, float] | None = None,
    dropout: float = 0.0,
) -> Tensor:
    clouds, number, _ = points.shape

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        drawn = torch.rand(shape, generator=generator, device=points.device, dtype=points.dtype)
        return low + (high - low) * drawn

    if rotate not in ROTATIONS:
        raise unknown(rotate, ROTATIONS, "training.augmentation.rotate")
    if rotate == "so3":
        points = points @ uniform_rotations(uniform(clouds, 3)).mT
    elif rotate != "none":
        points = points @ axis_rotations(uniform(clouds, high=2 * math.pi), rotate).mT
    if tuple(scale) != (1.0, 1.0):
        points = points * uniform(clouds, 1, 3, low=scale[0], high=scale[1])
    if shift:
        points = points + uniform(clouds, 1, 3, low=-shift, high=shift)
    if jitter:
        noise = torch.empty_like(points).normal_(generator=generator) * jitter.get("std", 0.01)
        clip = jitter.get("clip", 0.05)
        points = points + noise.clamp(-clip, clip)
    if dropout:
        dropped = uniform(clouds, number) < uniform(clouds, 1, high=dropout)
        points = torch.where(dropped.unsqueeze(-1), points[:, :1], points)
    return points


def random_subsets(points: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """``[clouds, number, 3]``: ``number`` points of each cloud, drawn without replacement."""
    keys = torch.rand(points.shape[:2], generator=generator, device=points.device)
    chosen = keys.topk(number, dim=1, sorted=False).indices
    return points.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 3))


def axis_rotations(angles: Tensor, axis: str) -> Tensor:
    """``[n]`` angles in radians about ``axis`` (``x``, ``y`` or ``z``) to ``[n, 3, 3]``."""
    cos, sin, zero, one = angles.cos(), angles.sin(), angles * 0, angles * 0 + 1
    rows = {
        "x": [one, zero, zero, zero, cos, -sin, zero, sin, cos],
        "y": [cos, zero, sin, zero, one, zero, -sin, zero, cos],
        "z": [cos, -sin, zero, sin, cos, zero, zero, zero, one],
    }[axis]
    return torch.stack(rows, -1).view(-1, 3, 3)


def uniform_rotations(u: Tensor) -> Tensor:
    """``[n, 3]`` numbers, uniform in [0, 1), to ``[n, 3, 3]`` rotations, uniform in SO(3).

    By way of a uniform unit quaternion (Shoemake 1992, Graphics Gems III).
    """
    a, b = (1 - u[:, 0]).sqrt(), u[:, 0].sqrt()
    s, t = 2 * math.pi * u[:, 1], 2 * math.pi * u[:, 2]
    w, x, y, z = b * t.cos(), a * s.sin(), a * s.cos(), b * t.sin()
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, -1).view(-1, 3, 3)
