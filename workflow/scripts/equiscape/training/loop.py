"""The training loop of one cell: an epoch, top to bottom, and all that its next step depends on."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from equiscape.checkpoint import contents
from equiscape.data.base import Batch
from equiscape.errors import ConfigError
from equiscape.optim import build_optimizer
from equiscape.optim.schedules import schedule
from equiscape.seeds import subseed
from equiscape.task import Task
from equiscape.training.batches import join_single, sample_statistics
from equiscape.training.best import Best
from equiscape.training.constraints import build_constraints
from equiscape.training.costs import Costs
from equiscape.training.gradient import Gradient
from equiscape.training.plane import PlaneKeeper
from equiscape.training.precision import matrix_products
from equiscape.training.recorders import build_recorders
from equiscape.training.settings import Settings
from equiscape.training.snapshots import Snapshots, on_cpu, resumable

log = logging.getLogger("equiscape.training")


class Diverged(Exception):
    """The loss of step ``step`` (from 1) of the epoch under way is not finite."""

    def __init__(self, step: int):
        super().__init__(f"non-finite loss at step {step}")
        self.step = step


class Trainer:
    """Model, optimizer, schedule, random states, data order and history of one cell.

    An epoch's order is drawn from a generator whose state at the epoch's beginning is kept, so
    that :meth:`state` between any two steps is enough to go on with the very same steps.

    A last batch of a single sample is joined to the batch before it where the network has batch
    statistics that one sample does not have; so each sample is still seen once an epoch.

    Losses stay on the device and are looked at when an epoch ends or a resume point is written, so
    a step never waits for the device; the steps of the epoch after the first non-finite loss are
    wasted, but it is that step which is reported.

    Args:
        optimizer: ``{"name", "class", "settings"}``.
        lr, wd: numbers, or strings that spell them.
        seed: of initial weights, data order, augmentation and dropout.
        keep_weights: keep those of the best validation epoch.
        snapshots: the epochs whose weights are kept; None for none.

    Raises:
        ConfigError: a setting is unknown or does not fit the network.
    """

    def __init__(
        self,
        task: Task,
        optimizer: Mapping[str, Any],
        lr: float | str,
        wd: float | str,
        seed: int,
        settings: Settings,
        keep_weights: bool = False,
        snapshots: Snapshots | None = None,
    ):
        self.task, self.settings = task, settings
        self.costs = Costs(task.device)
        self.cell = {"optimizer": optimizer_name(optimizer), "lr": lr, "wd": wd, "seed": seed}
        self.entry = optimizer
        self.model = task.build(seed)
        self.order = torch.Generator().manual_seed(subseed(seed, "order"))
        self.augmentation = torch.Generator(task.device)
        self.augmentation.manual_seed(subseed(seed, "augmentation"))
        self.gradient = Gradient(task, self.model, self.augmentation, settings)
        self.optimizer, self.split = build_optimizer(self.model, optimizer, lr, wd)
        torch.manual_seed(subseed(seed, "dropout"))  # dropout draws from the global generator
        self.epoch_order = self.order.get_state()
        self.steps_per_epoch = len(self._plan(torch.Generator().manual_seed(0)))
        self.schedule = schedule(
            self.optimizer, settings.schedule, self.steps_per_epoch, settings.epochs
        )
        steps = self.steps_per_epoch * settings.epochs
        if hasattr(self.optimizer, "plan"):  # it does something at a fraction of the training
            self.optimizer.plan(steps)
        self.keeper = PlaneKeeper.of(self.model, [seed], steps, task.device)
        if self.keeper is not None:
            self.keeper.start(self.keeper.own(self.model)[0])
        self.recorders = build_recorders(settings.recorders)
        self.constraints = build_constraints(settings.constraints)
        if self.constraints and hasattr(self.optimizer, "eval"):
            raise ConfigError(
                f"training.constraints: {optimizer['class']} keeps averages of the weights that no "
                "constraint reaches; use another optimizer or no constraint."
            )
        self.snapshots = Snapshots((), None) if snapshots is None else snapshots
        self.best = Best(task.metric, keep_weights, settings.keep)
        self.rows: list[dict[str, float]] = []  # of the history, one an epoch
        self.diverged_at: dict[str, int] | None = None
        self.epoch = 0  # finished epochs
        self.step = 0  # finished steps of the epoch under way
        self.steps = 0  # finished steps in all
        self.samples = 0  # seen in all
        self.train_seconds = 0.0  # spent in training steps
        self.last_lr = 0.0  # of the last finished step
        self.losses: list[tuple[float, int]] = []  # of the epoch under way, with batch sizes
        self._pending: list[tuple[Tensor, int]] = []  # the same, still on the device
        self._constrained = False  # whether the epoch under way has had its constraints

    def run(self, pause: Callable[[], None], after_epoch: Callable[[dict], None]) -> None:
        """Train to the last epoch, to divergence or until patience is out.

        ``pause`` is called between steps and between batches of an evaluation, where the state is
        whole; it may raise. ``after_epoch`` is called with each new row of the history.

        Raises:
            OutOfMemory: a step does not fit, nor can it be split.
        """
        self.take_snapshot()
        while not self.finished:
            self.run_epoch(pause)
            after_epoch(self.rows[-1])

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to train."""
        return bool(self.diverged_at) or self.epoch >= self.settings.epochs or self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        """Whether the validation score has not improved for ``training.patience`` epochs."""
        patience, last = self.settings.patience, self.best.at["last"]
        if patience is None or last is None:
            return False
        return last["epoch"] - self.best.epoch >= patience

    def run_epoch(self, pause: Callable[[], None] = lambda: None) -> None:
        """Train to the end of the epoch under way, evaluate, and add a row to the history."""
        try:
            train_loss = self._train_epoch(pause)
        except Diverged as diverged:
            self.diverge(diverged.step)
            return
        self.close_epoch(train_loss, pause)

    def close_epoch(self, train_loss: float, pause: Callable[[], None] = lambda: None) -> None:
        """Constrain and evaluate after the last step of the epoch under way; begin the next."""
        if not self._constrained:
            with torch.no_grad():
                for constraint in self.constraints.values():
                    constraint.apply(self)
            self._constrained = True
        with self.averaged():
            entry, output = self._evaluate(pause)
            if entry is not None and math.isfinite(entry["validation"]["loss"]):
                self.best.compare(entry, self.model, cast(Tensor, output))
        if entry is not None:
            if not math.isfinite(entry["validation"]["loss"]):
                self._note_divergence(self.step)
            else:
                self.schedule.observe(
                    entry["epoch"], entry["validation"]["score"], self.task.metric
                )
        self._add_row(train_loss, entry)
        self.epoch += 1
        self.step = 0
        self.losses = []
        self.epoch_order = self.order.get_state()
        self._constrained = False
        self.take_snapshot()

    def diverge(self, step: int) -> None:
        """End the training: the loss of ``step`` (from 1) of the epoch under way is not finite."""
        self._note_divergence(step)
        self._add_row(math.nan, None)

    def _train_epoch(self, pause: Callable[[], None]) -> float:
        """The steps of the epoch under way that are left; its mean training loss.

        Raises:
            Diverged: a loss was not finite.
        """
        self.model.train()
        start, counted = time.monotonic(), self.train_seconds
        self.order.set_state(self.epoch_order)
        plan = self._plan(self.order)
        with matrix_products(self.settings.precision, self.task.device):
            for indices in plan[self.step :]:
                loss, size = self.gradient(indices)
                if self.keeper is not None:
                    self.keeper.after_backward(*self.keeper.own(self.model), self.steps)
                self.record("after_backward")
                if self.settings.clip_norm is not None:
                    nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
                self.optimizer.step()
                if self.keeper is not None:
                    parameters, _ = self.keeper.own(self.model)
                    self.keeper.after_update(parameters, self.steps + 1, self.optimizer)
                self.record("after_update")
                self.last_lr = self.optimizer.param_groups[0]["lr"]
                self.schedule.step()
                self._pending.append((loss, size))
                self.step += 1
                self.steps += 1
                self.samples += size
                self.train_seconds = counted + time.monotonic() - start
                pause()
        self.check()
        self.train_seconds = counted + time.monotonic() - start
        return sum(loss * size for loss, size in self.losses) / sum(s for _, s in self.losses)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The weights that are evaluated and kept, where the optimizer trains at others."""
        has_average = hasattr(self.optimizer, "eval")
        if has_average:
            cast(Any, self.optimizer).eval()
        try:
            yield
        finally:
            if has_average:
                cast(Any, self.optimizer).train()

    def _evaluate(self, pause: Callable[[], None]) -> tuple[dict[str, Any] | None, Tensor | None]:
        """Loss and score of validation and test, and the outputs of test.

        None where this epoch is not evaluated.
        """
        epoch = self.epoch + 1
        if epoch % self.settings.evaluate_every and epoch != self.settings.epochs:
            return None, None
        entry: dict[str, Any] = {"epoch": epoch}
        for split in ("validation", "test"):
            batches = interruptible(self.task.batches(split), pause)
            found = self.task.predict(self.model, batches)
            entry[split] = found.scores
        return entry, found.output

    def check(self) -> None:
        """Fetch the losses that are still on the device.

        Raises:
            Diverged: one of them is not finite.
        """
        if not self._pending:
            return
        values = torch.stack([loss for loss, _ in self._pending]).tolist()
        checked = len(self.losses)
        self.losses += [(value, size) for value, (_, size) in zip(values, self._pending)]
        self._pending = []
        for i, value in enumerate(values):
            if not math.isfinite(value):
                raise Diverged(checked + i + 1)

    def _plan(self, generator: torch.Generator) -> list[Tensor]:
        plan = self.task.plan("train", self.settings.batch_size, generator)
        if min(map(len, plan)) > 1 or not self._sample_statistics:
            return plan
        fits = partial(self.task.dataset.fits, "train")
        return join_single(plan, fits, self._sample_statistics, self.settings.batch_size)

    @cached_property
    def _sample_statistics(self) -> list[str]:
        return sample_statistics(self.task, self.model)

    def record(self, moment: str) -> None:
        """Call one of the two methods by which recorders observe a step."""
        with torch.no_grad():
            for recorder in self.recorders.values():
                getattr(recorder, moment)(self)

    def _note_divergence(self, step: int) -> None:
        """Note where the training ended; steps after the first non-finite loss do not count."""
        self.diverged_at = {"epoch": self.epoch + 1, "step": step}
        self.steps -= self.step - step
        log.warning("diverged at epoch %d, step %d", self.epoch + 1, step)

    def _add_row(self, train_loss: float, entry: dict | None) -> None:
        """The line of the epoch under way in the history; NaN where it diverged on the way."""
        row = {"epoch": self.epoch + 1, "lr": self.last_lr, "train_loss": train_loss}
        for split in ("validation", "test"):
            for value in ("loss", "score"):
                row[f"{split}_{value}"] = entry[split][value] if entry else math.nan
        for recorder in self.recorders.values():
            for column, found in recorder.row().items():
                row[column] = math.nan if math.isnan(train_loss) else found
        if self.keeper is not None:
            row["distance"] = self.keeper.row(self.keeper.own(self.model)[0])[0]
        row["seconds"] = self.costs.seconds - sum(earlier["seconds"] for earlier in self.rows)
        self.rows.append(row)

    def take_snapshot(self) -> None:
        """Keep the network as it is between two epochs, where that is asked for."""
        if self.diverged_at or not self.snapshots.due(self.epoch):
            return
        lr = self.last_lr if self.epoch else self.optimizer.param_groups[0]["lr"]
        with self.averaged():
            state = on_cpu(self.contents(self.model.state_dict(), self.epoch))
        state |= {"optimizer_state": self.optimizer.state_dict(), "lr": lr}
        state |= resumable(self.entry, self.settings)
        self.snapshots.keep(self.epoch, on_cpu(state))

    def contents(
        self, weights: Mapping[str, Tensor] | None, epoch: int, status: str = "finished"
    ) -> dict[str, Any]:
        """A checkpoint with ``weights``; see :func:`equiscape.checkpoint.contents`."""
        return contents(self.task, weights, epoch, self.cell, status)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, and the results so far.

        Raises:
            Diverged: a loss since the last check is not finite.
        """
        self.check()
        cuda = self.task.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch_order": self.epoch_order,
            "augmentation": self.augmentation.get_state(),
            "torch_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.task.device) if cuda else None,
            "recorders": {name: r.state() for name, r in self.recorders.items()},
            "keeper": None if self.keeper is None else self.keeper.worst,
            "constrained": self._constrained,
            "counts": [self.epoch, self.step, self.steps, self.samples],
            "micro_batch": self.gradient.micro_batch,
            "last_lr": self.last_lr,
            "train_seconds": self.train_seconds,
            "losses": self.losses,
            "rows": self.rows,
            "best": self.best.state(),
            "snapshots": self.snapshots.state(),
            "costs": self.costs.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        # generators take their states from the host, wherever the point was loaded to
        self.epoch_order = state["epoch_order"].cpu()
        self.augmentation.set_state(state["augmentation"].cpu())
        torch.set_rng_state(state["torch_random"].cpu())
        if state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"].cpu(), self.task.device)
        for name, recorder in self.recorders.items():
            recorder.restore(state["recorders"][name])
        if self.keeper is not None:
            self.keeper.worst = state["keeper"].to(self.task.device)
        self._constrained = state["constrained"]
        self.epoch, self.step, self.steps, self.samples = state["counts"]
        sizes = [s for s in (self.gradient.micro_batch, state["micro_batch"]) if s is not None]
        self.gradient.micro_batch = min(sizes, default=None)
        self.last_lr = state["last_lr"]
        self.train_seconds = state["train_seconds"]
        self.losses = [tuple(pair) for pair in state["losses"]]
        self.rows = state["rows"]
        self.best.restore(state["best"])
        self.snapshots.restore(state["snapshots"])
        self.costs.restore(state["costs"])


def optimizer_name(entry: Mapping[str, Any]) -> str | None:
    """The optimizer's name in the study, or its class where it has none."""
    return entry.get("name", entry.get("class"))


def interruptible(batches: Iterator[Batch], check: Callable[[], None]) -> Iterator[Batch]:
    """``batches``, with ``check`` called ahead of each."""
    for batch in batches:
        check()
        yield batch
