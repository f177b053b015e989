"""What a final cell predicts on the test split, at its best validation epoch."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscape.task import Task


def test_figures(task: Task, output: Tensor | None) -> dict[str, Any]:
    """Every metric by name, and the score within each class or label by name.

    Args:
        output: ``[n, num_outputs]`` in the order of the test split's batches; None for a cell that
            was never evaluated.
    """
    if output is None:
        return {"metrics": {}, "classes": {}}
    target, objective, meaning = _target(task), task.dataset.objective, task.dataset.outputs()
    scores = objective.by_class(output, target)
    names = meaning.get("class_names") or meaning.get("labels") or map(str, range(len(scores)))
    return {
        "metrics": objective.metrics(output, target),
        "classes": dict(zip(names, scores)),
    }


def arrays(task: Task, output: Tensor | None) -> dict[str, np.ndarray]:
    """For ``predictions.npz``, sample by sample in the order of the test split.

    ``output`` ``[n, num_outputs]`` (logits, or standardized values), ``prediction`` (see
    :meth:`equiscape.objectives.Objective.predict`), ``target``, and for classes ``confusion``
    ``[C, C]``: counts of the row's class taken for the column's. Empty for a cell that was never
    evaluated.
    """
    if output is None:
        return dict.fromkeys(("output", "prediction", "target"), np.zeros(0))
    objective = task.dataset.objective
    order = torch.cat(task.plan("test")).argsort()
    output, target = output.cpu()[order], _target(task).cpu()[order]
    found = {"output": output, "prediction": objective.predict(output), "target": target}
    if hasattr(objective, "confusion"):
        found["confusion"] = objective.confusion(output, target)
    return {name: tensor.numpy() for name, tensor in found.items()}


def _target(task: Task) -> Tensor:
    """The test split's targets, batch after batch."""
    return torch.cat([batch.target for batch in task.batches("test")])
