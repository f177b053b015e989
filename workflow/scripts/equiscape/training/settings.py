"""The `training` settings of a cell, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from equiscape.settings import (
    AtLeast,
    AtMost,
    Distinct,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Probability,
    read,
)


@dataclass(frozen=True)
class Settings:
    """How a cell is trained; batch size and augmentation are known to its task.

    Attributes:
        epochs: passes over the training split.
        batch_size: samples of an optimizer step.
        micro_batch: split a step's batch into pieces of at most this size; None for one piece.
        schedule: see :data:`equiscape.optim.schedules.SCHEDULES`.
        clip_norm: largest norm of the gradient; None leaves it alone.
        label_smoothing: label-smoothing factor, as in ``torch.nn.CrossEntropyLoss``: the share of
            the target that is spread evenly over all classes, the label's own among them.
        precision: of training steps, see :mod:`equiscape.training.precision`.
        compile: run training steps through ``torch.compile``, which costs a minute or more at
            first; evaluation and the analyses do without.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        resume_seconds: least time between two resume points.
        patience: stop once the best validation epoch lies this many epochs back; None never.
        keep: which weights a checkpoint holds, those of the best validation epoch or the last ones.
        together: train all cells of a task and an optimizer in one job, seeds in lockstep; for
            cells of seconds whose every step sees the whole training split.
        snapshots: epochs after which a final cell keeps its weights; 0 is before training.
        recorders: see :data:`equiscape.training.RECORDERS`.
        constraints: see :data:`equiscape.training.CONSTRAINTS`.
    """

    epochs: Annotated[int, AtLeast(1), AtMost(10_000_000)]
    batch_size: PositiveInt = 32
    micro_batch: PositiveInt | None = None
    schedule: Mapping[str, Any] | None = None
    clip_norm: Positive | None = None
    label_smoothing: Probability = 0.0
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    compile: bool = False
    evaluate_every: PositiveInt = 1
    resume_seconds: NonNegative = 300.0
    patience: PositiveInt | None = None
    keep: Literal["best", "last"] = "best"
    together: bool = False
    snapshots: Annotated[list[NonNegativeInt], Distinct()] = ()  # type: ignore[assignment]  # tuples once read
    recorders: Annotated[list[Any], Distinct()] = ("gradient_norm",)  # type: ignore[assignment]
    constraints: Annotated[list[Any], Distinct()] = ()  # type: ignore[assignment]
    CONSTRAINTS = (
        (
            "not snapshots or max(snapshots) <= epochs",
            "snapshots must not be later than training.epochs",
        ),
    )
    EXECUTION = ("micro_batch", "resume_seconds")

    @classmethod
    def read(cls, training: Mapping[str, Any]) -> "Settings":
        """From the merged ``training`` map, of which other keys belong to the task.

        Raises:
            ConfigError: a value is missing or out of range; the message names the key.
        """
        own = {k: v for k, v in training.items() if k in cls.__dataclass_fields__}
        return read(cls, own, "training")
