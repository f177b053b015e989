"""The `training` settings of a cell, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from equiscape.errors import ConfigError
from equiscape.training.precision import check_precision


@dataclass(frozen=True)
class Settings:
    """How a cell is trained; batch size and augmentation are known to its task.

    Attributes:
        epochs: passes over the training split.
        batch_size: samples of an optimizer step.
        micro_batch: split a step's batch into pieces of at most this size; None for one piece.
        schedule: see :func:`equiscape.optim.schedules.schedule`.
        clip_norm: largest norm of the gradient; None leaves it alone.
        label_smoothing: share of the uniform law in the training target.
        precision: of training steps, see :mod:`equiscape.training.precision`.
        compile: run training steps through ``torch.compile``, which costs a minute or more at
            first; evaluation and the analyses do without.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        resume_seconds: least time between two resume points.
    """

    epochs: int
    batch_size: int = 32
    micro_batch: int | None = None
    schedule: Mapping[str, Any] = field(default_factory=lambda: {"name": "constant"})
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    precision: str = "float32"
    compile: bool = False
    evaluate_every: int = 1
    resume_seconds: float = 300.0

    @classmethod
    def read(cls, training: Mapping[str, Any]) -> "Settings":
        """From the merged ``training`` map, of which other keys belong to the task.

        Raises:
            ConfigError: a value is missing or out of range; the message names the key.
        """
        if "epochs" not in training:
            raise ConfigError("training.epochs is missing; give the number of epochs.")
        settings = cls(**{k: v for k, v in training.items() if k in cls.__dataclass_fields__})
        for key in ("epochs", "batch_size", "micro_batch", "evaluate_every"):
            value = getattr(settings, key)
            if key == "micro_batch" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"training.{key}: {value!r} must be a positive whole number.")
        if settings.clip_norm is not None and not settings.clip_norm > 0:
            raise ConfigError(
                f"training.clip_norm: {settings.clip_norm!r} must be positive, or null for none."
            )
        if not 0 <= settings.label_smoothing < 1:
            raise ConfigError(
                f"training.label_smoothing: {settings.label_smoothing!r} must lie in [0, 1)."
            )
        if not isinstance(settings.compile, bool):
            raise ConfigError(f"training.compile: {settings.compile!r} must be true or false.")
        check_precision(settings.precision)
        return settings


def batch_statistics(model: nn.Module) -> list[str]:
    """Names of the modules whose output for a sample depends on the rest of its batch."""
    return [name for name, module in model.named_modules() if hasattr(module, "running_mean")]
