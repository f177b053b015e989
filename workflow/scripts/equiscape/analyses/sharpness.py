"""Sharpness at every final seed: what a change of parameters cannot fake, beside the usual kinds.

Each is taken of the network as it is (``raw``) and with its batch norms folded into the weights
(:mod:`equiscape.landscape.folding`), which takes out what the function does not fix.

Steps of optimizers and S_M are of a fresh optimizer state: a checkpoint keeps weights alone, those
of the best validation epoch, at which there need be no snapshot. Without momentum Adam's own step
is the sign of the gradient. The analysis ``dynamics`` takes steps from states that snapshots keep.
"""

import logging
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from equiscape.analyses.result import Result
from equiscape.analyses.subject import Subject
from equiscape.landscape import identities
from equiscape.landscape.flat import flat_directions
from equiscape.landscape.folding import folded, norm_producers
from equiscape.landscape.gauss_newton import GaussNewton
from equiscape.landscape.lanczos import lanczos
from equiscape.landscape.objective import DTYPES, TrainingLoss, cast
from equiscape.landscape.operators import SymmetricOperator
from equiscape.landscape.sharpness import (
    directional,
    fisher_rao,
    log_hessian,
    relative_flatness,
    restricted,
    row_norms,
)
from equiscape.landscape.spectral import polar, spectral_sharpness
from equiscape.landscape.trace import hutchinson
from equiscape.optim.groups import split_parameters
from equiscape.optim.matrices import scale
from equiscape.seeds import subseed
from equiscape.settings import NonNegativeInt, Positive, PositiveInt, Seed
from equiscape.symmetries import declared
from equiscape.table import Table
from equiscape.task import Task

log = logging.getLogger("equiscape")

COLUMNS = ("seed", "folded", "measure", "layer", "value", "residual", "converged", "products")
WHOLE = "all"
RAW = (
    "hessian_largest",
    "hessian_trace",
    "adaptive_largest",
    "adaptive_trace",
    "filterwise_largest",
)
FACTS = ("parameters", "flat_directions", "folded_norms")
"""Rows that count something of the network, and are no sharpness."""
Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """The settings of ``analyses.sharpness``.

    Attributes:
        samples: training samples of the fixed random subset; None for all.
        batch_size: samples a chunk: bounds the memory, does not change the result.
        seed: of the subset, start vectors, probes and random directions.
        tolerance: of eigenvalues, relative to their own magnitude, and on the rise of S_M.
        max_iterations: products of each Lanczos run and of each start of S_M.
        probes: random vectors of each trace.
        flatness_probes: random vectors of relative flatness, shared by all layers.
        starts: of S_M; maxima are local, and the best start counts.
        directions: random directions of the normalized directional sharpness.
        folded: whether to measure the folded network; False leaves the raw one alone.
        raw: whether to measure the usual kinds of the raw network too.
        min_side: of the matrices that count as Muon's, as the optimizer's own setting.
        dtype: ``"float32"`` or ``"float64"``.
        graph_memory_mb: megabytes that kept graphs may take; None: decided from the device.
    """

    EXECUTION: ClassVar = ("graph_memory_mb",)

    samples: PositiveInt | None = 256
    batch_size: PositiveInt = 32
    seed: Seed = 0
    tolerance: Positive = 1e-2
    max_iterations: PositiveInt = 60
    probes: PositiveInt = 16
    flatness_probes: PositiveInt = 32
    starts: PositiveInt = 2
    directions: NonNegativeInt = 2
    folded: bool = True
    raw: bool = True
    min_side: PositiveInt = 8
    dtype: Literal["float32", "float64"] = "float32"
    graph_memory_mb: Positive | None = None

    CONSTRAINTS: ClassVar = (
        ("probes >= 2 and flatness_probes >= 2", "one probe has no standard error; take 2 or more"),
        ("folded or raw", "one of folded and raw must be true"),
    )


