"""The course of a training, from its snapshots: curvature, steps, ranks, margins, probes.

Curvature and steps are of the loss that is trained, at the weights where the optimizer takes its
gradients; ranks of weights, distances, margins and probes are of the weights that were kept.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from equiscape.analyses import course
from equiscape.analyses.partial import Partial
from equiscape.analyses.result import Result
from equiscape.analyses.snapshot import Snapshot
from equiscape.analyses.subject import Checkpoint, Subject
from equiscape.landscape.lanczos import lanczos, warm_start
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.operators import SymmetricOperator
from equiscape.landscape.sharpness import directional, restricted
from equiscape.landscape.spectral import polar, spectral_sharpness
from equiscape.landscape.step import angle, measure_step, preconditioned, share_in
from equiscape.landscape.trace import hutchinson
from equiscape.optim.frozen import active
from equiscape.seeds import subseed
from equiscape.settings import NonNegative, NonNegativeInt, Positive, PositiveInt, Seed
from equiscape.table import Table
from equiscape.task import Task
from equiscape.training.costs import Costs

log = logging.getLogger("equiscape.dynamics")

COLUMNS = ("seed", "epoch", "lr", "loss", "quantity", "layer", "value", "error", "converged",
           "products")  # fmt: skip
WHOLE = course.WHOLE
PART = "part"  # the parameters that have a linear map, where others have none
MOST = 4  # leading eigenvectors, where the settings leave their number open
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The settings of ``analyses.dynamics``.

    Attributes:
        snapshots: at most so many of those kept, spread evenly from the first to the last; None
            for all.
        samples: training samples of the fixed random subset; None for all. Where the network has
            batch statistics, the largest whole number of training batches in it, at least one.
        batch_size: samples a chunk; where the network has batch statistics, the training's.
        seed: of the subset, start vectors and probes.
        mode: ``train`` for the loss as it is trained (batch statistics, label smoothing; no
            augmentation, no dropout), ``eval`` for that of the other analyses.
        eigenvalues: leading ones; None for as many as the network has outputs, at most 4.
        tolerance: of eigenvalues, relative to their own size, and of the spectral measure.
        max_iterations: products of each search.
        probes: random vectors for the trace; below 2 it is left out.
        starts: of the spectral measure of an orthogonalizing optimizer; 0 leaves it out.
        layers: whether curvature along the update is split into layers and what is between them,
            at one product a layer.
        probe_samples: training and test samples of linear probes and margins; 0 leaves them out.
        dtype: ``"float32"`` or ``"float64"``, of loss and products.
        graph_memory_mb: megabytes that kept graphs may take; None: decided from the device.
    """

    EXECUTION: ClassVar = ("graph_memory_mb",)

    snapshots: PositiveInt | None = 4
    samples: PositiveInt | None = 64
    batch_size: PositiveInt = 32
    seed: Seed = 0
    mode: Literal["train", "eval"] = "train"
    eigenvalues: PositiveInt | None = None
    tolerance: Positive = 5e-2
    max_iterations: PositiveInt = 20
    probes: NonNegativeInt = 4
    starts: NonNegativeInt = 1
    layers: bool = False
    probe_samples: NonNegativeInt = 128
    dtype: Literal["float32", "float64"] = "float32"
    graph_memory_mb: NonNegative | None = None
    CONSTRAINTS = (
        (
            "eigenvalues is None or eigenvalues <= max_iterations",
            "max_iterations must be at least {eigenvalues}, since each product gives one more",
        ),
    )


def measure(subject: Subject, settings: Settings) -> Result:
    """A row for each seed, epoch, quantity and layer; what has no meaning is named beside them."""
    costs = Costs(subject.task.device)
    found = Found()
    for seed in dict.fromkeys(c.seed for c in subject.checkpoints):
        kept = [c for c in subject.checkpoints if c.seed == seed and c.epoch is not None]
        kept = spread(sorted(kept, key=lambda c: c.epoch or 0), settings.snapshots)
        for row in rows_of(subject.task, kept, settings, subject.partial, found):
            row["seed"] = seed
            found.rows.append(row)
    return Result(
        Table.of(found.rows, COLUMNS),
        units=course.UNITS | {"probe": subject.task.metric.unit},
        attributes={
            "samples": settings.samples,
            "mode": settings.mode,
            "loss_name": subject.task.dataset.objective.loss_name,
            "absent": [
                {"quantity": quantity, "reason": reason, "epochs": epochs}
                for (quantity, reason), epochs in found.absent.items()
            ],
            "costs": {
                "seconds": sum(found.seconds.values()),
                "seconds_by_part": found.seconds,
                "peak_memory_mb": costs.peak_memory,
                "products": found.products,
            },
        },
    )


