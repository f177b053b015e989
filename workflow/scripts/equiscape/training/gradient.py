"""The gradient of a batch's mean loss, in micro-batches where memory is short."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from equiscape.data.base import Batch
from equiscape.errors import ConfigError, DeviceError, first_line
from equiscape.task import Task
from equiscape.training.batches import batch_statistics
from equiscape.training.precision import autocast
from equiscape.training.settings import Settings

log = logging.getLogger("equiscape.training")


class OutOfMemory(DeviceError):
    """A training step does not fit the memory of its device."""


class Gradient:
    """Puts the gradient of a batch's mean loss into a network's parameters.

    Where an allocation fails, the batch is cut into micro-batches of half the size, which
    accumulate to the same gradient; not where the network has batch statistics.

    Args:
        task: gives batches, their augmentation and the loss.
        model: whose parameters get the gradient.
        augmentation: the generator that transforms are drawn from.

    Raises:
        ConfigError: ``training.micro_batch`` with a network that has batch statistics.
    """

    def __init__(
        self, task: Task, model: nn.Module, augmentation: torch.Generator, settings: Settings
    ):
        self.task, self.model, self.augmentation = task, model, augmentation
        self.settings = settings
        # what the steps call: the same parameters and buffers, whichever form
        self.network = torch.compile(model) if settings.compile else model
        self.statistics = batch_statistics(model)
        self.micro_batch = settings.micro_batch
        if self.statistics and self.micro_batch and self.micro_batch < settings.batch_size:
            raise ConfigError(
                f"training.micro_batch: {task.architecture} has batch statistics "
                f"({self.statistics[0]}), so pieces of a batch have another gradient; set it to "
                f"null, and training.batch_size to {self.micro_batch} if memory is short."
            )
        if self.statistics:
            self.micro_batch = None  # it is no smaller than a batch, and a joined batch is larger

    def __call__(self, indices: Tensor) -> tuple[Tensor, int]:
        """The gradient of training samples ``indices``, augmented.

        Returns:
            The batch's mean loss, on the device, and its number of samples.

        Raises:
            OutOfMemory: the batch does not fit, nor can it be split.
            DeviceError: ``torch.compile`` failed.
        """
        batch = self.task.batch("train", indices)
        if batch.graph is None:
            batch = self.task.augment(batch, self.augmentation)
        while True:
            try:
                return self._accumulate(batch, indices), batch.size
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

    def _accumulate(self, batch: Batch, indices: Tensor) -> Tensor:
        self.model.zero_grad(set_to_none=True)
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
        """The augmented batch, cut into micro-batches where that is asked for.

        Dense batches come augmented and are cut. A batch of graphs comes as it lies in the data
        set; it, or each of its pieces, is augmented here, once.
        """
        size = self.micro_batch
        whole = size is None or size >= batch.size
        if batch.graph is not None:
            for part in (indices,) if whole else indices.split(size):
                piece = batch if whole else self.task.batch("train", part)
                yield self.task.augment(piece, self.augmentation)
        elif size is None or size >= batch.size:
            yield batch
        else:
            for start in range(0, batch.size, size):
                part = slice(start, start + size)
                target = batch.target[part]
                yield Batch(tuple(x[part] for x in batch.inputs), target, len(target))

    def _split_further(self, size: int, reason: str) -> None:
        """After a failed allocation, halve the micro-batch or give up."""
        self.model.zero_grad(set_to_none=True)
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
            "out of memory with %d samples at once; continuing with training.micro_batch: %d, "
            "which accumulates to the same gradient",
            now,
            self.micro_batch,
        )
        if self.task.device.type == "cuda":
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that an allocation on the device or the host failed."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error)


def compiler_failed(error: BaseException) -> bool:
    """Whether ``error`` comes from ``torch.compile`` and not from the network."""
    from torch._dynamo.exc import TorchDynamoException  # takes seconds to import

    return isinstance(error, TorchDynamoException)
