"""How much of a trained network's spectra its score needs: hidden matrices, truncated afterwards.

A test of robustness, not of cause: the network was not trained with the spectra that it is given.
"""

from dataclasses import dataclass
from typing import Annotated

import pandas as pd
import torch

from equiscape.analyses.result import Result
from equiscape.analyses.subject import Subject
from equiscape.optim.groups import split_parameters
from equiscape.settings import AtLeast, Fraction, PositiveInt
from equiscape.spectra.matching import truncate

COLUMNS = ["kept", "train_loss", "train_score", "test_loss", "test_score"]


@dataclass(frozen=True)
class Settings:
    """The settings of ``analyses.truncation``.

    Attributes:
        kept: fractions of the singular values of every hidden matrix that are kept, the largest
            ones; at least one of each matrix.
        min_side: a matrix with a shorter side stays whole, as for Muon.
    """

    kept: Annotated[list[Fraction], AtLeast(1)] = (1.0, 0.5, 0.25, 0.125, 0.0625)  # type: ignore[assignment]  # a tuple once read
    min_side: PositiveInt = 8


def measure(subject: Subject, settings: Settings) -> Result:
    """Loss and score on train and test, one row for each fraction kept.

    The matrices are those that Muon would take. Batch norms keep their statistics.
    """
    model = subject.checkpoint.model()
    matrices = {
        name: model.get_parameter(name)
        for name in split_parameters(model, settings.min_side)["muon"]
    }
    whole = {name: p.detach().clone() for name, p in matrices.items()}
    rows = []
    for kept in settings.kept:
        with torch.no_grad():
            for name, p in matrices.items():
                count = max(1, round(kept * min(p.shape)))
                p.copy_(whole[name] if count == min(p.shape) else truncate(whole[name], count))
        scores = [
            subject.task.score(model, subject.task.batches(split)) for split in ("train", "test")
        ]
        rows.append([kept, *(s[key] for s in scores for key in ("loss", "score"))])
    unit = subject.task.metric.unit
    return Result(
        pd.DataFrame(rows, columns=COLUMNS), units={"train_score": unit, "test_score": unit}
    )
