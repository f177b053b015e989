"""What a task minimizes and what it reports: a loss, a metric and the metric's direction."""

import logging
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from equiscape.metric import Metric

log = logging.getLogger("equiscape")


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

    def chance_loss(self, target: Tensor) -> float:
        """The mean loss of the best constant prediction for ``target``, all samples of a split.

        What a network reaches that does not look at its input: the entropy of the labels, the
        spread of a regression's targets.
        """
        raise NotImplementedError

    def score(self, output: Tensor, target: Tensor) -> float:
        """The metric over a whole split: ``output`` and ``target`` of all its samples."""
        raise NotImplementedError

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, float]:
        """Every metric of the field by name, over a whole split; the first one is the score."""
        return {self.metric.name: self.score(output, target)}

    def by_class(self, output: Tensor, target: Tensor) -> list[float]:
        """The score within each class or label, NaN where a split has none; empty if neither."""
        return []

    def predict(self, output: Tensor) -> Tensor:
        """What a person reads: a class, a value in the target's unit, probabilities."""
        return output


class Classification(Objective):
    """One label of C: ``output [n, C]`` logits, ``target [n]`` int64; overall accuracy in %."""

    metric = Metric("accuracy", "max", "%")
    loss_name = "cross entropy"

    def describe(self) -> dict[str, Any]:
        """Logits, one a class."""
        return {"kind": "classification"}

    def loss(self, output: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy with ``label_smoothing`` s, as torch has it: target (1 - s) y + s / C.

        DGCNN spreads eps over the C - 1 *other* classes; that is ``s = eps * C / (C - 1)`` here.
        """
        return F.cross_entropy(output, target, label_smoothing=label_smoothing)

    def chance_loss(self, target: Tensor) -> float:
        """The entropy of the labels' frequencies, at most log C."""
        shares = torch.bincount(target.flatten()).double() / target.numel()
        return -torch.xlogy(shares, shares).sum().item()

    def score(self, output: Tensor, target: Tensor) -> float:
        """Percentage of samples whose largest logit is the label's; NaN if a logit is NaN."""
        if not torch.isfinite(output).all():
            return float("nan")
        return 100.0 * (output.argmax(-1) == target).double().mean().item()

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, float]:
        """Overall accuracy, and the mean of the classes' own accuracies (of those in the split)."""
        classes = [value for value in self.by_class(output, target) if value == value]
        mean = sum(classes) / len(classes) if classes else float("nan")
        return {**super().metrics(output, target), "mean class accuracy": mean}

    def by_class(self, output: Tensor, target: Tensor) -> list[float]:
        """Percentage of the samples of each class whose largest logit is the class's."""
        if not torch.isfinite(output).all():
            return [float("nan")] * output.shape[1]
        matrix = self.confusion(output, target).double()
        return (100.0 * matrix.diagonal() / matrix.sum(1)).tolist()

    def confusion(self, output: Tensor, target: Tensor) -> Tensor:
        """``[C, C]`` counts: samples of the row's class that are taken for the column's."""
        classes = output.shape[1]
        pairs = target * classes + output.argmax(-1)
        return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def predict(self, output: Tensor) -> Tensor:
        """``[n]`` the class of the largest logit."""
        return output.argmax(-1)


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
        """Mean squared or absolute error of the standardized target; smoothing has no meaning."""
        return self._loss(output.flatten(), (target.flatten() - self.mean) / self.std)

    def chance_loss(self, target: Tensor) -> float:
        """The loss of the mean (mse) or of the median (l1), on the standardized scale."""
        values = ((target.flatten() - self.mean) / self.std).double()
        constant = values.mean() if self._loss is F.mse_loss else values.quantile(0.5)
        return self._loss(constant.expand_as(values), values).item()

    def score(self, output: Tensor, target: Tensor) -> float:
        """Mean absolute error, in the target's unit."""
        error = output.flatten().double() * self.std + self.mean - target.flatten().double()
        return error.abs().mean().item()

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, float]:
        """Mean absolute and root mean squared error, in the target's unit."""
        error = self.predict(output) - target.flatten().double()
        return {**super().metrics(output, target), "RMSE": error.square().mean().sqrt().item()}

    def predict(self, output: Tensor) -> Tensor:
        """``[n]`` float64 values in the target's unit."""
        return output.flatten().double() * self.std + self.mean


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

    def chance_loss(self, target: Tensor) -> float:
        """The mean over the labels of the entropy of being set."""
        share = target.double().nanmean(0)
        return -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)).mean().item()

    def score(self, output: Tensor, target: Tensor) -> float:
        """Average precision, unweighted mean over the labels that have both kinds of samples.

        As OGB's evaluator has it: a label that is 1 (or 0) in every sample of the split is left
        out, and so is a sample whose target for a label is NaN. Without any label that is left it
        is NaN, with a warning.
        """
        return self._mean("average precision", self.by_class(output, target))

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, float]:
        """Average precision and area under the ROC curve, each the mean over the labels."""
        from sklearn.metrics import roc_auc_score

        area = self._mean("the ROC AUC", self._by_label(output, target, roc_auc_score))
        return {**super().metrics(output, target), "ROC AUC": area}

    def by_class(self, output: Tensor, target: Tensor) -> list[float]:
        """Average precision of each label; NaN for one that :meth:`score` leaves out."""
        from sklearn.metrics import average_precision_score

        return self._by_label(output, target, average_precision_score)

    def predict(self, output: Tensor) -> Tensor:
        """``[n, L]`` probabilities."""
        return output.sigmoid()

    @staticmethod
    def _by_label(
        output: Tensor, target: Tensor, measure: Callable[[Any, Any], float]
    ) -> list[float]:
        if not torch.isfinite(output).all():
            return [float("nan")] * output.shape[1]
        truth, scores = target.double().cpu().numpy(), output.cpu().numpy()
        found = []
        for label, score in zip(truth.T, scores.T):
            known = label == label
            both = (label == 1).any() and (label == 0).any()
            found.append(float(measure(label[known], score[known])) if both else float("nan"))
        return found

    @staticmethod
    def _mean(name: str, values: list[float]) -> float:
        defined = [value for value in values if value == value]
        if not defined:
            log.warning("%s is not defined: no label has samples of both kinds.", name)
            return float("nan")
        return float(np.mean(defined))
