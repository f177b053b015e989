"""The training loss on a plane through a checkpoint; see :mod:`equiscape.landscape.slices`."""

from dataclasses import asdict, dataclass
from typing import ClassVar

from equiscape.analyses.result import Result
from equiscape.analyses.subject import Subject
from equiscape.errors import ConfigError
from equiscape.landscape.slices import measure_slice


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

    samples: int | None = 1024
    batch_size: int = 32
    resolution: int = 21
    range: float = 1.0
    seed: int = 0
    bands: int = 5
    batch_points: int | None = None

    def __post_init__(self):
        if self.resolution < 3 or self.resolution % 2 == 0:
            raise ConfigError(
                f"analyses.slice.resolution must be odd and at least 3, not {self.resolution}, "
                "so that the checkpoint is a grid point."
            )
        if not self.range > 0:
            raise ConfigError(f"analyses.slice.range must be positive, not {self.range}.")
        for key in ("bands", "batch_points"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise ConfigError(f"analyses.slice.{key} must be at least 1.")


def measure(subject: Subject, settings: Settings) -> Result:
    """The plane through the subject's checkpoint: axes, loss and score as arrays."""
    plane = measure_slice(subject.task, subject.checkpoint.model(), **asdict(settings))
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
