"""A network under training, and all that its next step depends on."""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equiscape.data.base import Batch
from equiscape.errors import ConfigError, DeviceError
from equiscape.optim import build_optimizer
from equiscape.optim.schedules import schedule
from equiscape.task import Task
from equiscape.training.precision import autocast, matrix_products
from equiscape.training.settings import Settings, batch_statistics

log = logging.getLogger("equiscape.training")


class Diverged(Exception):
    """The loss of step ``step`` (from 1) of the epoch under way is not finite."""

    def __init__(self, step: int):
        super().__init__(f"non-finite loss at step {step}")
        self.step = step


class OutOfMemory(DeviceError):
    """A training step does not fit the memory of its device."""


class Trainer:
    """Model, optimizer, schedule, random states and data order of one cell.

    An epoch's order is drawn from a generator whose state at the epoch's beginning is kept, so
    that :meth:`state` between any two steps is enough to go on with the very same steps.

    A last batch of a single sample is joined to the batch before it where the network has batch
    statistics, which one sample does not have; so each sample is still seen once an epoch.

    Losses stay on the device and are looked at when an epoch ends or a resume point is written, so
    a step never waits for the device; the steps of the epoch after the first non-finite loss are
    wasted, but it is that step which is reported.

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
    ):
        self.task, self.settings = task, settings
        self.model = task.build(seed)
        # what the steps call: the same parameters and buffers, whichever form
        self.network = torch.compile(self.model) if settings.compile else self.model
        self.statistics = batch_statistics(self.model)
        self.micro_batch = settings.micro_batch
        if self.statistics and self.micro_batch and self.micro_batch < settings.batch_size:
            raise ConfigError(
                f"training.micro_batch: {task.architecture} has batch statistics "
                f"({self.statistics[0]}), so pieces of a batch have another gradient; set it to "
                f"null, and training.batch_size to {self.micro_batch} if memory is short."
            )
        if self.statistics:
            self.micro_batch = None  # it is no smaller than a batch, and a joined batch is larger
        self.optimizer, self.split = build_optimizer(self.model, optimizer, lr, wd)
        self.order = torch.Generator().manual_seed(subseed(seed, "order"))
        self.augmentation = torch.Generator(task.device)
        self.augmentation.manual_seed(subseed(seed, "augmentation"))
        torch.manual_seed(subseed(seed, "dropout"))  # dropout draws from the global generator
        self.epoch_order = self.order.get_state()
        self.steps_per_epoch = len(self._plan(torch.Generator().manual_seed(0)))
        self.schedule = schedule(
            self.optimizer, settings.schedule, self.steps_per_epoch, settings.epochs
        )
        if hasattr(self.optimizer, "plan"):  # it does something at a fraction of the training
            self.optimizer.plan(self.steps_per_epoch * settings.epochs)
        self.epoch = 0  # finished epochs
        self.step = 0  # finished steps of the epoch under way
        self.steps = 0  # finished steps in all
        self.samples = 0  # seen in all
        self.train_seconds = 0.0  # spent in training steps
        self.last_lr = 0.0  # of the last finished step
        self.losses: list[tuple[float, int]] = []  # of the epoch under way, with batch sizes
        self._pending: list[tuple[Tensor, int]] = []

    def _plan(self, generator: torch.Generator) -> list[Tensor]:
        plan = self.task.plan("train", self.settings.batch_size, generator)
        return join_singles(plan) if self.statistics else plan

    def run_epoch(self, after_step: Callable[[], None]) -> float:
        """Train to the end of the epoch under way and return its mean training loss.

        ``after_step`` is called between steps, where the state is whole; it may raise.

        Raises:
            Diverged: a loss was not finite.
            OutOfMemory: a step does not fit, nor can it be split.
        """
        self.model.train()
        start, counted = time.monotonic(), self.train_seconds
        self.order.set_state(self.epoch_order)
        plan = self._plan(self.order)
        with matrix_products(self.settings.precision, self.task.device):
            for indices in plan[self.step :]:
                self._pending.append(self._train(indices))
                self.last_lr = self.optimizer.param_groups[0]["lr"]
                self.schedule.step()
                self.step += 1
                self.steps += 1
                self.samples += self._pending[-1][1]
                self.train_seconds = counted + time.monotonic() - start
                after_step()
        self.check()
        self.train_seconds = counted + time.monotonic() - start
        return sum(loss * size for loss, size in self.losses) / sum(s for _, s in self.losses)

    def end_epoch(self) -> None:
        """Count the epoch under way as finished and start the next."""
        self.epoch += 1
        self.step = 0
        self.losses = []
        self.epoch_order = self.order.get_state()

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

    def _train(self, indices: Tensor) -> tuple[Tensor, int]:
        """One optimizer step; the batch's mean loss, on the device, and its number of samples."""
        batch = self.task.augment(self.task.batch("train", indices), self.augmentation)
        while True:
            try:
                loss = self._gradient(batch, indices)
                break
            except (RuntimeError, MemoryError) as error:
                if self.settings.compile and compiler_failed(error):
                    raise DeviceError(
                        f"training.compile: torch.compile failed ({first_line(error)}); set it to "
                        "false, or give the job a working C++ compiler (and Triton on CUDA)."
                    ) from error
                if not out_of_memory(error):
                    raise
                reason = first_line(error)
            # outside the except block, whose traceback would keep the step's tensors alive
            self._split_further(batch.size, reason)
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        return loss, batch.size

    def _gradient(self, batch: Batch, indices: Tensor) -> Tensor:
        """Put the gradient of the batch's mean loss into the parameters; return the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        total: Tensor | None = None
        for piece in self._pieces(batch, indices):
            with autocast(self.settings.precision, self.task.device):
                loss = self.task.loss(self.network, piece, self.settings.label_smoothing)
            if piece.size != batch.size:
                loss = loss * (piece.size / batch.size)
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    def _pieces(self, batch: Batch, indices: Tensor) -> Iterator[Batch]:
        """The batch, cut into micro-batches where that is asked for."""
        size = self.micro_batch
        if size is None or size >= batch.size:
            yield batch
        elif batch.graph is None:  # dense, already transformed: the same samples, cut
            for start in range(0, batch.size, size):
                part = slice(start, start + size)
                target = batch.target[part]
                yield Batch(tuple(x[part] for x in batch.inputs), target, len(target))
        else:
            for part in indices.split(size):
                yield self.task.augment(self.task.batch("train", part), self.augmentation)

    def _split_further(self, size: int, reason: str) -> None:
        """After a failed allocation, halve the micro-batch or give up."""
        self.optimizer.zero_grad(set_to_none=True)
        now = min(self.micro_batch or size, size)
        if self.statistics:
            raise OutOfMemory(
                f"out of memory in a training step ({reason}); request more memory or lower "
                f"training.batch_size ({self.settings.batch_size}), since {self.task.architecture} "
                "has batch statistics and its batches cannot be split by training.micro_batch."
            )
        if now <= 1:
            raise OutOfMemory(
                f"out of memory in a training step with a single sample ({reason}); request more "
                "memory or a smaller network, since training.batch_size and training.micro_batch "
                "cannot go lower."
            )
        self.micro_batch = (now + 1) // 2
        log.warning(
            "out of memory with %d samples at once; going on with training.micro_batch: %d, "
            "which accumulates to the same gradient",
            now,
            self.micro_batch,
        )
        if self.task.device.type == "cuda":
            torch.cuda.empty_cache()

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, and the counts so far.

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
            "counts": [self.epoch, self.step, self.steps, self.samples],
            "micro_batch": self.micro_batch,
            "last_lr": self.last_lr,
            "train_seconds": self.train_seconds,
            "losses": self.losses,
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
        self.epoch, self.step, self.steps, self.samples = state["counts"]
        sizes = [size for size in (self.micro_batch, state["micro_batch"]) if size is not None]
        self.micro_batch = min(sizes, default=None)
        self.last_lr = state["last_lr"]
        self.train_seconds = state["train_seconds"]
        self.losses = [tuple(pair) for pair in state["losses"]]


def join_singles(plan: list[Tensor]) -> list[Tensor]:
    """Join every batch of a single sample to its neighbor."""
    joined: list[Tensor] = []
    for indices in plan:
        if joined and (len(indices) == 1 or len(joined[-1]) == 1):
            joined[-1] = torch.cat([joined[-1], indices])
        else:
            joined.append(indices)
    return joined


def subseed(seed: int, purpose: str) -> int:
    """A seed for one purpose, so that no two random streams of a cell are the same."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7], "big")


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that an allocation on the device or the host failed."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error)


def compiler_failed(error: BaseException) -> bool:
    """Whether ``error`` comes from ``torch.compile`` and not from the network."""
    from torch._dynamo.exc import TorchDynamoException  # takes seconds to import

    return isinstance(error, TorchDynamoException)


def first_line(error: BaseException) -> str:
    """What ``error`` says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def interruptible(batches: Iterator[Batch], check: Callable[[], None]) -> Iterator[Batch]:
    """``batches``, with ``check`` called ahead of each."""
    for batch in batches:
        check()
        yield batch
