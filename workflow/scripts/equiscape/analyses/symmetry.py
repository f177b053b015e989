"""What the parameter symmetries of a network force at a checkpoint, and how far it holds.

Rows of four kinds (``level``):

* ``family``: the first- and second-order identities for a random combination of a family;
* ``symmetry``: how unbalanced each symmetry's conserved quantity is, layer by layer;
* ``direction``: the share of the gradient and of the Hessian's leading eigenvectors that lies in
  the span of the symmetries, beside the share of a random direction;
* ``permutation``: outputs and gradient at a copy whose channels were permuted at random.
"""

import logging
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial as partial_of
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from equiscape.analyses.partial import NOTHING, Partial
from equiscape.analyses.result import Result
from equiscape.analyses.subject import Subject
from equiscape.landscape import identities
from equiscape.landscape.lanczos import lanczos
from equiscape.landscape.objective import cast
from equiscape.seeds import subseed
from equiscape.settings import NonNegativeInt, Positive, PositiveInt, Seed
from equiscape.symmetries import Permutation, declared
from equiscape.table import Table
from equiscape.task import Task

log = logging.getLogger("equiscape.symmetry")

COLUMNS = (
    "seed",
    "level",
    "family",
    "name",
    "mode",
    "dimension",
    "first",
    "second",
    "rayleigh",
    "predicted",
    "imbalance",
    "relative_imbalance",
    "share",
    "random_share",
    "eigenvalue",
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The settings of ``analyses.symmetry``.

    Attributes:
        samples: training samples of the fixed random subset.
        batch_size: samples a chunk; in train mode also the batch whose statistics norms use.
        seed: of the subset and the random combinations.
        eigenvectors: leading ones whose overlap with the symmetries is measured; 0 for none.
        tolerance: of these, relative to their own eigenvalue.
        max_iterations: of Lanczos.
        dtype: ``float64`` shows an identity to its last digits; ``float32`` is faster.
        graph_memory_mb: megabytes that kept graphs may take; None: decided from the device.
    """

    EXECUTION: ClassVar = ("graph_memory_mb",)

    samples: PositiveInt | None = 64
    batch_size: PositiveInt = 64
    seed: Seed = 0
    eigenvectors: NonNegativeInt = 5
    tolerance: Positive = 1e-2
    max_iterations: PositiveInt = 60
    dtype: Literal["float32", "float64"] = "float64"
    graph_memory_mb: Positive | None = None
    CONSTRAINTS = (
        (
            "eigenvectors <= max_iterations",
            "max_iterations must be at least {eigenvectors}, since each product gives one more",
        ),
    )


def measure(subject: Subject, settings: Settings) -> Result:
    """All rows of a checkpoint; a network that declares no symmetry has none."""
    checkpoint = subject.checkpoint
    rows = list(rows_of(subject.task, checkpoint.model(), settings, subject.partial))
    for row in rows:
        row["seed"] = checkpoint.seed
    units = dict.fromkeys(("first", "second", "relative_imbalance", "share", "random_share"), "1")
    return Result(Table.of(rows, COLUMNS), units=units)


def rows_of(task: Task, model: nn.Module, s: Settings, partial: Partial = NOTHING) -> Iterator[Row]:
    """Rows of every level for a network in eval mode; ``partial`` keeps those of each mode."""
    symmetries = declared(model)
    for mode in ("eval", "train"):
        rows = rows_in(mode, symmetries, task, model, s, partial)  # a generator: nothing runs yet
        yield from partial.stage(f"symmetry {mode}", partial_of(list, rows))
    permutations = [p for p in symmetries if isinstance(p, Permutation)]
    if permutations:
        yield partial.stage(
            "symmetry permutations", lambda: permutation_row(task, model, s, permutations)
        )


def rows_in(
    mode: str, symmetries: tuple, task: Task, model: nn.Module, s: Settings, partial: Partial
) -> Iterator[Row]:
    """Rows of the symmetries of one mode (those of both are measured in eval mode)."""
    training = mode == "train"
    name = task.dataset.objective.loss_name
    found = identities.applicable(symmetries, training, name)
    if training:
        found = [symmetry for symmetry in found if symmetry.mode == "train"]
    if found:
        objective = loss_at(task, model, s, training)
        _, gradient = objective.value_and_gradient()
        largest, vectors, values = partial.stage(
            f"symmetry {mode} eigenvectors", lambda: spectrum(objective, s)
        )
        generator = torch.Generator().manual_seed(subseed(s.seed, f"symmetry {mode}"))
        for family in identities.by_family(found):
            kept = identities.identity(objective, gradient, family, mode, largest, generator)
            log.info("%s (%s): %.1e, %.1e", kept.family, mode, kept.first, kept.second)
            yield {"level": "family", "name": kept.family, **vars(kept)}
        state = identities.state_of(objective)
        for symmetry in found:
            value, relative = identities.relative_imbalance(state, symmetry)
            yield {
                "level": "symmetry",
                "family": symmetry.family,
                "name": symmetry.name,
                "mode": mode,
                "dimension": symmetry.dimension,
                "imbalance": value,
                "relative_imbalance": relative,
            }
        span = identities.Span(objective, found)
        drawn = torch.randn(objective.size, generator=generator, dtype=torch.float64)
        base = {"level": "direction", "mode": mode, "dimension": span.dimension}
        base["random_share"] = span.share(drawn.to(objective.device))
        yield {**base, "name": "gradient", "share": span.share(gradient)}
        for i, (vector, value) in enumerate(zip(vectors, values, strict=True)):
            yield {
                **base,
                "name": f"eigenvector {i + 1}",
                "share": span.share(vector),
                "eigenvalue": float(value),
            }


def loss_at(task: Task, model: nn.Module, s: Settings, training: bool) -> identities.ModeLoss:
    """The objective of one mode."""
    memory = None if s.graph_memory_mb is None else int(s.graph_memory_mb * 1e6)
    return identities.ModeLoss(
        task,
        model,
        samples=s.samples,
        batch_size=s.batch_size,
        seed=s.seed,
        dtype=s.dtype,
        graph_memory=memory,
        training=training,
    )


def spectrum(objective: identities.ModeLoss, s: Settings) -> tuple[float, Any, Any]:
    """The largest eigenvalue, and the leading eigenvectors with their eigenvalues."""
    krylov = lanczos(
        objective.operator,
        leading=max(1, s.eigenvectors),
        trailing=0,
        tolerance=s.tolerance,
        max_iterations=s.max_iterations,
        generator=torch.Generator().manual_seed(subseed(s.seed, "symmetry lanczos")),
    )
    count = s.eigenvectors
    return (
        float(krylov.leading.values[0]),
        krylov.leading.vectors[:count],
        krylov.leading.values[:count],
    )


def permutation_row(
    task: Task, model: nn.Module, s: Settings, permutations: list[Permutation]
) -> Row:
    """``first``: largest change of an output, relative; ``second``: of the gradient."""
    generator = torch.Generator().manual_seed(subseed(s.seed, "symmetry permutation"))
    copy = deepcopy(model)
    moved, orders = identities.permuted(model, permutations, generator)
    copy.load_state_dict(moved)
    objectives = [loss_at(task, network, s, training=False) for network in (model, copy)]
    before, after = (objective.value_and_gradient()[1] for objective in objectives)
    names = objectives[0].names
    gradient: dict = dict(zip(names, objectives[0].split_vector(before), strict=True))
    for p in permutations:
        ties = tuple(tie for tie in p.ties if tie.parameter in gradient)
        gradient = replace(p, ties=ties).act(gradient, orders[p.name])
    expected = objectives[0].flatten([gradient[name] for name in names])
    batch = next(objectives[0].batches())
    with torch.no_grad():
        one, other = (
            task.output(objective.model, cast(batch, objective.dtype)) for objective in objectives
        )
    return {
        "level": "permutation",
        "family": "permutation",
        "name": f"{len(permutations)} permutations at once",
        "mode": "eval",
        "dimension": 0,
        "first": identities.ratio((one - other).abs().max().item(), one.abs().max().item()),
        "second": identities.ratio((after - expected).norm().item(), before.norm().item()),
    }
