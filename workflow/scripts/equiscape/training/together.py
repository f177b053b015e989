"""Cells that differ in their seed only, trained in lockstep as one batched computation.

A network of a few dozen parameters spends its step waiting for Python. Where every step sees the
whole training split, as in a study of small networks by the hundred, the networks of all seeds can
take their steps at once: their parameters are stacked, the loss is mapped over the stack, and one
optimizer updates it. Each network's numbers are those of a training by itself, up to rounding.
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from equiscape.errors import ConfigError, listed
from equiscape.optim import OPTIMIZERS, build_optimizer
from equiscape.optim.schedules import schedule
from equiscape.registry import lookup
from equiscape.task import Task
from equiscape.training.cell import CellResult, result_of
from equiscape.training.loop import Trainer, optimizer_name
from equiscape.training.plane import PlaneKeeper
from equiscape.training.progress import Progress
from equiscape.training.resume import ResumePoints
from equiscape.training.settings import Settings
from equiscape.training.signals import SignalWatcher
from equiscape.training.snapshots import Snapshots
from equiscape.training.summary import described

log = logging.getLogger("equiscape.training")

ELEMENTWISE = ("adamw", "sgd", "lion")  # classes that treat each entry of a tensor by itself


def train_together(
    task: Task,
    optimizer_entry: Mapping[str, Any],
    lr: float | str,
    wd: float | str,
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    keep_weights: bool = False,
    progress: bool = False,
) -> list[CellResult]:
    """Train the cells of several seeds as ``train_cell`` trains each.

    There are no resume points: such a training takes seconds.

    Args:
        task, optimizer_entry, lr, wd, settings, keep_weights, progress: as of ``train_cell``.
        seeds: of the cells.

    Returns:
        One result a seed. Its ``seconds`` are those of all of them together.

    Raises:
        ConfigError: the cells cannot be trained together; the message names the key.
        Interrupted: a signal came.
    """
    checked = Settings.read(settings)
    devices = [task.device] if task.device.type == "cuda" else []
    label = f"{task.name} {optimizer_name(optimizer_entry)} lr {lr} wd {wd}"
    with torch.random.fork_rng(devices=devices), SignalWatcher() as signals:
        cells = Lockstep(task, optimizer_entry, lr, wd, seeds, checked, keep_weights)
        named = f"{label} seeds {listed(map(str, seeds))}"
        log.info("%s in lockstep; %s", named, described(cells.trainers[0]))
        reporter = Progress(f"{label} x {len(seeds)}", task.metric, checked.epochs, progress)
        try:
            cells.run(signals, reporter)
        finally:
            reporter.close()
    points = ResumePoints(None, "", math.inf)
    return [result_of(trainer, points) for trainer in cells.trainers]


class Lockstep:
    """The trainers of several seeds, whose networks share one stack of parameters.

    Args:
        task, optimizer, lr, wd, settings, keep_weights: as of a
            :class:`~equiscape.training.loop.Trainer`.
        seeds: of the networks.

    Raises:
        ConfigError: the steps of different seeds cannot be taken at once.
    """

    def __init__(
        self,
        task: Task,
        optimizer: Mapping[str, Any],
        lr: float | str,
        wd: float | str,
        seeds: Sequence[int],
        settings: Settings,
        keep_weights: bool = False,
    ):
        self.task, self.settings = task, settings
        self.optimizer_class: str = optimizer["class"]
        epochs = settings.snapshots if keep_weights else ()
        self.trainers = [
            Trainer(task, optimizer, lr, wd, seed, settings, keep_weights, Snapshots(epochs, None))
            for seed in seeds
        ]
        pattern = self.trainers[0].model
        self.steps_per_epoch = self._check(pattern)
        self.batch = task.batch("train", torch.arange(task.dataset.size("train")))
        self._values: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        models = [trainer.model for trainer in self.trainers]
        for name, _ in pattern.named_parameters():
            own = [model.get_parameter(name) for model in models]
            stack = torch.stack([p.detach() for p in own])
            self._values[name] = stack
            self.gradients[name] = torch.zeros_like(stack)
            for p, row, gradient in zip(own, stack, self.gradients[name]):
                p.data, p.grad = row, gradient  # so each network is its row of the stack
        self.buffers = {
            name: torch.stack([model.get_buffer(name) for model in models])
            for name, _ in pattern.named_buffers()
        }
        self._pattern = copy.deepcopy(pattern).train()
        self._losses_and_gradients = self._traced()
        self._stack = _Stack(pattern, self._values, self.gradients, self.optimizer_class)
        self.optimizer, _ = build_optimizer(self._stack, optimizer, lr, wd)
        if hasattr(self.optimizer, "plan"):
            self.optimizer.plan(self.steps_per_epoch * settings.epochs)
        self.schedule = schedule(
            self.optimizer, settings.schedule, self.steps_per_epoch, settings.epochs
        )
        self.keeper = PlaneKeeper.of(
            pattern, seeds, self.steps_per_epoch * settings.epochs, task.device
        )
        for trainer in self.trainers:
            trainer.keeper = None  # this one is all of theirs
        self.steps = 0

    def _check(self, model: nn.Module) -> int:
        """The steps of an epoch, if those of different seeds can be taken at once."""
        task, settings = self.task, self.settings
        key = f"tasks.{task.name}.training.together"
        plan = task.plan("train", settings.batch_size, torch.Generator().manual_seed(0))
        size = task.dataset.size("train")
        if any(len(indices) != size for indices in plan):
            raise ConfigError(
                f"{key}: each step must see the whole training split; set training.batch_size to "
                f"{size} or more, or together to false."
            )
        random = any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
        faults = {
            "the network has batch statistics": bool(self.trainers[0].gradient.statistics),
            "the network has dropout": random,
            "training.augmentation is set": bool(task.training.get("augmentation")),
            "training.clip_norm is set": settings.clip_norm is not None,
            "training.compile is set": settings.compile,
            "training.constraints are set": bool(settings.constraints),
            "training.patience is set": settings.patience is not None,
            "training.precision is not float32": settings.precision != "float32",
            f"optimizers of class {self.optimizer_class} average weights": hasattr(
                self.trainers[0].optimizer, "eval"
            ),
            f"optimizers of class {self.optimizer_class} look at the whole network": getattr(
                lookup(OPTIMIZERS, self.optimizer_class, "optimizers.class"), "composes", False
            ),
        }
        for fault, there in faults.items():
            if there:
                raise ConfigError(f"{key}: {fault}; set together to false.")
        return len(plan)

    def _traced(self) -> Callable[..., list[Tensor]]:
        """Losses ``[networks]`` and gradients, as a function of the stacked parameters.

        Every step is the same few operations on small tensors, so Python, ``vmap`` and autograd
        would take most of its time; they run once, and what they call is recorded.
        """
        names = list(self._values)

        def one(parameters: list[Tensor], buffers: dict[str, Tensor]) -> Tensor:
            def network(*inputs: Any) -> Tensor:
                own = dict(zip(names, parameters))
                return functional_call(self._pattern, (own, buffers), inputs)

            return self.task.loss(network, self.batch, self.settings.label_smoothing)

        def all_at_once(*parameters: Tensor) -> list[Tensor]:
            gradients, losses = vmap(grad_and_value(one))(list(parameters), self.buffers)
            return [losses, *gradients]

        return make_fx(all_at_once)(*self._values.values())

    def run(self, signals: SignalWatcher, reporter: Progress) -> None:
        """Train all cells to their last epoch or to divergence.

        Raises:
            Interrupted: a signal came.
        """
        reporter.plan(0, self.steps_per_epoch)
        spent = 0.0
        for trainer in self.trainers:
            trainer.take_snapshot()
        for _ in range(self.settings.epochs):
            live = [trainer for trainer in self.trainers if trainer.diverged_at is None]
            if not live:
                return
            start, losses, lr = time.monotonic(), [], 0.0
            for _ in range(self.steps_per_epoch):
                lr = self.optimizer.param_groups[0]["lr"]
                losses.append(self.step(live))
                self.schedule.step()
                reporter.step(self.steps)
                signals.check()
            table = torch.stack(losses).double().cpu()  # [steps, networks]
            seconds = (time.monotonic() - start) / len(live)
            rows = None if self.keeper is None else self.keeper.row(self._values)
            for i, trainer in enumerate(self.trainers):
                if trainer in live:
                    self._close_epoch(trainer, table[:, i], lr, seconds, rows[i] if rows else None)
            spent += seconds * len(live)
            reporter.epoch(live[0].rows[-1], sum(t.samples for t in self.trainers), spent)

    def step(self, live: Sequence[Trainer]) -> Tensor:
        """One step of every network; their losses before it, ``[networks]``."""
        losses, *found = self._losses_and_gradients(*self._values.values())
        torch._foreach_copy_(list(self.gradients.values()), found)
        if self.keeper is not None:
            self.keeper.after_backward(self._values, self.gradients, self.steps)
        for trainer in live if self.settings.recorders else ():
            trainer.record("after_backward")
        self.optimizer.step()
        self.steps += 1
        if self.keeper is not None:
            self.keeper.after_update(self._values, self.steps, self.optimizer)
        for trainer in live if self.settings.recorders else ():
            trainer.record("after_update")
        return losses

    def _close_epoch(
        self, trainer: Trainer, losses: Tensor, lr: float, seconds: float, distance: float | None
    ) -> None:
        """The end of an epoch for one network, whose ``losses [steps]`` these were."""
        trainer.step = self.steps_per_epoch
        trainer.steps += self.steps_per_epoch
        trainer.samples += self.steps_per_epoch * self.batch.size
        trainer.last_lr = lr
        trainer.train_seconds += seconds
        if trainer.snapshots.due(trainer.epoch + 1):
            self._hand_over(trainer)
        finite = losses.isfinite()
        if finite.all():
            trainer.close_epoch(losses.mean().item())
        else:
            trainer.diverge(int(finite.logical_not().to(torch.int8).argmax()) + 1)
        if distance is not None:
            row = trainer.rows[-1]
            row |= {"distance": distance, "seconds": row.pop("seconds")}

    def _hand_over(self, trainer: Trainer) -> None:
        """Give a network's own optimizer, which takes no steps, the state that a snapshot keeps."""
        row = self.trainers.index(trainer)
        for name, p in trainer.model.named_parameters():
            own, stacked = self._stack.of(name, row)
            if not self.optimizer.state.get(own):
                trainer.optimizer.state.pop(p, None)
                continue
            trainer.optimizer.state[p] = {
                key: value.view_as(self._values[name])[row]
                if stacked and isinstance(value, Tensor) and value.shape == own.shape
                else copy.copy(value)
                for key, value in self.optimizer.state[own].items()
            }
        groups = zip(trainer.optimizer.param_groups, self.optimizer.param_groups)
        for group, ours in groups:
            group["lr"] = ours["lr"]