def measure(subject: Subject, settings: Settings) -> Result:
    """A tidy table: a row for each seed, form of the network, measure and layer.

    ``residual`` is the residual of an eigenvalue, the standard error of an estimate, and for S_M
    what first-order optimality leaves; ``products`` counts Hessian-vector products over the subset
    (Gauss-Newton products for its rows).

    Rows of :data:`FACTS` are numbers: of parameters that are free, of directions among these along
    which declared symmetries keep the loss exactly as it is (not ``converged``: an upper bound),
    and of the batch norms that folding writes into matrices.
    """
    rows = []
    for checkpoint in subject.checkpoints:
        name = f"{checkpoint.optimizer} {checkpoint.seed}"
        found = subject.partial.stage(
            name, partial(measure_sharpness, subject.task, checkpoint.model(), settings)
        )
        rows += [{"seed": checkpoint.seed, **row} for row in found]
        log.info(
            "sharpness of %s seed %d: %d rows", checkpoint.optimizer, checkpoint.seed, len(rows)
        )
    return Result(
        Table.of(rows, COLUMNS),
        units={
            "value": f"of the loss; a number for {', '.join(FACTS)}",
            "residual": "of the loss",
            "products": "products",
        },
        attributes={
            "samples": settings.samples,
            "loss": subject.task.dataset.objective.loss_name,
            "optimizer_state": "fresh",
        },
    )


def measure_sharpness(task: Task, model: nn.Module, s: Settings) -> list[dict[str, Any]]:
    """The rows of one network, without its seed."""
    rows = []
    model = deepcopy(model).to(DTYPES[s.dtype]).eval()
    if s.folded:
        few = task.subset("train", min(s.batch_size, 8), s.seed)[0]
        batch = cast(task.batch("train", few), DTYPES[s.dtype])
        norms = len(norm_producers(task, model, batch))
        network, frozen = folded(task, model, batch)
        rows += [
            {"folded": True, **row}
            for row in (
                _row("folded_norms", norms, 0.0, 0),
                *_flat(task, network, frozen),
                *_all(task, network, s, frozen),
            )
        ]
    if s.raw:
        rows += [{"folded": False, **row} for row in _flat(task, model, ())]
        rows += [
            {"folded": False, **row}
            for row in _all(task, model, s, (), None if not s.folded else RAW)
        ]
    return rows


def _all(
    task: Task,
    model: nn.Module,
    s: Settings,
    frozen: Sequence[str],
    only: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    objective = TrainingLoss(
        task,
        model,
        samples=s.samples,
        batch_size=s.batch_size,
        seed=s.seed,
        dtype=s.dtype,
        frozen=frozen,
        graph_memory=None if s.graph_memory_mb is None else int(s.graph_memory_mb * 1e6),
    )
    _, gradient = objective.value_and_gradient()
    rows = [*_spectra(objective, gradient, s, only)]
    if only is None:
        rows += [
            *_gauss_newton(objective, s),
            *_flatness(objective, s),
            *_spectral(objective, gradient, s),
            *_along(objective, gradient, s),
        ]
    return rows


def _flat(task: Task, model: nn.Module, frozen: Sequence[str]) -> Rows:
    """How many parameters are free, and along how many directions the loss is exactly flat."""
    found = identities.applicable(declared(model), False, task.dataset.objective.loss_name)
    flat = flat_directions(model.state_dict(), [x for x in found if x.exact], frozen)
    free = sum(p.numel() for name, p in model.named_parameters() if name not in frozen)
    yield _row("parameters", free, 0.0, 0)
    yield _row("flat_directions", flat.count, 0.0, 0, converged=flat.exact)


def _row(measure: str, value: float, residual: float, products: int, **more: Any) -> dict[str, Any]:
    return {
        "measure": measure,
        "layer": WHOLE,
        "value": value,
        "residual": residual,
        "converged": True,
        "products": products,
        **more,
    }


def _spectra(
    objective: TrainingLoss, gradient: Tensor, s: Settings, only: Sequence[str] | None
) -> Rows:
    """Largest eigenvalue and trace of H and of its rescaled kinds."""
    theta, hessian = objective.vector(), objective.operator
    kinds: dict[str, tuple[SymmetricOperator, bool]] = {
        "hessian": (hessian, True),
        "adaptive": (hessian.scaled(theta.abs()), True),
        "log_hessian": (log_hessian(hessian, theta, gradient), True),
        "filterwise": (hessian.scaled(row_norms(objective)), False),
    }
    for name, (operator, with_trace) in kinds.items():
        if only is None or f"{name}_largest" in only:
            yield from _largest(name, operator, hessian, s, with_trace)


def _largest(
    name: str,
    operator: SymmetricOperator,
    counted: SymmetricOperator,
    s: Settings,
    with_trace: bool,
) -> Rows:
    """Rows of the largest eigenvalue and, with the Krylov space deflated, of the trace."""
    before = counted.products
    krylov = lanczos(
        operator,
        leading=1,
        trailing=0,
        tolerance=s.tolerance,
        max_iterations=s.max_iterations,
        generator=_generator(s.seed),
    )
    pair = krylov.leading
    yield _row(
        f"{name}_largest",
        float(pair.values[0]),
        float(pair.residuals[0]),
        counted.products - before,
        converged=bool(pair.converged[0]),
    )
    if with_trace:
        before = counted.products
        found = hutchinson(operator, s.probes, generator=_generator(s.seed, 1), krylov=krylov)
        products = counted.products - before
        yield _row(f"{name}_trace", found.value, found.standard_error, products)


def _gauss_newton(objective: TrainingLoss, s: Settings) -> Rows:
    """The Gauss-Newton matrix, what H has beyond it, and the Fisher-Rao norm."""
    matrix = GaussNewton(objective)
    yield from _largest("gauss_newton", matrix.operator, matrix.operator, s, with_trace=True)
    rest = matrix.rest()
    krylov = lanczos(
        rest,
        leading=1,
        trailing=1,
        tolerance=s.tolerance,
        max_iterations=s.max_iterations,
        generator=_generator(s.seed),
    )
    for end, pair in (("largest", krylov.leading), ("smallest", krylov.trailing)):
        yield _row(
            f"rest_{end}",
            float(pair.values[-1]),
            float(pair.residuals[-1]),
            krylov.iterations,
            converged=bool(pair.converged[-1]),
        )
    yield _row("fisher_rao", fisher_rao(matrix.operator, objective.vector()), 0.0, 1)


def _flatness(objective: TrainingLoss, s: Settings) -> Rows:
    """Relative flatness of every matrix."""
    for name, found in relative_flatness(
        objective, s.flatness_probes, _generator(s.seed, 2)
    ).items():
        layer = name.removesuffix(".weight")
        yield _row(
            "relative_flatness", found.value, found.standard_error, s.flatness_probes, layer=layer
        )


def _spectral(objective: TrainingLoss, gradient: Tensor, s: Settings) -> Rows:
    """S_M over Muon's matrices, at its own step scale and relative to the weights' norms."""
    names = split_parameters(objective.model, s.min_side)["muon"]
    names = [name for name in names if name in objective.names]
    if not names:
        return
    operator, shapes, places = restricted(objective, names)
    weights = objective.vector()[places].split([a * b for a, b in shapes])
    radii = {
        "spectral_step": [scale(*shape, "match_rms_adamw") for shape in shapes],
        "spectral_relative": [
            torch.linalg.matrix_norm(w.view(shape), 2).item()
            for w, shape in zip(weights, shapes, strict=True)
        ],
    }
    for name, radius in radii.items():
        found = spectral_sharpness(
            operator,
            shapes,
            radius,
            gradient=gradient[places],
            starts=s.starts,
            tolerance=s.tolerance,
            max_iterations=s.max_iterations,
            generator=_generator(s.seed, 3),
        )
        yield _row(name, found.value, found.gap, found.products, converged=found.converged)


def _along(objective: TrainingLoss, gradient: Tensor, s: Settings) -> Rows:
    """Normalized directional sharpness of the gradient, of first steps, of random directions.

    ``sign`` is Adam's first step, ``polar`` Muon's (its matrices orthogonalized and scaled, signs
    elsewhere): the steps that each optimizer would take here from a fresh state.
    """
    directions = {
        "gradient": gradient,
        "sign": gradient.sign(),
        "polar": _muon_step(objective, gradient, s.min_side),
    }
    for index in range(s.directions):
        directions[f"random{index}"] = torch.randn(
            objective.size, generator=_generator(s.seed, 4 + index)
        ).to(gradient)
    for name, direction in directions.items():
        if not direction.any():
            continue
        within = not name.startswith("random")
        before = objective.operator.products
        found = directional(objective, direction, within)
        products = objective.operator.products - before
        for part in ("whole", "within", "across") if within else ("whole",):
            yield _row(f"directional_{name}", getattr(found, part), 0.0, products, layer=part)


def _muon_step(objective: TrainingLoss, gradient: Tensor, min_side: int) -> Tensor:
    muon = set(split_parameters(objective.model, min_side)["muon"])
    parts = []
    for name, part in zip(objective.names, objective.split_vector(gradient), strict=True):
        if name in muon and part.any():
            rows, columns = part.shape
            part = scale(rows, columns, "match_rms_adamw") * polar(part)[0]
        else:
            part = part.sign()
        parts.append(part.flatten())
    return torch.cat(parts)


def _generator(seed: int, purpose: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(subseed(seed, f"sharpness {purpose}"))
