"""Inputs and targets of a teacher: a random equivariant network whose representations are known.

No source is needed. The prepared file has ``x [n, width]`` and ``y [n, width]`` for each of
``train``, ``validation`` and ``test``, and the teacher's own parameters under ``teacher``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from equiscape.data.base import Batch, Dataset, Split
from equiscape.errors import DataError
from equiscape.files import products
from equiscape.files.hdf5 import put, reading, writing
from equiscape.groups import parse_group, parse_representation
from equiscape.groups.plane import Plane
from equiscape.objectives import Regression
from equiscape.ops.chunks import upload
from equiscape.settings import (
    AtLeast,
    Count,
    Names,
    NonNegative,
    Positive,
    PositiveInt,
    Seed,
    read,
)

VERSION = 2
EMBEDDED = True
LOADER = ("passes", "dtype")
FILES: tuple[str, ...] = ()
ARGUMENTS = ("group", "inputs", "outputs", "dtype")  # what the data dictates to a network
INPUTS = ("x",)  # of its forward
SAMPLES = "vectors"
LEARNS = "numbers"
EXAMPLE: dict = {}  # the defaults
TARGETS: tuple[str, ...] = ()
EXPECT: tuple[str, ...] = ()
FORMAT = "equiscape-teacher-1"
SPLITS = ("train", "validation", "test")
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@dataclass(frozen=True)
class Settings:
    """Settings of a data set of this kind.

    Attributes:
        group: such as ``S3``.
        inputs, outputs: representations of the input and the output.
        hidden: the representation of each of the teacher's hidden layers.
        activation: of the teacher.
        scale: of the teacher's weights: orbit parameters have standard deviation
            ``scale / sqrt(fan in)``.
        samples: normal inputs that training starts from; each comes with all its images.
        held: the same for the validation and the test split each.
        closed: whether a split holds the whole orbit of each input; else as many inputs are drawn
            independently, from the same invariant law.
        noise: standard deviation of Gaussian noise on the training targets, relative to theirs.
        passes: full passes that one epoch of training makes.
        dtype: of inputs, targets and the networks that learn them.
        seed: of teacher, inputs and noise.
    """

    group: Annotated[str, Names("group")] = "S3"
    inputs: Annotated[str, Names("representations")] = "natural"
    outputs: Annotated[str, Names("representations")] = "trivial"
    hidden: Annotated[list[str], AtLeast(1), Names("representations")] = ("natural",)  # type: ignore[assignment]  # a tuple once read
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    scale: Positive = 2.0
    samples: Count = 40
    held: Count = 20
    closed: bool = True
    noise: NonNegative = 0.0
    passes: PositiveInt = 1
    dtype: Literal["float32", "float64"] = "float64"
    seed: Seed = 0

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> "Settings":
        """From a ``datasets`` entry, of which other keys are left to their owners.

        Raises:
            ConfigError: a value is of another type or out of range.
        """
        names = {field.name for field in fields(cls)}
        own = {key: value for key, value in entry.items() if key in names}
        return read(cls, own, f"datasets.{entry.get('name', 'teacher')}")


def prepare(entry: Mapping[str, Any], source: Path | None, output: Path) -> None:
    """Draw a teacher and its data; ``source`` is not used.

    Raises:
        ConfigError: the group or a representation is unknown.
    """
    settings = Settings.read(entry)
    group = parse_group(settings.group)
    texts = [
        (settings.inputs, "datasets.inputs"),
        *((text, "datasets.hidden") for text in settings.hidden),
        (settings.outputs, "datasets.outputs"),
    ]
    layers = [parse_representation(group, text, key) for text, key in texts]
    depth = len(layers) - 1
    plane = Plane.of_layers(layers, [True] * (depth - 1) + [False])
    generator = torch.Generator().manual_seed(settings.seed)
    teacher = {
        name: settings.scale
        / layers[int(name.split(".")[1])].width ** 0.5
        * plane.draw(name, generator).numpy()
        for name in plane.labels
    }
    rng = np.random.default_rng(settings.seed)
    with writing(output) as file:
        file.attrs["format"] = FORMAT
        file.attrs["preparation_version"] = VERSION
        for name, value in teacher.items():
            file[f"teacher/{name}"] = value
        for split in SPLITS:
            count = settings.samples if split == "train" else settings.held
            x = inputs(layers[0].action, count, settings.closed, rng)
            y = apply(teacher, x, depth, settings.activation)
            if settings.noise and split == "train":
                y = y + settings.noise * y.std() * rng.normal(size=y.shape)
            put(file, f"{split}/x", x)
            put(file, f"{split}/y", y)
    products.sign(output, format=FORMAT, preparation_version=VERSION)


def inputs(action: np.ndarray, count: int, closed: bool, rng: np.random.Generator) -> np.ndarray:
    """``[count * order, width]`` standard normal inputs; ``closed``: whole orbits of ``count``.

    Args:
        action: ``[order, width]``, of the group on the input.
    """
    order, width = action.shape
    if not closed:
        return rng.normal(size=(count * order, width))
    start = rng.normal(size=(count, width))
    images = np.empty((count, order, width))
    for g in range(order):
        images[:, g, action[g]] = start
    return images.reshape(-1, width)


def apply(
    parameters: Mapping[str, np.ndarray], x: np.ndarray, depth: int, activation: str
) -> np.ndarray:
    """The output of a perceptron of ``depth`` layers at the rows of ``x``."""
    for layer in range(depth):
        x = x @ parameters[f"layers.{layer}.weight"].T
        x = x + parameters.get(f"layers.{layer}.bias", 0.0)
        if layer < depth - 1:
            x = ACTIVATIONS[activation](x)
    return x


class TeacherDataset(Dataset):
    """A teacher's data on a device.

    The loss is the mean squared error over the target's variance: 1 is what the best constant
    reaches.
    """

    def __init__(self, path: Path, device: torch.device, settings: Settings):
        self.settings = settings
        dtype = getattr(torch, settings.dtype)
        self._tensors: dict[str, tuple[Tensor, Tensor]] = {}
        with reading(path, FORMAT) as file:
            for split in SPLITS:
                x, y = (torch.as_tensor(file[f"{split}/{name}"][()]) for name in "xy")
                self._tensors[split] = (x.to(device, dtype), y.to(device, dtype))
        std = self._tensors["train"][1].double().std(correction=0).item()
        if not std > 0:
            raise DataError(f"{path}: the teacher's output is constant; change its seed or scale.")
        self.objective = Regression("mse", std=std)

    def model_arguments(self) -> dict[str, Any]:
        """Group, representations of input and output, and precision."""
        settings = self.settings
        return {
            "group": settings.group,
            "inputs": settings.inputs,
            "outputs": settings.outputs,
            "dtype": settings.dtype,
        }

    def size(self, split: Split) -> int:
        """The number of samples in ``split``."""
        return len(self._tensors[split][0])

    def plan(
        self, split: Split, batch_size: int, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """As for every data set; a shuffled plan, which is an epoch, makes ``passes`` passes."""
        passes = 1 if generator is None else self.settings.passes
        batches: list[Tensor] = []
        for _ in range(passes):
            batches += super().plan(split, batch_size, generator)
        return batches

    def gather(self, split: Split, indices: Tensor) -> Batch:
        """The samples ``indices`` of ``split``."""
        x, y = self._tensors[split]
        where = upload(indices, x.device)
        return Batch((x[where],), y[where], len(indices))


def load(path: Path, device: torch.device, entry: Mapping[str, Any]) -> TeacherDataset:
    """A prepared file as a data set."""
    return TeacherDataset(path, device, Settings.read(entry))
