"""Random transforms of batches of point clouds, on the device that holds them."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equiscape.registry import call, unknown

ROTATIONS = ("none", "z", "so3")


def augment_points(
    points: Tensor, settings: Mapping[str, Any], generator: torch.Generator
) -> Tensor:
    """Transform every cloud of a batch independently: rotate, scale, shift, jitter, drop.

    Args:
        points: ``[clouds, points, 3]``; left as it is.
        settings: any of

            - ``rotate``: ``z`` turns about the vertical axis, ``so3`` by any rotation;
            - ``scale: [low, high]``: factor of each axis, uniform;
            - ``shift: s``: of each axis, uniform in ``[-s, s]``;
            - ``jitter: {std, clip}``: Gaussian noise on each coordinate, clipped;
            - ``dropout: p``: a share, uniform in ``[0, p]``, of the points is replaced by the
              cloud's first point (Qi et al. 2017, PointNet++).

        generator: on the device of ``points``.

    Raises:
        ConfigError: a setting is unknown.
    """
    return call(_augment, "training.augmentation", settings, points=points, generator=generator)


def _augment(
    points: Tensor,
    generator: torch.Generator,
    rotate: str = "none",
    scale: tuple[float, float] | None = None,
    shift: float | None = None,
    jitter: Mapping[str, float] | None = None,
    dropout: float | None = None,
) -> Tensor:
    clouds, number, _ = points.shape

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        drawn = torch.rand(shape, generator=generator, device=points.device, dtype=points.dtype)
        return low + (high - low) * drawn

    if rotate not in ROTATIONS:
        raise unknown(rotate, ROTATIONS, "training.augmentation.rotate")
    if rotate == "z":
        points = points @ rotations_about_z(uniform(clouds, high=2 * math.pi)).mT
    elif rotate == "so3":
        points = points @ rotations_from_uniform(uniform(clouds, 3)).mT
    if scale is not None:
        points = points * uniform(clouds, 1, 3, low=scale[0], high=scale[1])
    if shift:
        points = points + uniform(clouds, 1, 3, low=-shift, high=shift)
    if jitter is not None:
        noise = torch.empty_like(points).normal_(generator=generator)
        noise = noise * jitter.get("std", 0.01)
        points = points + noise.clamp(-jitter.get("clip", 0.05), jitter.get("clip", 0.05))
    if dropout:
        dropped = uniform(clouds, number) < uniform(clouds, 1, high=dropout)
        points = torch.where(dropped.unsqueeze(-1), points[:, :1], points)
    return points


def rotations_about_z(angles: Tensor) -> Tensor:
    """``[n]`` angles in radians to ``[n, 3, 3]`` rotation matrices."""
    cos, sin, zero, one = angles.cos(), angles.sin(), angles * 0, angles * 0 + 1
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).view(-1, 3, 3)


def rotations_from_uniform(u: Tensor) -> Tensor:
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
