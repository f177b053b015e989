"""Stable and effective rank of every weight matrix and every layer's representations."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from equiscape.spectra.activations import collect_representations
from equiscape.table import Table
from equiscape.task import Task


def stable_rank(singular_values: np.ndarray) -> float:
    """``sum s_i^2 / s_1^2``: from 1 (rank one) to the number of values (all equal).

    Insensitive to small singular values. 0 for the zero matrix, NaN if a value is not finite.
    """
    s = np.asarray(singular_values, dtype=np.float64)
    if not np.isfinite(s).all():
        return float("nan")
    if s.size == 0 or s.max() == 0:
        return 0.0
    return float(np.sum((s / s.max()) ** 2))


def effective_rank(singular_values: np.ndarray) -> float:
    """``exp(H(p))`` with ``p_i = s_i / sum_j s_j`` and H in nats (Roy & Vetterli 2007).

    From 1 (rank one) to the number of values (all equal). 0 for the zero matrix, NaN if a value is
    not finite.
    """
    s = np.asarray(singular_values, dtype=np.float64)
    if not np.isfinite(s).all():
        return float("nan")
    if s.size == 0 or s.max() == 0:
        return 0.0
    p = s / s.max()
    p = p[p > 0] / p.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


RANKS: dict[str, Callable[[np.ndarray], float]] = {
    "stable_rank": stable_rank,
    "effective_rank": effective_rank,
}


def ranks_of(matrix: Tensor) -> dict[str, float]:
    """Each of :data:`RANKS` of ``matrix [rows, columns]``, from one decomposition."""
    values = singular_values(matrix)
    return {name: measure(values) for name, measure in RANKS.items()}


def singular_values(matrix: Tensor) -> np.ndarray:
    """Singular values of ``matrix [rows, columns]``, float64, descending.

    All are NaN if an entry is not finite.
    """
    matrix = matrix.detach().to("cpu", torch.float64)
    if not torch.isfinite(matrix).all():
        return np.full(min(matrix.shape), np.nan)
    return torch.linalg.svdvals(matrix).numpy()


def weight_matrices(model: nn.Module) -> dict[str, Tensor]:
    """Every learned matrix by its layer's name, ``[out, in]``, in the model's order.

    A parameter of more dimensions (a convolution kernel) is flattened to ``[out, rest]``.
    """
    return {
        name.removesuffix(".weight"): parameter.detach().flatten(1)
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2
    }


def measure_ranks(
    task: Task, model: nn.Module, *, samples: int | None, batch_size: int, seed: int
) -> Table:
    """Ranks of all weight matrices, then of all layers' representations.

    A layer's representation matrix has one row a training sample: the layer's output in eval
    mode, averaged over points or nodes by ``task.pool``; it is not centered. Its rank is bounded by
    ``samples``, so compare runs at equal ``samples``.

    Args:
        task: gives training samples and pooling.
        model: the network at the checkpoint.
        samples: training samples (rows of the representation matrices); None for all.
        batch_size: samples a batch; does not change the result.
        seed: of the subset.

    Returns:
        A tidy table with the columns ``layer``, ``kind`` (``weight`` or ``representation``),
        ``rows``, ``columns``, ``stable_rank``, ``effective_rank``, in the network's order.
    """
    kinds = {
        "weight": weight_matrices(model),
        "representation": collect_representations(task, model, samples, batch_size, seed),
    }
    rows = []
    for kind, matrices in kinds.items():
        for layer, matrix in matrices.items():
            rows.append((layer, kind, *matrix.shape, *ranks_of(matrix).values()))
    return Table.of_values(rows, ("layer", "kind", "rows", "columns", *RANKS))
