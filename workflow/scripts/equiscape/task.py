"""The hub: a task is a data set and an architecture with their loss and metric.

Training and every analysis know a task only through this class, so each new architecture or data
set gets all of them at once.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equiscape import models
from equiscape.checkpoint import fill, read
from equiscape.data import KINDS
from equiscape.data.base import Batch, Dataset, Split
from equiscape.errors import CheckpointError, ConfigError
from equiscape.metric import Metric
from equiscape.ops.neighbors import NeighborTables, knn
from equiscape.registry import lookup


@dataclass(frozen=True)
class Predictions:
    """A network's outputs over some samples.

    Attributes:
        output: ``[n, num_outputs]``, on the device.
        target: ``[n, ...]``, on the device.
        scores: ``loss`` and ``score``.
    """

    output: Tensor
    target: Tensor
    scores: dict[str, float]


class Task:
    """What training and the analyses know.

    Args:
        name: of the task in the configuration.
        entry: its configuration: ``architecture``, ``model`` settings, ``training`` settings.
        dataset: resident on ``device``.
        device: where networks are built.
    """

    def __init__(self, name: str, entry: dict[str, Any], dataset: Dataset, device: torch.device):
        self.name = name
        self.architecture: str = entry["architecture"]
        self.model_settings: dict[str, Any] = dict(entry.get("model") or {})
        self.training: dict[str, Any] = dict(entry.get("training") or {})
        self.dataset = dataset
        self.device = torch.device(device)
        self._neighbors: dict[Split, NeighborTables] = {}

    @property
    def metric(self) -> Metric:
        """The score's name, direction and unit."""
        return self.dataset.objective.metric

    @property
    def batch_size(self) -> int:
        """Samples a batch, from the task's training settings."""
        return int(self.training.get("batch_size", 32))

    def build(self, seed: int) -> nn.Module:
        """A freshly initialized network on the device; the CPU's random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = models.build(
                self.architecture, self.dataset.model_arguments(), self.model_settings
            )
        return model.to(self.device)

    def restore(
        self, checkpoint: str | Path, optimizer: str | None = None, seed: int | None = None
    ) -> nn.Module:
        """The network of a ``checkpoint.pt``, in eval mode.

        Args:
            checkpoint: a checkpoint or a snapshot.
            optimizer, seed: whose it should be; None for anyone's.

        Raises:
            CheckpointError: the file is damaged, belongs to another task, architecture, optimizer
                or seed, or holds a weight that is not finite.
        """
        state = read(checkpoint, map_location=self.device)
        wanted = {"task": self.name, "optimizer": optimizer, "seed": seed}
        for key, expected in wanted.items():
            if expected is not None and state.get(key) != expected:
                raise CheckpointError(
                    f"{checkpoint} belongs to {key} {state.get(key)!r}, not {expected!r}; "
                    f"give the checkpoint of this {key}."
                )
        return fill(self.build(seed=0), state, checkpoint)

    def plan(
        self,
        split: Split,
        batch_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """Index tensors, one a batch, that cover ``split``; shuffled if a generator is given."""
        return self.dataset.plan(split, batch_size or self.batch_size, generator)

    def subset(
        self, split: Split, samples: int | None, seed: int, batch_size: int | None = None
    ) -> list[Tensor]:
        """A plan over a fixed random subset of ``split`` (all of it where ``samples`` is None).

        The subset depends on ``seed`` alone, so every optimizer and every analysis of a task that
        names the same seed sees the same samples.
        """
        n = self.dataset.size(split)
        indices = torch.arange(n)
        if samples is not None and samples < n:
            generator = torch.Generator().manual_seed(seed)
            indices = torch.randperm(n, generator=generator)[:samples].sort().values
        return list(self.dataset.by_size(split, indices).split(batch_size or self.batch_size))

    def batch(self, split: Split, indices: Tensor) -> Batch:
        """The samples ``indices`` of ``split``, on the device, not augmented."""
        return self.dataset.gather(split, indices)

    def batches(self, split: Split, batch_size: int | None = None) -> Iterator[Batch]:
        """All of ``split`` in order, not augmented."""
        for indices in self.plan(split, batch_size):
            yield self.batch(split, indices)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """``batch`` under the task's ``training.augmentation``."""
        return self.dataset.augment(batch, self.training.get("augmentation") or {}, generator)

    def loss(
        self,
        model: Callable[..., Any],
        batch: Batch,
        label_smoothing: float = 0.0,
        keep_edges: bool = False,
    ) -> Tensor:
        """Mean loss over the ``batch.size`` samples, a scalar with gradient.

        ``keep_edges`` is for many second derivatives of one loss: networks that can keep what has
        a value for every edge do so, which costs memory and halves the time of each.
        """
        output = self.output(model, batch, keep_edges)
        return self.dataset.objective.loss(output, batch.target, label_smoothing)

    def output(self, model: Any, batch: Batch, keep_edges: bool = False) -> Tensor:
        """The network's output ``[size, num_outputs]``; see :meth:`loss` for ``keep_edges``."""
        if batch.rows is not None:
            batch = self.with_neighbors(model, batch)
        if keep_edges and "keep_edges" in inspect.signature(model.forward).parameters:
            return model(*batch.inputs, keep_edges=True)
        return model(*batch.inputs)

    def with_neighbors(self, model: nn.Module, batch: Batch) -> Batch:
        """``batch`` with the neighbors of its points, if ``model`` starts from them.

        Those of the data set's own clouds are searched once for each cloud. For other clouds it
        pays where several passes read the same batch; else the network searches by itself.
        """
        wanted = getattr(model, "neighborhood", None)
        if wanted is None or len(batch.inputs) > 1:
            return batch
        (points,) = batch.inputs
        if batch.rows is None:
            return replace(batch, inputs=(points, knn(points[..., :3], *wanted)))
        split, rows, on_device = batch.rows
        if split not in self._neighbors:
            self._neighbors[split] = NeighborTables(self.dataset.size(split))
        found = self._neighbors[split].find(points[..., :3], rows, on_device, *wanted)
        return replace(batch, inputs=(points, found))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Loss and score of ``split`` in eval mode; the mode is restored afterwards."""
        return self.score(model, self.batches(split))

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Loss and score over ``batches`` in eval mode; every sample weighs the same."""
        return self.predict(model, batches).scores

    @torch.no_grad()
    def predict(self, model: nn.Module, batches: Iterable[Batch]) -> Predictions:
        """Outputs, targets, loss and score over ``batches`` in eval mode, batch after batch."""
        training = model.training
        model.eval()
        try:
            outputs, targets, losses, sizes = [], [], [], []
            for batch in batches:
                output = self.output(model, batch)
                losses.append(self.dataset.objective.loss(output, batch.target).double())
                sizes.append(batch.size)
                outputs.append(output)
                targets.append(batch.target)
            weights = torch.tensor(sizes, dtype=torch.float64, device=losses[0].device)
            output, target = torch.cat(outputs), torch.cat(targets)
            loss = ((torch.stack(losses) * weights).sum() / weights.sum()).item()
            score = self.dataset.objective.score(output, target)
            return Predictions(output, target, {"loss": loss, "score": score})
        finally:
            model.train(training)

    def pool(self, representation: Tensor, batch: Batch) -> Tensor:
        """``[size, C]``: the mean over points or nodes; what is pooled already is unchanged."""
        if representation.dim() == 3:
            return representation.mean(1)
        if batch.graph is not None and representation.shape[0] == batch.graph.shape[0]:
            total = representation.new_zeros(batch.size, representation.shape[1])
            total.index_add_(0, batch.graph, representation)
            return total / torch.bincount(batch.graph, minlength=batch.size).unsqueeze(1)
        return representation


def load_task(
    name: str,
    entry: dict[str, Any],
    dataset_name: str,
    dataset_entry: dict[str, Any],
    prepared: str | Path,
    device: torch.device,
) -> Task:
    """The task ``name`` of the configuration, its prepared data loaded onto ``device``.

    ``entry`` may carry ``target`` (which of the data set's targets to learn) and ``data``
    (settings of the loader that a task overrides, such as ``points``).
    """
    if "architecture" not in entry:
        raise ConfigError(f"tasks.{name}.architecture is missing; name an architecture.")
    kind = lookup(KINDS, dataset_entry["kind"], f"datasets.{dataset_name}.kind")
    options = {**dataset_entry, **(entry.get("data") or {})}
    if "target" in entry:
        options["target"] = entry["target"]
    dataset = kind.load(Path(prepared), device, options)
    dataset.name = dataset_name
    return Task(name, entry, dataset, device)
