"""What a task minimises and what it reports: a loss, a metric and the metric's direction."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from equiscape.metric import Metric


class Objective:
    """Loss and metric of a task."""

    metric: Metric
    loss_name: str

    def describe(self) -> dict[str, Any]:
        """What the outputs mean, see :meth:`equiscape.data.base.Dataset.outputs`."""
        raise NotImplementedError

    def loss(self, output: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss over the samples of a batch, a scalar."""
        raise NotImplementedError

    def score(self, output: Tensor, target: Tensor) -> float:
        """The metric over a whole split: ``output`` and ``target`` of all its samples."""
        raise NotImplementedError


class Classification(Objective):
    """One label of C: ``output [n, C]`` logits, ``target [n]`` int64; overall accuracy in %."""

    metric = Metric("accuracy", "max", "%")
    loss_name = "cross entropy"

    def describe(self) -> dict[str, Any]:
        """Logits, one a class."""
        return {"kind": "classification"}

    def loss(self, output: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy, with the target mixed with the uniform law by ``label_smoothing``."""
        return F.cross_entropy(output, target, label_smoothing=label_smoothing)

    def score(self, output: Tensor, target: Tensor) -> float:
        """Percentage of samples whose largest logit is the label's; NaN if a logit is NaN."""
        if not torch.isfinite(output).all():
            return float("nan")
        return 100.0 * (output.argmax(-1) == target).double().mean().item()


class Regression(Objective):
    """One number a sample: ``output [n]`` or ``[n, 1]``, ``target`` of the same count.

    The network predicts ``(target - mean) / std``; loss is taken on that scale, the score (mean
    absolute error) in the target's own unit.

    Args:
        loss: ``"mse"`` or ``"l1"``.
        mean, std: of the training targets.
        unit: of the target.
    """

    def __init__(
        self, loss: Literal["mse", "l1"], mean: float = 0.0, std: float = 1.0, unit: str = ""
    ):
        self.metric = Metric("MAE", "min", unit)
        self.loss_name = {"mse": "mean squared error", "l1": "mean absolute error"}[loss]
        self._loss = {"mse": F.mse_loss, "l1": F.l1_loss}[loss]
        self.mean, self.std = float(mean), float(std)

    def describe(self) -> dict[str, Any]:
        """A number on the scale ``(target - mean) / std``."""
        scale = {"mean": self.mean, "std": self.std, "unit": self.metric.unit}
        return {"kind": "regression", **scale}

    def loss(self, output: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean squared or absolute error of the standardised target; smoothing has no meaning."""
        return self._loss(output.flatten(), (target.flatten() - self.mean) / self.std)

    def score(self, output: Tensor, target: Tensor) -> float:
        """Mean absolute error, in the target's unit."""
        error = output.flatten().double() * self.std + self.mean - target.flatten().double()
        return error.abs().mean().item()


class MultiLabel(Objective):
    """L independent labels: ``output [n, L]`` logits, ``target [n, L]`` in {0, 1}."""

    metric = Metric("AP", "max")
    loss_name = "binary cross entropy"

    def describe(self) -> dict[str, Any]:
        """Logits, one a label."""
        return {"kind": "multilabel"}

    def loss(self, output: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Binary cross entropy, averaged over samples and labels."""
        target = target.to(output.dtype)
        if label_smoothing:
            target = target * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(output, target)

    def score(self, output: Tensor, target: Tensor) -> float:
        """Average precision, unweighted mean over the labels that have a positive sample."""
        from sklearn.metrics import average_precision_score

        if not torch.isfinite(output).all():
            return float("nan")
        present = target.sum(0) > 0
        truth, scores = target[:, present].cpu().numpy(), output[:, present].cpu().numpy()
        return float(average_precision_score(truth, scores, average="macro"))
