"""A generated shape data set: parametric solids and assemblies that are hard to tell apart.

Every object has random proportions, is tapered, twisted and bent, is sampled unevenly and with
noise, and stands at a random angle about a slightly tilted vertical axis. Neighboring classes
share proportions on purpose (a flat frustum and a cylinder, a stool and a round table), so that
no network reaches 100 %. The data are prepared by the code that prepares ModelNet40.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from equiscape.data import modelnet_layout, pointcloud
from equiscape.data.clouds import CloudSettings, unit_sphere
from equiscape.data.modelnet_layout import Part
from equiscape.data.pointcloud import load
from equiscape.data.solids import (
    Patch,
    arc,
    box,
    deform,
    frustum,
    move,
    revolve,
    sample_surface,
    superquadric,
    tube,
)
from equiscape.errors import ConfigError
from equiscape.settings import (
    Above,
    AtLeast,
    AtMost,
    Below,
    Count,
    NonNegative,
    PositiveInt,
)

__all__ = ["CLASSES", "generate", "load", "prepare"]

VERSION = 2
EMBEDDED = True
LOADER = ("sample_points",)

Rng = np.random.Generator


def ellipsoid(rng: Rng) -> list[Patch]:
    return superquadric(rng.uniform(0.6, 1, 3), rng.uniform(0.6, 1.2), rng.uniform(0.6, 1.2))


def block(rng: Rng) -> list[Patch]:
    return superquadric(rng.uniform(0.35, 1, 3), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5))


def cylinder(rng: Rng) -> list[Patch]:
    return frustum(0.5, 0.5 * rng.uniform(0.7, 1), rng.uniform(1.2, 2.6))


def cone(rng: Rng) -> list[Patch]:
    return frustum(0.5, 0.5 * rng.uniform(0, 0.4), rng.uniform(0.6, 1.6))


def torus(rng: Rng) -> list[Patch]:
    solid = tube(arc(1, rng.uniform(335, 360)), rng.uniform(0.2, 0.45))
    return [patch * [1, 1, rng.uniform(0.6, 1)] for patch in solid]


def horseshoe(rng: Rng) -> list[Patch]:
    solid = tube(arc(1, rng.uniform(150, 300)), rng.uniform(0.12, 0.35))
    return [patch * [1, 1, rng.uniform(0.6, 1)] for patch in solid]


def _legs(rng: Rng, x: float, y: float, height: float, number: int) -> list[Patch]:
    thick = rng.uniform(0.06, 0.16)
    angle = 2 * np.pi * (np.arange(number) + 0.5) / number
    reach = np.sqrt(2) if number == 4 else 1
    feet = np.stack([x * np.cos(angle), y * np.sin(angle)], -1) * reach * rng.uniform(0.7, 0.95)
    return [p for a, b in feet for p in box((thick, thick, height), (a, b, height / 2), steps=3)]


def table(rng: Rng) -> list[Patch]:
    x, y, height = rng.uniform(0.6, 1.0), rng.uniform(0.35, 0.7), rng.uniform(0.5, 0.9)
    top = box((2 * x, 2 * y, rng.uniform(0.05, 0.2)), (0, 0, height))
    return top + _legs(rng, x, y, height, 4)


def chair(rng: Rng) -> list[Patch]:
    x, y, height = rng.uniform(0.35, 0.6), rng.uniform(0.3, 0.55), rng.uniform(0.4, 0.9)
    seat = box((2 * x, 2 * y, rng.uniform(0.05, 0.2)), (0, 0, height))
    back = rng.uniform(0.4, 1.1)
    rest = box((2 * x, rng.uniform(0.05, 0.15), back), (0, y, height + back / 2))
    return seat + rest + _legs(rng, x, y, height, 4)


def stool(rng: Rng) -> list[Patch]:
    radius, height = rng.uniform(0.25, 0.5), rng.uniform(0.7, 1.3)
    seat = move(
        frustum(radius, radius * rng.uniform(0.8, 1), rng.uniform(0.05, 0.2)), (0, 0, height)
    )
    return seat + _legs(rng, radius, radius, height, int(rng.integers(3, 5)))


def stairs(rng: Rng) -> list[Patch]:
    steps, width = int(rng.integers(2, 6)), rng.uniform(0.4, 1.2)
    rise, run = rng.uniform(0.15, 0.4), rng.uniform(0.2, 0.4)
    return [
        patch
        for i in range(steps)
        for patch in box((run, width, rise * (i + 1)), (run * i, 0, rise * (i + 1) / 2), steps=3)
    ]


def bottle(rng: Rng) -> list[Patch]:
    body, neck = rng.uniform(0.25, 0.5), rng.uniform(0.08, 0.2)
    shoulder, height = rng.uniform(0.7, 1.2), rng.uniform(1.2, 1.8)
    slope = rng.uniform(0.1, 0.4)
    return revolve(
        [(0, 0), (body, 0), (body, shoulder), (neck, shoulder + slope), (neck, height + slope)]
    )


def lamp(rng: Rng) -> list[Patch]:
    height, shade = rng.uniform(0.7, 1.6), rng.uniform(0.3, 0.7)
    foot = frustum(rng.uniform(0.2, 0.5), rng.uniform(0.1, 0.3), rng.uniform(0.05, 0.2))
    pole = frustum(0.05, 0.05, height)
    screen = [(shade, 0), (shade * rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.6))]
    return foot + pole + move(revolve(screen), (0, 0, height - 0.1))


def mug(rng: Rng) -> list[Patch]:
    radius, height = rng.uniform(0.35, 0.6), rng.uniform(0.6, 1.2)
    cup = revolve([(0, 0), (radius, 0), (radius * rng.uniform(0.8, 1.1), height)])
    handle = tube(arc(height * rng.uniform(0.2, 0.4), 200), rng.uniform(0.04, 0.1))
    sideways = [np.stack([p[..., 2], p[..., 1], p[..., 0]], -1) for p in handle]
    return cup + move(sideways, (radius * 0.95, 0, height / 2))


def vase(rng: Rng) -> list[Patch]:
    heights = np.linspace(0, rng.uniform(1, 2), 5)
    return revolve([(0, 0), *zip(rng.uniform(0.15, 0.55, 5), heights)])


def spring(rng: Rng) -> list[Patch]:
    turns, along = rng.uniform(1.2, 4), np.linspace(0, 1, 80)
    angle = 2 * np.pi * turns * along
    height = along * rng.uniform(0.8, 2)
    return tube(
        np.stack([0.5 * np.cos(angle), 0.5 * np.sin(angle), height], -1), rng.uniform(0.05, 0.15)
    )


def dumbbell(rng: Rng) -> list[Patch]:
    length, bar = rng.uniform(0.8, 1.6), rng.uniform(0.06, 0.2)
    ends = [
        move(superquadric(rng.uniform(0.2, 0.45, 3), rng.uniform(0.3, 1), 1), (0, 0, z))
        for z in (0, length)
    ]
    return frustum(bar, bar, length) + ends[0] + ends[1]


# In this order: `classes: 12` takes the first twelve.
CLASSES: tuple[Callable[[Rng], list[Patch]], ...] = (
    ellipsoid,
    block,
    cylinder,
    cone,
    torus,
    horseshoe,
    table,
    chair,
    stool,
    stairs,
    bottle,
    lamp,
    mug,
    vase,
    spring,
    dumbbell,
)


def make_cloud(
    shape: Callable[[Rng], list[Patch]], number: int, noise: float, rng: Rng
) -> np.ndarray:
    """``[number, 3]`` points of one random object of a class, in the unit sphere.

    Args:
        shape: of :data:`CLASSES`.
        number: of points.
        noise: standard deviation of the points, where the object has radius 1.
        rng: source of randomness.
    """
    solid = deform(
        shape(rng),
        bend=rng.normal(0, 0.3),
        twist=rng.normal(0, 0.3),
        taper=float(np.clip(rng.normal(0, 0.15), -0.5, 0.5)),
    )
    stretch = np.exp(rng.normal(0, 0.1, 3))
    points = sample_surface([p * stretch for p in solid], number, rng.uniform(0, 0.6), rng)
    points = unit_sphere(points[None])[0] + rng.normal(0, noise, (number, 3))
    return unit_sphere((points @ _pose(rng).T)[None])[0]


def _pose(rng: Rng) -> np.ndarray:
    """A rotation by any angle about an axis that leans from the vertical by some 10 degrees."""
    axis = np.array([0, 0, 1]) + rng.normal(0, 0.12, 3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = rng.uniform(0, 2 * np.pi)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def generate(
    classes: int, per_class: int, number: int, noise: float, seed: int, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Generate one side of the data set.

    Every object has a random stream of its own, so object i of a class is the same however many
    others are generated.

    Args:
        classes: how many of :data:`CLASSES`, from the first.
        per_class: objects of each class.
        number: points of an object.
        noise: standard deviation of the points.
        seed: of the data set.
        side: 0 for training, 1 for test objects.

    Returns:
        points ``[n, number, 3]`` float32 and labels ``[n]``, in random order.
    """
    labels = np.repeat(np.arange(classes), per_class)
    points = np.stack(
        [
            make_cloud(CLASSES[c], number, noise, np.random.default_rng([seed, side, c, i]))
            for c in range(classes)
            for i in range(per_class)
        ]
    )
    order = np.random.default_rng([seed, side]).permutation(len(labels))
    return points[order].astype(np.float32), labels[order]


