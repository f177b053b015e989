"""Small tasks of permutation representations, for the tests."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from equiscape.data import teacher
from equiscape.groups import parse_group, parse_representation
from equiscape.groups.plane import Plane
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


# the natural representation of S_n: f(x) = c 1^T s(W x + d 1)

TEACHER = (1.5, 0.7, 1.0, 0.3)  # alpha, beta, c, d


def natural_parameters(theta, n):
    """``W = alpha (I - J/n) + beta J/n, b = d 1, c 1^T`` as one network's parameters."""
    alpha, beta, c, d = theta
    mean = torch.ones(n, n, dtype=torch.float64) / n
    one = torch.ones(n, dtype=torch.float64)
    weight = alpha * (torch.eye(n, dtype=torch.float64) - mean) + beta * mean
    return {
        "layers.0.weight": weight,
        "layers.0.bias": d * one,
        "layers.1.weight": c * one.unsqueeze(0),
    }


def forward(parameters, x, activation=torch.tanh):
    """``[..., n, 1]``; the parameters may have leading axes."""
    before = x @ parameters["layers.0.weight"].mT + parameters["layers.0.bias"].unsqueeze(-2)
    return activation(before) @ parameters["layers.1.weight"].mT


@dataclass(frozen=True)
class Trap:
    """The minimum at alpha < 0 for a teacher of alpha > 0, on whole orbits of S4.

    ``found`` holds (alpha, beta, c, d) as ``x`` and the loss as ``fun``.
    """

    found: Any
    plane: Plane
    x: Tensor
    target: Tensor
    activation: Any

    def loss(self, parameters):
        """The mean squared error, one for each leading index."""
        output = forward(parameters, self.x, self.activation)
        return (output - self.target).square().mean((-2, -1))


@lru_cache
def trapped(activation=torch.tanh) -> Trap:
    """Found by BFGS over alpha, beta, c and d."""
    group = parse_group("S4")
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.cat([x[:, list(element)] for element in group.elements])
    target = forward(natural_parameters(torch.tensor(TEACHER).double(), 4), x, activation)
    representations = [parse_representation(group, t) for t in ("natural", "natural", "trivial")]
    plane = Plane.of_layers(representations, [True, False])
    trap = Trap(None, plane, x, target, activation)

    def value_and_gradient(theta):
        theta = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        value = trap.loss(natural_parameters(theta, 4))
        (gradient,) = torch.autograd.grad(value, theta)
        return value.item(), gradient.numpy()

    start = np.array([-0.6, 0.7, 1.0, 0.3])
    found = minimize(value_and_gradient, start, jac=True, method="BFGS", options={"gtol": 1e-11})
    return Trap(found, plane, x, target, activation)