class _Stack(nn.Module):
    """The stacked parameters as an optimizer should see them.

    Matrices of an optimizer that treats a matrix as such stand apart, each a view of its row of
    the stack; all else is one flat vector.
    """

    def __init__(
        self,
        pattern: nn.Module,
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        optimizer: str,
    ):
        super().__init__()
        self.non_hidden = getattr(pattern, "non_hidden", ())
        self._modules_of = pattern
        elementwise = optimizer in ELEMENTWISE
        orthogonalizes = not elementwise and getattr(
            lookup(OPTIMIZERS, optimizer, "optimizers.class"), "orthogonalizes", False
        )
        self._named: dict[str, nn.Parameter] = {}
        for name, value in parameters.items():
            gradient = gradients[name]
            if elementwise or (orthogonalizes and value.dim() != 3):
                rows = {name: (value.view(-1), gradient.view(-1))}
            else:
                rows = {f"{name}.{i}": pair for i, pair in enumerate(zip(value, gradient))}
            for key, (own, its_gradient) in rows.items():
                self._named[key] = nn.Parameter(own)
                self._named[key].grad = its_gradient

    def of(self, name: str, row: int) -> tuple[nn.Parameter, bool]:
        """Where a parameter of one network lies, and whether those of the others do too."""
        stacked = name in self._named
        return self._named[name if stacked else f"{name}.{row}"], stacked

    def named_parameters(self, *args: Any, **kwargs: Any):
        """Names and views."""
        return iter(self._named.items())

    def named_modules(self, *args: Any, **kwargs: Any):
        """Those of the network itself, among which embeddings are looked for."""
        return self._modules_of.named_modules()
