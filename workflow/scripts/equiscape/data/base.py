"""The small interface between data and everything above it: a batch, and a resident data set."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from equiscape.objectives import Objective

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Batch:
    """A batch of samples.

    Attributes:
        inputs: positional arguments of the network's ``forward``.
        target: ``[size, ...]``.
        size: the number of samples that a loss averages over.
        graph: ``[nodes]`` index of every node's sample in a sparse batch of graphs; None for
            dense point clouds.
        rows: of point clouds that are the data set's own, not transformed: their split, and their
            indices in it, on the CPU and on the device.
    """

    inputs: tuple[Any, ...]
    target: Tensor
    size: int
    graph: Tensor | None = None
    rows: tuple[Split, Tensor, Tensor] | None = None


class Dataset:
    """A prepared data set, held as tensors on one device.

    A *plan* is a list of CPU index tensors into a split, one for each batch. Keeping it apart from
    the data lets a training loop save the order of an epoch and go on in the middle of it.
    """

    name: str
    objective: Objective

    def model_arguments(self) -> dict[str, Any]:
        """What the data dictates to the network, e.g. ``{"num_outputs": 40}``."""
        raise NotImplementedError

    def outputs(self) -> dict[str, Any]:
        """What a network's outputs mean, in plain values, so that a checkpoint predicts alone.

        ``kind`` (``classification``, ``regression`` or ``multilabel``) and, where it applies,
        ``class_names``, ``target``, ``unit``, ``mean``, ``std``, ``atom_references`` (atomic number
        -> what each such atom adds to the target) and ``labels``.
        """
        return self.objective.describe()

    def size(self, split: Split) -> int:
        """The number of samples in ``split``."""
        raise NotImplementedError

    def plan(
        self, split: Split, batch_size: int, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """Index tensors that cover ``split`` once: in order, or shuffled by a CPU ``generator``."""
        n = self.size(split)
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        return list(order.split(batch_size))

    def fits(self, split: Split, indices: Tensor) -> bool:
        """Whether these samples of ``split`` may be one batch."""
        return True

    def by_size(self, split: Split, indices: Tensor) -> Tensor:
        """``indices`` in the order in which batches cost least, where their order is free."""
        return indices

    def gather(self, split: Split, indices: Tensor) -> Batch:
        """The samples ``indices`` of ``split`` as one batch on the device."""
        raise NotImplementedError

    def augment(self, batch: Batch, settings: dict[str, Any], generator: torch.Generator) -> Batch:
        """A randomly transformed copy of ``batch``; the identity where no transform is known."""
        return batch