ARGUMENTS = ("num_outputs",)  # what the data dictates to a network
INPUTS = ("points",)  # of its forward
SAMPLES = "clouds"
LEARNS = "classes"
EXAMPLE = {"classes": 3, "train_per_class": 10, "points": 32, "validation": 0.2}
TARGETS: tuple[str, ...] = ()  # what a task may choose from
EXPECT = ("train", "test", "classes")
CORRUPTIBLE = True
AUGMENTATION = "equiscape.data.augment_clouds:Augmentation"
OVERRIDES = ("points", "sample_points")


@dataclass(frozen=True)
class Settings(CloudSettings):
    """Settings of a data set of this kind.

    Attributes:
        classes: how many of :data:`CLASSES`, from the first.
        train_per_class, test_per_class: objects of a class; the validation split is taken from
            the training ones.
        points: of a cloud that the networks see; it is written with twice as many.
        noise: standard deviation of the points, where an object has radius 1.
        validation: share of the training clouds held out for selection.
    """

    classes: Annotated[int, AtLeast(2), AtMost(16)] = 12
    train_per_class: Annotated[int, AtLeast(2)] = 40
    test_per_class: PositiveInt = 25
    points: Count = 128
    noise: NonNegative = 0.02
    validation: Annotated[float, Above(0), Below(1)] = 0.2
    CONSTRAINTS = (
        (
            "train_per_class * validation >= 0.5",
            "validation must leave at least one of {train_per_class} clouds of a class",
        ),
        (
            "train_per_class * (1 - validation) >= 0.5",
            "validation must leave at least one of {train_per_class} clouds of a class",
        ),
        (
            "validation_minimum < train_per_class",
            "validation_minimum must leave at least one of {train_per_class} clouds of a class",
        ),
        (
            "classes * (train_per_class + test_per_class) * points <= 1000000000",
            "points must be fewer, or fewer clouds: they have more than 1e9 points in all",
        ),
        (
            "'classes' not in expect or expect['classes'] == classes",
            "expect.classes must be the {classes} that are generated",
        ),
        (
            "'train' not in expect or expect['train'] == classes * train_per_class",
            "expect.train must be classes times train_per_class",
        ),
        (
            "'test' not in expect or expect['test'] == classes * test_per_class",
            "expect.test must be classes times test_per_class",
        ),
    )


