"""The Hessian of the training loss within the equivariant plane and across it.

Negative curvature across the plane at a minimum within it is the signature of a saddle that the
symmetry makes: an equivariant network is stuck there, a perceptron is not. For networks with a
``plane`` that are still on it; other tasks and networks of a study are passed over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from equiscape.analyses.result import Result
from equiscape.analyses.subject import Subject
from equiscape.errors import DataError
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.plane import plane_curvature
from equiscape.settings import Positive, PositiveInt
from equiscape.task import Task

COLUMNS = (
    *("task", "optimizer", "seed", "loss", "kind", "parameters", "dimension"),
    *("gradient_inside", "gradient_across", "coupling", "lowest_inside", "highest_inside"),
    *("lowest_across", "highest_across", "negative_inside", "negative_across"),
)


@dataclass(frozen=True)
class Settings:
    """The settings of ``analyses.constrained-landscape``.

    Attributes:
        tolerance: an eigenvalue is negative below minus this share of the largest.
        on_plane: the largest relative distance from the plane of a network that counts as on it.
        largest: most parameters of a network, whose whole Hessian is built.
    """

    tolerance: Positive = 1e-6
    on_plane: Positive = 1e-12
    largest: PositiveInt = 4000


def measure(subjects: Sequence[Subject], settings: Settings) -> Result:
    """One row for each final network on its plane.

    ``kind`` is ``minimum``, ``saddle across`` (a minimum within the plane only) or ``saddle
    within``; ``dimension`` is that of the plane. Gradients are norms, ``coupling`` is the largest
    singular value of the Hessian's block between the plane and its complement: zero but for
    rounding where each batch holds whole orbits.
    """
    rows = []
    for subject in subjects:
        for checkpoint in subject.checkpoints:
            model = checkpoint.model()
            plane = getattr(model, "plane", None)
            if plane is None:
                continue
            away = plane.distance({name: p.cpu() for name, p in model.named_parameters()})
            if away.item() <= settings.on_plane:
                head = {
                    "task": subject.task.name,
                    "optimizer": checkpoint.optimizer,
                    "seed": checkpoint.seed,
                }
                rows.append({**head, **describe(subject.task, model, settings)})
    return Result(pd.DataFrame(rows, columns=list(COLUMNS)))


def describe(task: Task, model: Any, settings: Settings) -> dict:
    """The row of one network, without whose it is.

    Raises:
        DataError: the network has too many parameters.
    """
    loss = TrainingLoss(
        task,
        model,
        samples=None,
        batch_size=task.dataset.size("train"),
        seed=0,
        dtype="float64",
    )
    if loss.size > settings.largest:
        raise DataError(
            f"task {task.name} has {loss.size} parameters; analyses.constrained-landscape builds "
            f"the Hessian of at most {settings.largest}, see its setting `largest`."
        )
    value, gradient = loss.value_and_gradient()
    identity = torch.eye(loss.size, dtype=torch.float64, device=loss.device)
    hessian = loss.operator(identity).cpu()
    hessian = (hessian + hessian.mT) / 2
    found = plane_curvature(model.plane, loss.names, gradient.cpu(), hessian)
    scale = settings.tolerance * torch.linalg.eigvalsh(hessian).abs().max()
    across = found.across if len(found.across) else torch.full((1,), float("nan"))
    return {
        "loss": value,
        "kind": found.kind(settings.tolerance),
        "parameters": loss.size,
        "dimension": model.plane.dimension,
        "gradient_inside": found.gradient_inside,
        "gradient_across": found.gradient_across,
        "coupling": found.coupling,
        "lowest_inside": found.inside[0].item(),
        "highest_inside": found.inside[-1].item(),
        "lowest_across": across[0].item(),
        "highest_across": across[-1].item(),
        "negative_inside": int((found.inside < -scale).sum()),
        "negative_across": int((across < -scale).sum()),
    }
