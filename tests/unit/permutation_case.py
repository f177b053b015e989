"""Small tasks of permutation representations, for the tests."""

import numpy as np
import torch

from equiscape.data import teacher
from equiscape.groups import parse_group, parse_representation
from equiscape.models.permutation_mlp import PermutationMLP
from equiscape.settings import read
from equiscape.task import Task

GROUPS = ("S3", "C4", "D4")


def teacher_task(folder, model=None, name="case", **entry) -> Task:
    """A task of kind ``teacher``; ``entry`` are settings of its data set."""
    entry = {"samples": 6, "held": 3, **entry}
    path = folder / f"{name}.h5"
    teacher.prepare(entry, None, path)
    dataset = teacher.load(path, torch.device("cpu"), entry)
    dataset.name = name
    settings = {"architecture": "permutation-mlp", "model": model or {}}
    settings["training"] = {"batch_size": 10**6}
    return Task(name, settings, dataset, torch.device("cpu"))


def network(group="S3", inputs="natural", outputs="trivial", seed=0, **settings):
    """A freshly initialized network in float64."""
    torch.manual_seed(seed)
    arguments = {"group": group, "inputs": inputs, "outputs": outputs}
    return read(PermutationMLP, settings, "model", **arguments)


def arrays(model) -> dict[str, np.ndarray]:
    """Its parameters as arrays."""
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def shuffle_units(parameters, rng, flip=False):
    """The same function, with the units of each hidden layer in another order, or flipped."""
    shuffled = dict(parameters)
    layers = 1 + max(int(name.split(".")[1]) for name in parameters)
    for layer in range(layers - 1):
        into, bias, out = (
            f"layers.{layer}.weight",
            f"layers.{layer}.bias",
            f"layers.{layer + 1}.weight",
        )
        order = rng.permutation(len(shuffled[into]))
        signs = rng.choice([-1, 1], len(order)) if flip else np.ones(len(order))
        shuffled[into] = signs[:, None] * shuffled[into][order]
        shuffled[bias] = signs * shuffled[bias][order]
        shuffled[out] = shuffled[out][:, order] * signs
    return shuffled


def action(group, text):
    """``[order, width]`` of a representation."""
    return parse_representation(parse_group(group), text).action
