"""Stable and effective ranks at a checkpoint; see :mod:`equiscape.spectra.ranks`."""

from dataclasses import asdict, dataclass

from equiscape.analyses.result import Result
from equiscape.analyses.subject import Subject
from equiscape.settings import PositiveInt, Seed
from equiscape.spectra.ranks import measure_ranks


@dataclass(frozen=True)
class Settings:
    """The settings of ``analyses.rank``.

    Attributes:
        samples: training samples (rows of the representation matrices); None for all.
        batch_size: samples a batch; does not change the result.
        seed: of the subset.
    """

    samples: PositiveInt | None = 1024
    batch_size: PositiveInt = 32
    seed: Seed = 0


def measure(subject: Subject, settings: Settings) -> Result:
    """Ranks of every weight matrix, then of every layer's representations, one row each."""
    ranks = measure_ranks(subject.task, subject.checkpoint.model(), **asdict(settings))
    return Result(ranks)
