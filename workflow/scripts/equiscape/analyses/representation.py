"""Which permutation representation the hidden layers of each final network carry.

For networks with a ``plane``, such as architecture ``permutation-mlp``; see
:mod:`equiscape.groups.detect`. Other tasks of a study are passed over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from equiscape.analyses.result import Result
from equiscape.analyses.subject import Subject
from equiscape.groups.detect import arrays, detect_model, nearest_planes
from equiscape.settings import NonNegativeInt, Positive
from equiscape.task import Task

COLUMNS = (
    *("task", "optimizer", "seed", "group", "inputs", "teacher", "student", "mode", "release"),
    "layer",
    *("loss", "test_loss", "representation", "residual", "homomorphism", "dead", "merged"),
    *("distance", "nearest", "nearest_distance", "equivariance_error"),
)


@dataclass(frozen=True)
class Settings:
    """The settings of ``analyses.representation``.

    Attributes:
        tolerance: below this share of the largest unit's size a unit is dead, and below this
            relative difference of their inputs two units are the same.
        exhaustive: the widest hidden layer whose distance to the plane of every representation is
            found, over all orders of its units.
    """

    tolerance: Positive = 1e-2
    exhaustive: NonNegativeInt = 6


def measure(subjects: Sequence[Subject], settings: Settings) -> Result:
    """One row for each hidden layer of each final network.

    ``mode`` is that of :func:`mode_of`; ``release`` is the share of the training after which a
    ``relaxed`` network was let go. ``loss`` and ``test_loss`` are mean squared errors over the
    target's variance. ``distance`` is that to the plane of the student's own representation, in the
    order that its units have, and ``nearest`` the representation whose plane, in any order, is
    nearest; both relative to the norm of the parameters. ``equivariance_error`` is the largest over
    g of the mean square of ``f(g x) - g f(x)`` over the target's variance.
    """
    rows = []
    for subject in subjects:
        for checkpoint in subject.checkpoints:
            model = checkpoint.model()
            if hasattr(model, "plane"):
                head = {
                    "task": subject.task.name,
                    "optimizer": checkpoint.optimizer,
                    "seed": checkpoint.seed,
                }
                rows += [{**head, **row} for row in describe(subject.task, model, settings)]
    return Result(pd.DataFrame(rows, columns=list(COLUMNS)))


@torch.no_grad()
def describe(task: Task, model: Any, settings: Settings) -> list[dict]:
    """The rows of one network, without whose it is."""
    teacher = getattr(task.dataset, "settings", None)
    inputs, *hidden, outputs = model.layer_representations
    found = detect_model(model, settings.tolerance)
    whole = {
        "group": model.group.name,
        "inputs": inputs.text,
        "teacher": ", ".join(teacher.hidden) if teacher else "",
        "student": ", ".join(representation.text for representation in hidden),
        "mode": mode_of(model),
        "release": model.release if model.mode == "relaxed" else float("nan"),
        "loss": task.evaluate(model, "train")["loss"],
        "test_loss": task.evaluate(model, "test")["loss"],
        "distance": model.plane.distance(dict(model.cpu().named_parameters())).item(),
        "equivariance_error": equivariance_error(task, model),
        "nearest": "",
        "nearest_distance": float("nan"),
    }
    if len(hidden) == 1 and hidden[0].width <= settings.exhaustive:
        distances = nearest_planes(
            model.group, arrays(model), inputs, outputs, model.activation_name
        )
        whole["nearest"] = min(distances, key=distances.__getitem__)
        whole["nearest_distance"] = distances[whole["nearest"]]
    return [
        {
            **whole,
            "layer": layer,
            "representation": detected.text,
            "residual": detected.residual,
            "homomorphism": detected.homomorphism,
            "dead": detected.dead,
            "merged": detected.merged,
        }
        for layer, detected in enumerate(found)
    ]


def mode_of(model: Any) -> str:
    """The network's mode, with ``relaxed`` told apart.

    ``penalized`` where it is pulled back instead of held; without noise ``released``, or
    ``unprojected`` where it is never held either: what leaves the plane is rounding.
    """
    if model.mode != "relaxed" or (model.noise and not model.penalty):
        return model.mode
    if model.penalty:
        return "penalized"
    return "released" if model.release else "unprojected"


@torch.no_grad()
def equivariance_error(task: Task, model: Any) -> float:
    """The largest over g of the mean square of ``f(g x) - g f(x)``, over the target's variance.

    The network predicts the target over its standard deviation.
    """
    inputs, *_, outputs = model.layer_representations
    model = model.to(task.device)
    worst = 0.0
    for batch in task.batches("test"):
        x = batch.inputs[0]
        plain = model(x)
        for g in model.group.generators:
            moved, expected = torch.empty_like(x), torch.empty_like(plain)
            moved[:, np.asarray(inputs.action[g])] = x
            expected[:, np.asarray(outputs.action[g])] = plain
            worst = max(worst, (model(moved) - expected).square().mean().item())
    return worst
