"""The training loss on a plane through a checkpoint; see :mod:`equiscape.landscape.slices`."""

from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar

from equiscape.analyses.result import Result
from equiscape.analyses.subject import Subject
from equiscape.landscape.slices import measure_slice
from equiscape.settings import AtLeast, Odd, Positive, PositiveInt, Seed


@dataclass(frozen=True)
class Settings:
    """The settings of ``analyses.slice``.

    Attributes:
        samples: training samples of the fixed random subset; None for all.
        batch_size: samples a batch.
        resolution: grid points a side, odd so that the checkpoint is one of them.
        range: half-width of the plane, in units of the directions.
        seed: of the subset and the directions.
        bands: pairs of random directions along which loss and score are measured beside the
            plane, whose own pair is the first: one plane alone is an anecdote.
        batch_points: grid points in one forward pass; None: 16 on CUDA, 1 on the CPU, where
            more are slower.
    """

    EXECUTION: ClassVar = ("batch_points",)

    samples: PositiveInt | None = 1024
    batch_size: PositiveInt = 32
    resolution: Annotated[int, AtLeast(3), Odd()] = 21
    range: Positive = 1.0
    seed: Seed = 0
    bands: PositiveInt = 5
    batch_points: PositiveInt | None = None


def measure(subject: Subject, settings: Settings) -> Result:
    """The plane through the subject's checkpoint: axes, loss and score as arrays."""
    plane = measure_slice(
        subject.task, subject.checkpoint.model(), **asdict(settings), stage=subject.partial.stage
    )
    metric = subject.task.metric
    return Result(
        data=plane.arrays(),
        units={
            "axis_x": "filter norms",
            "axis_y": "filter norms",
            "loss": "",
            "score": metric.unit,
            "band_loss": "",
            "band_score": metric.unit,
        },
        attributes=plane.attributes,
    )
