"""The training loss on a plane through a checkpoint (Li et al. 2018, section 4).

The plane is ``theta + x d_x + y d_y`` with two random *filter-normalized* directions: Gaussian,
each row of a weight matrix rescaled to the norm of that row of the weights, and zero for biases
and norm parameters. So one unit of distance means the same relative change in every network, and
planes of two optimizers can be compared at the same range.
"""

import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from equiscape.errors import DataError
from equiscape.landscape.paths import along, state_of
from equiscape.seeds import sequence_seed
from equiscape.task import Task

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "equiscape-slice-1"
NORMALIZATION = "filter: rows of matrices to the weights' row norms; biases and norms zero"


ARRAYS = ("axis_x", "axis_y", "loss", "score")
BANDS = ("band_loss", "band_score")
BLOCK = 32  # points that are kept together; a multiple of those in one forward pass
Stage = Callable[[str, Callable[[], Any]], Any]


def computed(name: str, compute: Callable[[], Any]) -> Any:
    """A stage that nothing keeps."""
    return compute()


@dataclass(frozen=True)
class SliceResult:
    """Loss and score on a plane.

    Attributes:
        axis_x, axis_y: ``[r]`` distances along the directions; 0 is the checkpoint.
        loss: ``[r, r]`` float64, ``loss[j, i]`` at ``axis_x[i], axis_y[j]`` (as contour plots take
            it); infinite or NaN where the network's loss is.
        score: ``[r, r]`` float64, the task's metric on the same samples.
        band_loss, band_score: ``[d, r]`` loss and score along d random directions of the same
            kind, at the distances ``axis_x``; the first two are the plane's own cuts. None in
            files of earlier versions.
        attributes: ``chance_loss`` (of the best constant prediction), ``checkpoint_loss``,
            ``center_loss`` (equal to the last bit), ``cosine`` of the directions, ``seed_x``,
            ``seed_y``, ``normalization``, data and metric.
    """

    axis_x: np.ndarray
    axis_y: np.ndarray
    loss: np.ndarray
    score: np.ndarray
    attributes: dict[str, Any]
    band_loss: np.ndarray | None = None
    band_score: np.ndarray | None = None

    @property
    def error(self) -> np.ndarray | None:
        """``[r, r]`` classification error in percent; None for tasks without accuracy."""
        return 100.0 - self.score if self.attributes["metric"] == "accuracy" else None

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file holds: axes, loss, score, bands, and the error where there is one."""
        arrays = {name: getattr(self, name) for name in (*ARRAYS, *BANDS, "error")}
        return {name: array for name, array in arrays.items() if array is not None}


def measure_slice(
    task: Task,
    model: nn.Module,
    *,
    samples: int | None,
    batch_size: int,
    resolution: int,
    range: float,
    seed: int,
    bands: int = 1,
    batch_points: int | None = None,
    stage: Stage = computed,
) -> SliceResult:
    """Loss and score of ``model`` on a filter-normalized plane, in eval mode.

    Training samples without augmentation, loss without label smoothing, batch norm with the
    checkpoint's running statistics throughout. The model's parameters are restored afterwards.

    Args:
        task: gives training samples, loss and score.
        model: the network at the checkpoint.
        samples: of the fixed random subset; None for all.
        batch_size: samples a batch.
        resolution: grid points a side, odd so that the checkpoint is one of them.
        range: half-width of the plane, in units of the directions.
        seed: of the subset and the directions.
        bands: pairs of random directions along which loss and score are measured; the plane's
            own pair is the first, each further one costs two lines of points.
        batch_points: points in one forward pass, see :func:`equiscape.landscape.paths.along`.
        stage: called with the name of a block of points and what computes it; an analysis keeps
            finished ones there.
    """
    plan = task.subset("train", samples, seed, batch_size)
    seeds = {"seed_x": 2 * seed, "seed_y": 2 * seed + 1}
    along_x, along_y = (filter_normalized(model, seed) for seed in seeds.values())
    half = resolution // 2
    axis = np.arange(-half, half + 1) / half * range
    batches = [task.batch("train", indices) for indices in plan]
    center = state_of(model, buffers=False)

    block = BLOCK if batch_points is None else batch_points * -(-BLOCK // batch_points)

    def evaluate(
        name: str, directions: Sequence[Sequence[Tensor]], points: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        states = [center, *(dict(zip(center, d, strict=True)) for d in directions)]
        points = np.column_stack([np.ones(len(points)), points])
        found = [
            stage(
                f"{name} {start}",
                partial(
                    along,
                    task,
                    model,
                    batches,
                    states,
                    points[start : start + block],
                    batch_points=batch_points,
                ),
            )
            for start in builtins.range(0, len(points), block)
        ]
        loss, score = (np.concatenate(values) for values in zip(*found, strict=True))
        return loss, score

    y, x = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
    loss, score = (
        values.reshape(resolution, resolution)
        for values in evaluate("plane", [along_x, along_y], np.column_stack([x, y]))
    )
    lines = [(loss[half], score[half]), (loss[:, half], score[:, half])]
    band_seeds = [sequence_seed(seed, "band", line) for line in builtins.range(2, 2 * bands)]
    for band_seed in band_seeds:
        band = [filter_normalized(model, band_seed)]
        lines.append(evaluate(f"band {band_seed}", band, axis[:, None]))
    band_loss, band_score = (np.array(values) for values in zip(*lines[: 2 * bands], strict=True))
    checkpoint = task.score(model, batches)
    attributes = {
        "format": FORMAT,
        "task": task.name,
        "metric": task.metric.name,
        "unit": task.metric.unit,
        "direction": task.metric.direction,
        "split": "train",
        "samples": sum(len(indices) for indices in plan),
        "seed": seed,
        **seeds,
        "band_seeds": band_seeds,
        "range": range,
        "normalization": NORMALIZATION,
        "batch_norm": "eval",
        "cosine": cosine(along_x, along_y),
        "chance_loss": task.dataset.objective.chance_loss(
            torch.cat([batch.target for batch in batches])
        ),
        "checkpoint_loss": checkpoint["loss"],
        "checkpoint_score": checkpoint["score"],
        "center_loss": loss[half, half],
    }
    return SliceResult(axis, axis.copy(), loss, score, attributes, band_loss, band_score)


def filter_normalized(model: nn.Module, seed: int) -> list[Tensor]:
    """A random direction in parameter space, one tensor a parameter.

    Rows of matrices get the norm of the parameter's row; vectors and scalars (biases, norm
    parameters) are zero. Drawn on the CPU, so one seed gives one direction on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = []
    for parameter in model.parameters():
        value = parameter.detach()
        if value.dim() < 2:
            direction.append(torch.zeros_like(value))
            continue
        d = torch.randn(value.shape, generator=generator).to(value)
        rows, weights = d.flatten(1), value.flatten(1)
        scale = weights.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True)
        direction.append((rows * scale).view_as(value))
    return direction


