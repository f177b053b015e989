"""A bar on a terminal, plain lines in a log."""

import logging
import math
import sys
from typing import Any

from equiscape.objectives import Metric

log = logging.getLogger("equiscape.training")


class Progress:
    """Reports on a training run; ``bar`` adds a bar over its steps on standard error."""

    def __init__(self, label: str, metric: Metric, epochs: int, bar: bool):
        self.metric, self.epochs = metric, epochs
        self._bar: Any = None
        if bar:
            from tqdm import tqdm

            self._bar = tqdm(desc=label, file=sys.stderr, unit="step", dynamic_ncols=True)

    def plan(self, done: int, steps_per_epoch: int) -> None:
        """Set how many steps there are in all and how many are done."""
        if self._bar is not None:
            self._bar.total = self.epochs * steps_per_epoch
            self._bar.n = self._bar.initial = done
            self._bar.refresh()

    def step(self, done: int) -> None:
        """So many steps are done in all."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def epoch(self, row: dict[str, float]) -> None:
        """One more epoch is done; ``row`` is its line of the history."""
        score = f"{self.metric.name} {row['validation_score']:.4g} {self.metric.unit}".strip()
        if math.isnan(row["validation_score"]):
            score = "not evaluated"
        loss = row["train_loss"]
        log.info("epoch %d of %d: loss %.4g, validation %s", row["epoch"], self.epochs, loss, score)
        if self._bar is not None:
            self._bar.set_postfix_str(f"epoch {row['epoch']}, loss {loss:.4g}, {score}")

    def close(self) -> None:
        """Leave the terminal in order."""
        if self._bar is not None:
            self._bar.close()
