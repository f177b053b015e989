"""A bar on a terminal, plain lines in a log."""

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from equiscape.metric import Metric

log = logging.getLogger("equiscape.training")

EVERY = 100  # up to so many epochs, each has its line
SECONDS = 2.0  # between two lines of a training of more


class Progress:
    """Reports on a training run; ``bar`` adds a bar over its steps on standard error.

    Args:
        label: of the bar.
        metric: of the validation score.
        epochs: that the training has at most.
        bar: whether there is one.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        label: str,
        metric: Metric,
        epochs: int,
        bar: bool,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.metric, self.epochs, self.clock = metric, epochs, clock
        self._begun = self._said = clock()
        self._first: float | None = None  # epochs that were done when this process began
        self._before = (0, 0.0)  # samples seen and seconds in steps, up to the last line
        self._held: str | None = None  # the last line, if it was held back
        self._bar: Any = None
        if bar:
            from tqdm import tqdm

            self._bar = tqdm(desc=label, file=sys.stderr, unit="step", dynamic_ncols=True)

    def plan(
        self, done: int, steps_per_epoch: int, samples: int = 0, train_seconds: float = 0.0
    ) -> None:
        """Set how many steps there are in all and how many are done.

        Args:
            done, steps_per_epoch: numbers of steps.
            samples: that these steps have seen.
            train_seconds: that these steps have taken.
        """
        self._begun = self._said = self.clock()
        self._first, self._before = done / steps_per_epoch, (samples, train_seconds)
        if self._bar is not None:
            self._bar.total = self.epochs * steps_per_epoch
            self._bar.n = self._bar.initial = done
            self._bar.refresh()

    def step(self, done: int) -> None:
        """So many steps are done in all."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def epoch(self, row: Mapping[str, float], samples: int, train_seconds: float) -> None:
        """One more epoch is done.

        Args:
            row: its line of the history.
            samples: seen in all.
            train_seconds: spent in training steps in all.
        """
        score = f"{self.metric.name} {row['validation_score']:.4g} {self.metric.unit}".strip()
        if math.isnan(row["validation_score"]):
            score = "not evaluated"
        number, loss = int(row["epoch"]), row["train_loss"]
        speed = self._speed(number, samples, train_seconds)
        line = f"epoch {number} of {self.epochs}: loss {loss:.4g}, validation {score}; {speed}"
        first = self._first is not None and number - self._first <= 1
        if self.epochs > EVERY and self.clock() - self._said < SECONDS and not first:
            self._held = line
        else:
            self._say(line, samples, train_seconds)
        if self._bar is not None:
            self._bar.set_postfix_str(f"epoch {number}, loss {loss:.4g}, {score}")

    def close(self) -> None:
        """Say what was held back and leave the terminal in order."""
        if self._held is not None:
            log.info("%s", self._held)
            self._held = None
        if self._bar is not None:
            self._bar.close()

    def _say(self, line: str, samples: int, train_seconds: float) -> None:
        log.info("%s", line)
        self._said, self._before, self._held = self.clock(), (samples, train_seconds), None

    def _speed(self, number: int, samples: int, train_seconds: float) -> str:
        """Samples a second since the last line, seconds an epoch, and the time left."""
        seen, spent = samples - self._before[0], train_seconds - self._before[1]
        epochs = max(number - (self._first or 0.0), 1e-9)
        each = (self.clock() - self._begun) / epochs
        left = max(self.epochs - number, 0) * each
        rate = f"{seen / spent:.4g} samples/s, " if spent > 0 else ""
        return f"{rate}{each:.3g} s an epoch, {left:.3g} s left"