def cosine(a: list[Tensor], b: list[Tensor]) -> float:
    """Cosine of the angle between two directions."""
    x, y = (torch.cat([t.double().flatten() for t in d]) for d in (a, b))
    return (x @ y / (x.norm() * y.norm())).item()


def cuts(result: SliceResult) -> "pd.DataFrame":
    """The two one-dimensional cuts through the checkpoint.

    Returns:
        A tidy table: ``direction`` ("x" or "y"), ``distance``, ``loss``, ``score``.
    """
    import pandas as pd

    half = len(result.axis_x) // 2
    tables = []
    for name, axis, index in (
        ("x", result.axis_x, np.s_[half, :]),
        ("y", result.axis_y, np.s_[:, half]),
    ):
        columns = {"distance": axis, "loss": result.loss[index], "score": result.score[index]}
        tables.append(pd.DataFrame({"direction": name, **columns}))
    return pd.concat(tables, ignore_index=True)


def read_slice(path: str | Path) -> SliceResult:
    """Read the file of a slice.

    Raises:
        DataError: the file is absent, damaged, or not a slice.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            attributes = {
                key: value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
                for key, value in file.attrs.items()
            }
            arrays = {name: file[name][()] for name in ARRAYS}
            arrays |= {name: file[name][()] for name in BANDS if name in file}
            return SliceResult(**arrays, attributes=attributes)
    except (OSError, KeyError) as error:
        raise DataError(
            f"{path} cannot be read as a slice ({error}); "
            "make it again with --forcerun and its rule."
        ) from None
