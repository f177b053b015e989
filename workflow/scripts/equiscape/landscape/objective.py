"""The training loss as a function of one flat parameter vector: value, gradient, curvature.

A product with the Hessian is the derivative of the gradient along a vector (Pearlmutter 1994), so
the matrix itself is never built. The gradient's graph of a chunk of samples is built once and kept
where memory allows; each product is then one backward pass through it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from equiscape.data.base import Batch, Split
from equiscape.errors import ConfigError, EquiscapeError
from equiscape.landscape.operators import SymmetricOperator
from equiscape.task import Task

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TrainingLoss:
    """Mean training loss over a fixed subset of samples, at a network's parameters.

    The network is copied and set to eval mode: batch norm uses its running statistics, dropout is
    off. The loss has no label smoothing unless asked for, and every sample weighs the same,
    whatever the chunk it falls in. Parameters that the loss does not depend on (EGNN's last
    coordinate network under an invariant head) have zero gradient and zero rows in the Hessian;
    ``without_gradient`` names them.

    Args:
        task: gives samples and loss.
        model: the network; it is not touched.
        samples: size of the random subset of ``split``; None for all of it.
        batch_size: samples a chunk. It bounds the memory and does not change the result.
        seed: of the subset.
        dtype: ``"float32"`` or ``"float64"``, of parameters, data and products.
        parameters: glob patterns of the parameters to include; None for all.
        frozen: names of parameters to leave out of these.
        graph_memory: bytes that kept graphs may take; None for 0.5 GB on the CPU and half of what
            is free on CUDA. Chunks beyond it are rebuilt in every product.
        label_smoothing: of the loss, as in training.

    Raises:
        ConfigError: unknown ``dtype``, or patterns that no parameter matches.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        *,
        samples: int | None,
        batch_size: int,
        seed: int,
        dtype: str = "float32",
        parameters: Sequence[str] | None = None,
        frozen: Sequence[str] = (),
        split: Split = "train",
        graph_memory: int | None = None,
        label_smoothing: float = 0.0,
    ):
        if dtype not in DTYPES:
            raise ConfigError(f"hessian.dtype: {dtype!r} is unknown; use float32 or float64.")
        self.task = task
        self.split = split
        self.label_smoothing = label_smoothing
        self.dtype = DTYPES[dtype]
        self.model = deepcopy(model).to(self.dtype).eval()
        named = []
        for name, parameter in self.model.named_parameters():
            included = parameters is None or any(fnmatchcase(name, p) for p in parameters)
            included = included and name not in frozen
            parameter.requires_grad_(included)
            if included:
                named.append((name, parameter))
        if not named:
            raise ConfigError(
                f"hessian.parameters: no parameter of task {task.name!r} matches {parameters!r}."
            )
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.size = sum(parameter.numel() for parameter in self.parameters)
        self.device = self.parameters[0].device
        self.plan = task.subset(split, samples, seed, batch_size)
        self.samples = sum(len(indices) for indices in self.plan)
        self.without_gradient: list[str] = []
        self.graph_memory = _default_memory(self.device) if graph_memory is None else graph_memory
        self.kept_bytes = 0
        self._kept: list[list[Tensor | None]] | None = None
        self._keep_edges = False
        self.operator = SymmetricOperator(self.size, self._products, self.dtype, self.device)

    def vector(self) -> Tensor:
        """The parameters as one vector ``[n]``."""
        return torch.cat([p.detach().flatten() for p in self.parameters])

    def value_and_gradient(self) -> tuple[float, Tensor]:
        """Loss, and its gradient ``[n]``; keeps the graphs that fit for :attr:`operator`."""
        return self._linearize()

    @torch.no_grad()
    def value_at(self, vector: Tensor) -> float:
        """The loss at other parameters ``vector [n]``, of a copy of the network."""
        model, parts = deepcopy(self.model), dict(zip(self.names, self.split_vector(vector)))
        for name, parameter in model.named_parameters():
            if name in parts:
                parameter.copy_(parts[name])
        total = 0.0
        for batch in self.batches():
            loss = self.task.loss(model, batch, self.label_smoothing)
            total += loss.double().item() * batch.size / self.samples
        return total

    def batches(self) -> Iterator[Batch]:
        """The chunks of the subset, in the loss's precision."""
        for indices in self.plan:
            yield cast(self.task.batch(self.split, indices), self.dtype)

    def _linearize(self) -> tuple[float, Tensor]:
        self._kept, self.kept_bytes = [], 0
        keep, value = True, 0.0
        self._keep_edges = self._edges_fit()
        total = torch.zeros(self.size, dtype=torch.float64, device=self.device)
        used = [False] * len(self.parameters)
        for batch in self.batches():
            with saved_bytes() as saved:
                loss, gradients = self._gradient_graph(batch)
            value += loss.double().item()
            total += self.flatten(gradients)
            used = [u or g is not None for u, g in zip(used, gradients, strict=True)]
            # Chunks are about equal, so one that does not fit ends the search.
            keep = keep and self.kept_bytes + saved["bytes"] <= self.graph_memory
            if keep:
                self._kept.append(gradients)
                self.kept_bytes += saved["bytes"]
            del gradients  # or this chunk's graph would live on while the next is built
        self.without_gradient = [n for n, u in zip(self.names, used, strict=True) if not u]
        return value, total.to(self.dtype)

    def _edges_fit(self) -> bool:
        """Whether a chunk's graph that keeps every edge is small, judged by the first sample's.

        Such graphs give the faster products even where they are rebuilt for each; so the
        question is only whether the one chunk in work fits beside those that are kept.
        """
        batch = cast(self.task.batch(self.split, self.plan[0][:1]), self.dtype)
        self._keep_edges = True
        with saved_bytes() as saved:
            self._gradient_graph(batch)
        return saved["bytes"] * len(self.plan[0]) <= self.graph_memory / 3

    def _gradient_graph(self, batch: Batch) -> tuple[Tensor, list[Tensor | None]]:
        """This chunk's share of the mean loss, and its gradient with a graph."""
        with torch.enable_grad():
            loss = self.task.loss(
                self.model, batch, self.label_smoothing, keep_edges=self._keep_edges
            )
            loss = loss * (batch.size / self.samples)
            gradients = torch.autograd.grad(
                loss, self.parameters, create_graph=True, allow_unused=True
            )
        return loss.detach(), list(gradients)

    def _products(self, vectors: Tensor) -> Tensor:
        """``H v`` for each row v of ``vectors [k, n]``."""
        if self._kept is None:
            self._linearize()
        total = torch.zeros(vectors.shape, dtype=torch.float64, device=self.device)
        kept = self._kept or []
        for gradients in kept:
            self._accumulate(total, gradients, vectors)
        for indices in self.plan[len(kept) :]:
            batch = cast(self.task.batch(self.split, indices), self.dtype)
            self._accumulate(total, self._gradient_graph(batch)[1], vectors)
        if not torch.isfinite(total).all():
            raise EquiscapeError(
                f"the Hessian of task {self.task.name!r} is not finite at this checkpoint; "
                "look for a norm or square root at zero in its network, or set "
                "hessian.dtype: float64."
            )
        return total.to(self.dtype)

    def _accumulate(self, total: Tensor, gradients: list[Tensor | None], vectors: Tensor) -> None:
        """Add this chunk's products to ``total [k, n]``."""
        # A gradient without graph is constant: its rows of the Hessian are zero.
        live = {i: g for i, g in enumerate(gradients) if g is not None and g.requires_grad}
        if not live:
            return
        for row, vector in zip(total, vectors, strict=True):
            parts = self.split_vector(vector)
            products = torch.autograd.grad(
                list(live.values()),
                self.parameters,
                grad_outputs=[parts[i] for i in live],
                retain_graph=True,
                allow_unused=True,
            )
            row += self.flatten(products)

    def flatten(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """One vector ``[n]`` from a tensor a parameter; None stands for zeros."""
        pairs = zip(tensors, self.parameters, strict=True)
        return torch.cat(
            [(torch.zeros_like(p) if t is None else t).detach().flatten() for t, p in pairs]
        )

    def split_vector(self, vector: Tensor) -> list[Tensor]:
        """Views of ``vector [n]`` in the parameters' shapes."""
        parts = vector.split([p.numel() for p in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]


def cast(batch: Batch, dtype: torch.dtype) -> Batch:
    """``batch`` with its floating-point tensors in ``dtype``."""

    def convert(item: Any) -> Any:
        floating = isinstance(item, Tensor) and item.is_floating_point()
        return item.to(dtype) if floating else item

    return replace(
        batch, inputs=tuple(convert(item) for item in batch.inputs), target=convert(batch.target)
    )


def _default_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return 5 * 10**8


@contextmanager
def saved_bytes() -> Iterator[dict[str, int]]:
    """Count the bytes that autograd saves within the block, each storage once."""
    saved, seen = {"bytes": 0}, set()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            saved["bytes"] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved
