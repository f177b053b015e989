"""The Hessian of the training loss at a checkpoint: extreme eigenvalues, trace and density."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from torch import nn

from equiscape.analyses.partial import NOTHING, Partial
from equiscape.analyses.result import Result
from equiscape.analyses.subject import Subject
from equiscape.landscape.density import spectral_density
from equiscape.landscape.lanczos import Eigenpairs, LanczosResult, lanczos
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.operators import SymmetricOperator
from equiscape.landscape.power import power_iteration
from equiscape.landscape.trace import TraceEstimate, hutchinson
from equiscape.seeds import sequence_seed
from equiscape.settings import (
    AtLeast,
    Distinct,
    Names,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Seed,
)
from equiscape.task import Task

T = TypeVar("T")
PRECISION = {"float32": 1e-5, "float64": 1e-13}
"""Error of a Hessian product relative to the largest eigenvalue, as measured against float64."""


@dataclass(frozen=True)
class Settings:
    """The settings of ``analyses.hessian``.

    Attributes:
        samples: training samples of the fixed random subset; None for all.
        batch_size: samples a chunk: bounds the memory, does not change the result.
        seed: of the subset, the start vectors and the probes.
        method: ``"lanczos"``, or ``"power"`` for the published method alone: power iteration and
            plain Hutchinson.
        eigenvalues: how many leading ones (Lanczos).
        block: start vectors of Lanczos; more find leading eigenvalues that lie close together in
            fewer steps, of as many products each.
        copies: whether to search for the copies of multiple eigenvalues, at twice the products.
        tolerance: on each residual, relative to its own ``|eigenvalue|``.
        max_iterations: products of Lanczos, and of each power iteration.
        probes: random vectors for the trace.
        trace_tolerance: draw only as many probes as this relative standard error needs, judged by
            the first 30; None: draw all.
        density_probes: random vectors of the spectral density (Lanczos); 0 leaves it out.
        density_steps: products for each of them.
        dtype: ``"float32"`` or ``"float64"``.
        parameters: glob patterns of the parameters to include; None for all.
        adaptive: whether to measure the scale-aware sharpness too (Lanczos).
        graph_memory_mb: megabytes that kept graphs may take; None: decided from the device.
    """

    EXECUTION: ClassVar = ("graph_memory_mb",)

    samples: PositiveInt | None = 1024
    batch_size: PositiveInt = 32
    seed: Seed = 0
    method: Literal["lanczos", "power"] = "lanczos"
    eigenvalues: PositiveInt = 10
    block: PositiveInt = 1
    copies: bool = False
    tolerance: Positive = 1e-3
    max_iterations: PositiveInt = 100
    probes: Annotated[int, AtLeast(2)] = 64
    trace_tolerance: Positive | None = None
    density_probes: NonNegativeInt = 4
    density_steps: Annotated[int, AtLeast(2)] = 20
    dtype: Literal["float32", "float64"] = "float32"
    parameters: Annotated[list[str], AtLeast(1), Distinct(), Names("parameters")] | None = None
    adaptive: bool = True
    graph_memory_mb: NonNegative | None = None
    CONSTRAINTS = (
        (
            "method != 'lanczos' or eigenvalues <= max_iterations",
            "max_iterations must be at least {eigenvalues}, since each product gives one more",
        ),
    )


def measure(subject: Subject, settings: Settings) -> Result:
    """Eigenvalues and trace at the subject's checkpoint."""
    progress = logging.getLogger("equiscape").info
    model = subject.checkpoint.model()
    found = measure_hessian(subject.task, model, settings, progress, subject.partial)
    largest, trace = found["largest"]["value"], found["trace"]["value"]
    return Result(found, headline=f"largest eigenvalue {largest:.4g}, trace {trace:.4g}")


def measure_hessian(
    task: Task,
    model: nn.Module,
    settings: Settings,
    progress: Callable[[str], None] | None = None,
    partial: Partial = NOTHING,
) -> dict[str, Any]:
    """Eigenvalues and trace of the Hessian of the mean training loss at ``model``.

    Args:
        task: gives training samples and loss.
        model: the network at the checkpoint; it is not changed.
        settings: see :class:`Settings`.
        progress: called with one line of text after each stage.
        partial: keeps finished stages: eigenvalues with their Krylov basis (not with a
            ``trace_tolerance``, which lets the basis grow), power iteration, trace, density.

    Returns:
        A JSON-like dict. ``eigenvalues`` are the leading ones by value, descending, each with the
        residual ``|H y - theta y|`` within which an eigenvalue of the computed H lies, the interval
        that this gives with the precision of the products, and whether its sign is known; what has
        not converged says so. ``trace`` has its standard error and a 95 % interval, ``density`` the
        whole spectrum (stochastic Lanczos quadrature) with standard errors over its probes.
        ``power_iteration`` is the published way to the eigenvalue of largest magnitude.
        ``adaptive.largest`` is the largest eigenvalue of ``T H T`` with ``T = diag |theta|`` (Kwon
        et al. 2021), which unlike that of H does not change when neurons of a ReLU network are
        rescaled against each other (Dinh et al. 2017). It does change with the scale between a
        matrix and the batch norm behind it, which in eval mode is no diagonal rescaling: see the
        analysis ``sharpness``. ``products`` count Hessian-vector products over the whole subset.

    Raises:
        EquiscapeError: a product is not finite.
    """
    s = settings
    report = progress or (lambda line: None)
    start = time.monotonic()
    memory = None if s.graph_memory_mb is None else int(s.graph_memory_mb * 1e6)
    objective = TrainingLoss(
        task,
        model,
        samples=s.samples,
        batch_size=s.batch_size,
        seed=s.seed,
        dtype=s.dtype,
        parameters=s.parameters,
        graph_memory=memory,
    )
    loss, gradient = objective.value_and_gradient()
    report(f"loss {loss:.6g} on {objective.samples} samples, {objective.size} parameters")
    measure = _by_lanczos if s.method == "lanczos" else _by_power_iteration
    spectrum = measure(Stages(objective, partial), s, report)
    return {
        "task": task.name,
        "method": s.method,
        "data": _describe_data(objective, s),
        "batch_norm": "eval",
        "dropout": "off",
        "loss": f"mean {task.dataset.objective.loss_name} without label smoothing",
        "dtype": s.dtype,
        "tolerance": s.tolerance,
        "parameters": objective.size,
        "parameters_without_gradient": objective.without_gradient,
        "loss_value": loss,
        "gradient_norm": gradient.double().norm().item(),
        **spectrum,
        "products_total": objective.operator.products,
        "seconds": time.monotonic() - start,
    }


@dataclass(frozen=True)
class Stages:
    """Stages of a Hessian; products of those that are read count as if they had been made."""

    objective: TrainingLoss
    partial: Partial

    def __call__(self, name: str, compute: Callable[[], T], keep: bool = True) -> T:
        """The value of a stage."""
        operator = self.objective.operator
        before = operator.products
        value, products = self.partial.stage(
            f"hessian {name}",
            lambda: (compute(), operator.products - before),
            (LanczosResult, Eigenpairs, TraceEstimate),
            keep,
        )
        operator.products = before + products
        return value


def _by_lanczos(stage: Stages, s: Settings, report: Callable[[str], None]) -> dict[str, Any]:
    operator = stage.objective.operator

    def eigenvalues() -> LanczosResult:
        found = lanczos(
            operator,
            leading=s.eigenvalues,
            tolerance=s.tolerance,
            max_iterations=s.max_iterations,
            block=s.block,
            copies=s.copies,
            generator=_generator(s.seed, "start"),
        )
        return found if grows else replace(found, space=None)

    grows = s.trace_tolerance is not None  # the trace then needs the space, which no file holds
    krylov = stage("eigenvalues", eigenvalues, keep=not grows)
    margin = PRECISION[s.dtype] * float(np.abs(krylov.ritz_values).max())
    leading, smallest = _pairs(krylov.leading, margin), _pairs(krylov.trailing, margin)[-1]
    missing = sum(not pair["converged"] for pair in leading) + (not smallest["converged"])
    report(
        f"largest eigenvalue {leading[0]['value']:.6g}, smallest {smallest['value']:.6g}, "
        f"{krylov.iterations} Lanczos steps" + (f", {missing} not converged" if missing else "")
    )
    power = stage("power", lambda: _dominant(operator, s))
    report(f"power iteration {power['value']:.6g} in {power['iterations']} iterations")
    estimate = stage(
        "trace",
        lambda: hutchinson(
            operator,
            s.probes,
            generator=_generator(s.seed, "probes"),
            krylov=krylov,
            tolerance=s.trace_tolerance,
        ),
    )
    report(f"trace {estimate.value:.6g} +- {estimate.standard_error:.2g}")
    result: dict[str, Any] = {
        "eigenvalues": leading,
        "largest": leading[0],
        "smallest": smallest,
        "lanczos": {
            "iterations": krylov.iterations,
            "converged": not missing,
            "rounding": krylov.rounding,
            "copies": krylov.copies,
        },
        "power_iteration": power,
        "trace": _describe_trace(estimate, krylov),
    }
    if s.density_probes:
        result["density"] = stage("density", lambda: _density(operator, krylov, s))
        report(f"spectral density from {result['density']['products']} products")
    if s.adaptive:
        result["adaptive"] = stage("adaptive", lambda: _adaptive(stage.objective, s))
        report(f"adaptive largest eigenvalue {result['adaptive']['largest']['value']:.6g}")
    return result


def _by_power_iteration(
    stage: Stages, s: Settings, report: Callable[[str], None]
) -> dict[str, Any]:
    operator = stage.objective.operator
    dominant = stage("power", lambda: _dominant(operator, s))
    # The other end dominates once the spectrum is shifted by this one.
    opposite = stage("opposite", lambda: _dominant(operator, s, shift=dominant["value"]))
    ends = sorted([dominant, opposite], key=lambda end: -end["value"])
    largest, smallest = ({k: v for k, v in end.items() if k != "iterations"} for end in ends)
    report(f"power iteration {dominant['value']:.6g} in {dominant['iterations']} iterations")
    estimate = stage(
        "trace", lambda: hutchinson(operator, s.probes, generator=_generator(s.seed, "probes"))
    )
    report(f"trace {estimate.value:.6g} +- {estimate.standard_error:.2g}")
    return {
        "eigenvalues": [largest],
        "largest": largest,
        "smallest": smallest,
        "power_iteration": dominant,
        "trace": _describe_trace(estimate),
    }


def _dominant(operator: SymmetricOperator, s: Settings, shift: float = 0.0) -> dict[str, Any]:
    result = power_iteration(
        operator,
        tolerance=s.tolerance,
        max_iterations=s.max_iterations,
        shift=shift,
        generator=_generator(s.seed, "power"),
    )
    return {
        **_pair(
            result.value,
            result.residual,
            result.converged,
            PRECISION[s.dtype] * max(abs(result.value), abs(result.value - shift)),
        ),
        "iterations": result.iterations,
    }


def _density(operator: SymmetricOperator, krylov: LanczosResult, s: Settings) -> dict[str, Any]:
    """The density on a grid, the share of eigenvalues below some points, and the raw quadrature."""
    exact, vectors = krylov.known()
    before = operator.products
    found = spectral_density(
        operator,
        s.density_probes,
        s.density_steps,
        generator=_generator(s.seed, "density"),
        exact=exact,
        vectors=vectors,
    )
    return {
        "method": "stochastic Lanczos quadrature, converged eigenpairs exact",
        "products": operator.products - before,
        **found.described(),
    }


def _adaptive(objective: TrainingLoss, s: Settings) -> dict[str, Any]:
    before = objective.operator.products
    krylov = lanczos(
        objective.operator.scaled(objective.vector().abs()),
        leading=1,
        trailing=0,
        tolerance=s.tolerance,
        max_iterations=s.max_iterations,
        generator=_generator(s.seed, "start"),
    )
    return {
        "definition": "largest eigenvalue of T H T, T = diag |theta| (elementwise)",
        "largest": _pairs(
            krylov.leading, PRECISION[s.dtype] * float(np.abs(krylov.ritz_values).max())
        )[0],
        "products": objective.operator.products - before,
    }


def _pairs(pairs: Eigenpairs, margin: float) -> list[dict[str, Any]]:
    columns = zip(pairs.values, pairs.residuals, pairs.converged, strict=True)
    return [
        _pair(float(value), float(residual), bool(converged), margin)
        for value, residual, converged in columns
    ]


def _pair(value: float, residual: float, converged: bool, margin: float) -> dict[str, Any]:
    """An eigenvalue; its interval holds the residual and the precision of the products."""
    reach = residual + margin
    return {
        "value": value,
        "residual": residual,
        "low": value - reach,
        "high": value + reach,
        "converged": converged,
        "sign_known": reach < abs(value),
    }


def _describe_trace(estimate: TraceEstimate, krylov: LanczosResult | None = None) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "standard_error": estimate.standard_error,
        "low": estimate.low,
        "high": estimate.high,
        "method": "hutchinson" if krylov is None else "hutchinson, Krylov space deflated",
        "probes": estimate.probes,
        "deflated": estimate.deflated,
        "products": estimate.probes + estimate.steps,
        "products_shared_with_lanczos": 0 if krylov is None else krylov.iterations,
    }


def _describe_data(objective: TrainingLoss, s: Settings) -> dict[str, Any]:
    data = {
        "split": objective.split,
        "samples": objective.samples,
        "batch_size": s.batch_size,
        "seed": s.seed,
    }
    targets = [batch.target for batch in objective.batches()]
    if all(t.dim() == 1 and not t.is_floating_point() for t in targets):
        data["classes"] = len(torch.cat(targets).unique())
    return data


def _generator(seed: int, purpose: str) -> torch.Generator:
    """A stream of its own for each purpose, so that one setting does not shift another's draws."""
    return torch.Generator().manual_seed(sequence_seed(seed, purpose))