def prepare(entry: dict[str, Any], source: Path | None, output: Path) -> None:
    """Generate the data set and prepare it as ModelNet40 is.

    Args:
        entry: of ``datasets`` in the configuration. Used here, with their defaults: ``classes``
            (12), ``train_per_class`` (40), ``test_per_class`` (25), ``points`` (128), ``noise``
            (0.02), ``seed`` (0), ``validation`` (0.2). Each cloud is written with twice as many
            points as networks see, which resampling them needs.
        source: not used; the data are embedded.
        output: the prepared file; written atomically.

    Raises:
        ConfigError: more classes than there are.
    """
    classes, seed = entry.get("classes", 12), entry.get("seed", 0)
    if not 2 <= classes <= len(CLASSES):
        raise ConfigError(
            f"datasets.{Path(output).stem}.classes: {classes} is not between 2 and {len(CLASSES)}."
        )
    number, noise = 2 * entry.get("points", 128), entry.get("noise", 0.02)
    counts = (entry.get("train_per_class", 40), entry.get("test_per_class", 25))
    sides = {
        name: generate(classes, count, number, noise, seed, side)
        for side, (name, count) in enumerate(zip(modelnet_layout.SIDES, counts))
    }
    digest = hashlib.sha256()
    for points, labels in sides.values():
        digest.update(points.tobytes() + labels.tobytes())
    output = Path(output)
    for left in output.parent.glob(f".{output.stem}.*/shape_names.txt"):  # by a killed job, once
        shutil.rmtree(left.parent, ignore_errors=True)
    pointcloud.write_clouds(
        {"validation": 0.2, **entry},
        Path("the generated shapes"),
        [shape.__name__ for shape in CLASSES[:classes]],
        [Part(side, f"{side} clouds", *clouds, None) for side, clouds in sides.items()],
        output,
        digest.hexdigest(),
        VERSION,
    )
