"""What a cell reports on: its best and last epochs, and the weights of the best one."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from equiscape.metric import Metric


class Best:
    """The evaluations at the best validation epoch, the last one and the best test epoch.

    Ties of the score go to the lower loss, then to the earlier epoch.

    Attributes:
        at: ``best_validation``, ``last`` and ``best_test``, each
            ``{"epoch", "validation": {"loss", "score"}, "test": ...}``, or None before the first.
        weights: of the best validation epoch, or by ``keep`` of the last one that was evaluated,
            where ``keep_weights``.
        output: the network's outputs on the test split then, batch after batch.
        kept: that epoch; 0 before the first.
    """

    def __init__(self, metric: Metric, keep_weights: bool, keep: Literal["best", "last"] = "best"):
        self.metric, self.keep_weights, self.keep = metric, keep_weights, keep
        self.kept = 0
        self.at: dict[str, dict | None] = {"best_validation": None, "last": None, "best_test": None}
        self.weights: dict[str, Tensor] | None = None
        self.output: Tensor | None = None

    @property
    def epoch(self) -> int:
        """The best validation epoch, 0 before the first."""
        best = self.at["best_validation"]
        return best["epoch"] if best else 0

    def compare(self, entry: dict[str, Any], model: nn.Module, output: Tensor) -> None:
        """Keep ``entry``, with the test split's ``output``, where it is the best so far."""
        self.at["last"] = entry
        keep = self.keep == "last"
        for name, split in (("best_validation", "validation"), ("best_test", "test")):
            best = self.at[name]
            if best is None or self._better(entry[split], best[split]):
                self.at[name] = entry
                keep = keep or name == "best_validation"
        if keep:
            self.kept = entry["epoch"]
        if keep and self.keep_weights:
            self.weights = {k: v.clone() for k, v in model.state_dict().items()}
            self.output = output

    def _better(self, new: Mapping[str, float], old: Mapping[str, float]) -> bool:
        if new["score"] == old["score"]:
            return new["loss"] < old["loss"]
        return self.metric.better(new["score"], old["score"])

    def state(self) -> dict[str, Any]:
        """For a resume point."""
        kept = {"weights": self.weights, "output": self.output, "kept": self.kept}
        return {"at": self.at, **kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.at, self.weights, self.output = state["at"], state["weights"], state["output"]
        self.kept = state["kept"]