class Found:
    """Rows, what is absent and why, and what it cost."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.absent: dict[tuple[str, str], list[int]] = {}
        self.seconds: dict[str, float] = {}
        self.products = 0

    def lacks(self, epoch: int, quantity: str, reason: str) -> None:
        """Note why a quantity has no row."""
        self.absent.setdefault((quantity, reason), []).append(epoch)


def spread(checkpoints: list[Checkpoint], most: int | None) -> list[Checkpoint]:
    """At most ``most`` of them, evenly from the first to the last."""
    if most is None or len(checkpoints) <= most:
        return checkpoints
    if most == 1:
        return checkpoints[-1:]
    places = np.linspace(0, len(checkpoints) - 1, most).round().astype(int)
    return [checkpoints[i] for i in places]


def rows_of(
    task: Task, checkpoints: list[Checkpoint], s: Settings, stages: Partial, found: Found
) -> Iterator[Row]:
    """Rows of the snapshots of one cell, ascending."""
    if not checkpoints:
        return
    last = Snapshot.load(task, checkpoints[-1])
    first = course.initial(task, checkpoints[0], checkpoints[-1])
    before: dict[str, Tensor] = {}  # eigenvectors of the snapshot before
    for checkpoint in checkpoints:
        snapshot = Snapshot.load(task, checkpoint)
        point = Point(task, snapshot, s, stages, found, f"seed {checkpoint.seed}")
        head = {"epoch": snapshot.epoch, "lr": snapshot.lr, "loss": point.loss}
        ends: dict[str, Any] = {
            "distance_initial": first,
            "distance_final": dict(last.model.named_parameters()),
        }
        for rows in (point.kept(ends), point.moving(), point.curved(before)):
            for row in rows:
                yield {**head, "error": 0.0, "converged": True, "products": 0, **row}
        log.info("epoch %d: loss %.6g, %d products", snapshot.epoch, point.loss, found.products)


class Point:
    """One snapshot: the loss there, and the stages of what is measured at it."""

    def __init__(
        self, task: Task, snapshot: Snapshot, s: Settings, stages: Partial, found: Found, name: str
    ):
        self.task, self.snapshot, self.s, self.found = task, snapshot, s, found
        self.stages, self.name = stages, f"{name} epoch {snapshot.epoch}"
        self.objective: TrainingLoss = snapshot.objective(
            task,
            s.mode,
            s.samples,
            s.batch_size,
            seed=s.seed,
            dtype=s.dtype,
            graph_memory=None if s.graph_memory_mb is None else int(s.graph_memory_mb * 1e6),
        )
        self.loss, self.gradient = self.objective.value_and_gradient()
        step = snapshot.step(self.objective, self.gradient)
        self.update = step  # float64
        self.direction = step.to(self.gradient)

    def stage(self, name: str, compute: Callable[[], tuple[list[Row], Any]]) -> Any:
        """Rows of a stage, read where it is finished; what else it gives."""
        operator = self.objective.operator

        def timed() -> tuple:
            start, before = time.monotonic(), operator.products
            rows, more = compute()
            return rows, more, operator.products - before, time.monotonic() - start

        rows, more, products, seconds = self.stages.stage(f"dynamics {self.name} {name}", timed)
        self.found.products += products
        self.found.seconds[name] = self.found.seconds.get(name, 0.0) + seconds
        return rows, more

    def lacks(self, quantity: str, reason: str) -> None:
        """Note why a quantity has no row here."""
        self.found.lacks(self.snapshot.epoch, quantity, reason)

    def kept(self, ends: dict[str, dict[str, Tensor]]) -> list[Row]:
        """What the kept weights say: ranks, distances, balance, margins, probes."""
        model, s = self.snapshot.model, self.s
        rows, absent = self.stage(
            "weights",
            lambda: course.kept_rows(self.task, model, ends, s.probe_samples, s.batch_size, s.seed),
        )
        for quantity, reason in absent:
            self.lacks(quantity, reason)
        return rows

    def moving(self) -> list[Row]:
        """What gradient and update say: norms, ranks, angles, gain and penalty."""
        rows, _ = self.stage("step", lambda: (list(self._moving()), None))
        momenta = self.snapshot.momenta()
        if not momenta:
            self.lacks("momentum_stable_rank", "the optimizer keeps no average of gradients here")
        return rows

    def _moving(self) -> Iterator[Row]:
        objective, gradient, update = self.objective, self.gradient, self.update
        yield from course.flow_rows(objective, gradient, update, self.snapshot.momenta())
        before = objective.operator.products
        step = measure_step(objective, self.loss, gradient, self.direction)
        products = objective.operator.products - before
        resolved = torch.finfo(objective.dtype).eps * max(abs(self.loss), 1e-30)
        for name, value, error in (
            ("step_gain", step.gain, 0.0),
            ("step_penalty", step.penalty, 0.0),
            ("step_change", step.change, resolved),
            ("rho", step.rho, 0.0),
        ):
            yield course.row(name, value, error=error, products=products)
            products = 0  # the same one served them all
        for name, direction in (("update", self.direction), ("gradient", gradient)):
            if not direction.any():
                continue
            split = name == "update" and self.s.layers
            before = objective.operator.products
            found = directional(objective, direction, split)
            products = objective.operator.products - before
            yield course.row(f"directional_{name}", found.whole, products=products)
            if split:
                yield course.row("directional_within", found.within)
                yield course.row("directional_across", found.across)

    def curved(self, before: dict[str, Tensor]) -> list[Row]:
        """What the Hessian says, in the loss's geometry and in the optimizer's.

        Args:
            before: vectors of the snapshot before by stage; those of this one take their place.
        """
        rows = []
        for name, compute in (
            ("curvature", self._eigenvalues),
            ("edge", self._edge),
            ("spectral", self._spectral),
        ):
            found, vectors = self.stage(name, partial(compute, before.get(name)))
            if vectors is not None:
                before[name] = vectors
            rows += found
        self._explain()
        return rows

    def _search(self, operator: SymmetricOperator, leading: int, known: Tensor | None) -> Any:
        start = None
        if known is not None:
            start = warm_start(operator, known, self._generator("warm"))
        return lanczos(
            operator,
            leading=leading,
            trailing=0,
            tolerance=self.s.tolerance,
            max_iterations=self.s.max_iterations,
            generator=self._generator("start"),
            start=start,
        )

    def _eigenvalues(self, known: Tensor | None) -> tuple[list[Row], Tensor]:
        s, operator = self.s, self.objective.operator
        count = s.eigenvalues or min(MOST, course.outputs(self.task, self.snapshot.model))
        krylov = self._search(operator, min(count, self.objective.size), known)
        pairs, rows = krylov.leading, []
        for i, value in enumerate(pairs.values):
            rows.append(
                course.row(
                    f"eigenvalue_{i + 1}",
                    float(value),
                    error=float(pairs.residuals[i]),
                    converged=bool(pairs.converged[i]),
                    products=0 if i else krylov.iterations,
                )
            )
        if s.probes > 1:
            found = hutchinson(
                operator, s.probes, generator=self._generator("trace"), krylov=krylov
            )
            rows.append(
                course.row("trace", found.value, error=found.standard_error, products=found.probes)
            )
        vectors = pairs.vectors
        for name, direction in (("gradient", self.gradient), ("update", self.direction)):
            rows.append(course.row(f"{name}_share", share_in(vectors, direction)))
            toward = angle(direction, vectors[0])
            rows.append(course.row(f"{name}_angle_1", min(toward, 180 - toward)))
        rows.append(course.row("random_share", len(vectors) / self.objective.size))
        return rows, vectors

    def _edge(self, known: Tensor | None) -> tuple[list[Row], Tensor | None]:
        maps = {n: m for n, m in self.snapshot.maps().items() if n in self.objective.names}
        if not maps:
            return [], None
        operator, thresholds = preconditioned(self.objective, maps)
        krylov = self._search(operator, 1, known)
        pair = krylov.leading
        value, residual = float(pair.values[0]), float(pair.residuals[0])
        layer = WHOLE if len(maps) == len(self.objective.names) else PART
        about: dict[str, Any] = {"layer": layer, "converged": bool(pair.converged[0])}
        rows = [course.row("edge", value, error=residual, products=krylov.iterations, **about)]
        if len(thresholds) == 1 and math.isfinite(thresholds[0]):
            rows.append(course.row("threshold", thresholds[0], layer=layer))
            rows.append(
                course.row(
                    "preconditioned", value * thresholds[0], error=residual * thresholds[0], **about
                )
            )
        return rows, pair.vectors

    def _spectral(self, known: Tensor | None) -> tuple[list[Row], Tensor | None]:
        radii = {n: r for n, r in self.snapshot.radii().items() if n in self.objective.names}
        if not radii or not self.s.starts:
            return [], None
        ordered = [name for name in self.objective.names if name in radii]
        operator, shapes, places = restricted(self.objective, ordered)
        parts, sizes = [], []
        for name, (height, width) in zip(ordered, shapes, strict=True):
            radius, blocks = radii[name]
            parts += [(height // blocks, width)] * blocks
            sizes += [radius] * blocks
        gradient = self.gradient[places]
        found = spectral_sharpness(
            operator,
            parts,
            sizes,
            gradient=gradient if known is None else known[0],
            starts=self.s.starts,
            tolerance=self.s.tolerance,
            max_iterations=self.s.max_iterations,
            generator=self._generator("spectral"),
        )
        pieces = gradient.split([a * b for a, b in parts])
        nuclear = sum(
            radius * polar(piece.view(shape))[1]
            for piece, shape, radius in zip(pieces, parts, sizes, strict=True)
        )
        about: dict[str, Any] = {"converged": found.converged}
        rows = [
            course.row("spectral", found.value, error=found.gap, products=found.products, **about)
        ]
        if nuclear > 0:
            scale = self.snapshot.lr / (2 * nuclear)
            rows.append(
                course.row("spectral_edge", found.value * scale, error=found.gap * scale, **about)
            )
        return rows, found.direction[None]

    def _explain(self) -> None:
        """Say why there is no edge, or no spectral measure, at this snapshot."""
        fresh = not any(active(self.snapshot.optimizer).state.values())
        if not self.snapshot.maps():
            reason = "the optimizer's step is no linear map of gradients with frozen state"
            if fresh:
                reason = "the optimizer has no state ahead of its first step"
            self.lacks("edge", reason)
        if not self.snapshot.radii():
            self.lacks("spectral", "the optimizer does not step along polar factors here")

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(subseed(self.s.seed, f"dynamics {purpose}"))
