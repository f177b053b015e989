"""Random transforms of batches of point clouds, on the device that holds them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from equiscape.settings import NonNegative, Positive, Probability, read


@dataclass(frozen=True)
class Jitter:
    """Gaussian noise on each coordinate.

    Attributes:
        std: standard deviation.
        clip: largest displacement.
    """

    std: NonNegative = 0.01
    clip: Positive = 0.05


@dataclass(frozen=True)
class Augmentation:
    """The settings of ``training.augmentation`` for clouds, applied in this order.

    Attributes:
        rotate: ``y`` or ``z`` turns about that axis, ``so3`` by any rotation (ModelNet40's shapes
            stand along y, the generated ones along z).
        scale: range of the factor of each axis, uniform.
        shift: of each axis, uniform between this much down and up.
        jitter: Gaussian noise on each coordinate, clipped.
        dropout: a share of the points, uniform up to this, is replaced by the cloud's first point
            (Qi et al. 2017, PointNet++).
    """

    rotate: Literal["none", "y", "z", "so3"] | None = None
    scale: tuple[Positive, Positive] | None = None
    shift: NonNegative | None = None
    jitter: Jitter | None = None
    dropout: Probability | None = None
    CONSTRAINTS = (
        ("scale is None or scale[0] <= scale[1]", "scale must give the smaller factor first"),
    )


def augment_points(
    points: Tensor, settings: Mapping[str, Any], generator: torch.Generator
) -> Tensor:
    """Rotate, scale, shift, jitter and drop points, each cloud by itself, in that order.

    Args:
        points: ``[clouds, points, 3]``, or 6 with unit normals, which turn with the surface and
            stay where points are only moved; left as they are.
        settings: see :class:`Augmentation`.
        generator: on the device of ``points``.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """
    chosen = read(Augmentation, settings, "training.augmentation")
    points, normals = points[..., :3], points[..., 3:]
    clouds, number, _ = points.shape

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        drawn = torch.rand(shape, generator=generator, device=points.device, dtype=points.dtype)
        return low + (high - low) * drawn

    if chosen.rotate not in (None, "none"):
        if chosen.rotate == "so3":
            turns = uniform_rotations(uniform(clouds, 3)).mT
        else:
            turns = axis_rotations(uniform(clouds, high=2 * math.pi), chosen.rotate).mT
        points = points @ turns
        if normals.shape[-1]:
            normals = normals @ turns
    if chosen.scale not in (None, (1.0, 1.0)):
        factors = uniform(clouds, 1, 3, low=chosen.scale[0], high=chosen.scale[1])
        points = points * factors
        if normals.shape[-1]:
            normals = torch.nn.functional.normalize(normals / factors, dim=-1)
    if chosen.shift:
        points = points + uniform(clouds, 1, 3, low=-chosen.shift, high=chosen.shift)
    if chosen.jitter:
        noise = torch.empty_like(points).normal_(generator=generator) * chosen.jitter.std
        points = points + noise.clamp(-chosen.jitter.clip, chosen.jitter.clip)
    if chosen.dropout:
        dropped = uniform(clouds, number) < uniform(clouds, 1, high=chosen.dropout)
        points = torch.where(dropped.unsqueeze(-1), points[:, :1], points)
        normals = torch.where(dropped.unsqueeze(-1), normals[:, :1], normals)
    return torch.cat([points, normals], dim=-1) if normals.shape[-1] else points


def random_subsets(points: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """``[clouds, number, C]``: ``number`` points of each cloud, drawn without replacement."""
    keys = torch.rand(points.shape[:2], generator=generator, device=points.device)
    chosen = keys.topk(number, dim=1, sorted=False).indices
    return points.gather(1, chosen.unsqueeze(-1).expand(-1, -1, points.shape[2]))


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
