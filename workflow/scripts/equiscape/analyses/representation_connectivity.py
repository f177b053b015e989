"""Whether solutions at different representations are connected, in the space of all perceptrons.

Equivariant networks are a union of planes, one for each hidden representation (Xie & Smidt 2025,
arXiv 2506.02269). Between two networks of one teacher and width, the loss is followed along the
straight line as they are, along it after the hidden units of the second were reordered and flipped
(any order and sign: the free perceptron's symmetries, Ainsworth et al. 2023), and along a quadratic
Bezier curve with a learned bend (Garipov et al. 2018). Pairs of one representation are the
baseline. For networks with a ``plane``; other tasks of a study are passed over.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd

from equiscape.analyses import connectivity
from equiscape.analyses.connectivity import PATHS, PathSettings, Setup, compare
from equiscape.analyses.result import Result
from equiscape.analyses.subject import Checkpoint, Subject
from equiscape.groups.detect import detect_model
from equiscape.settings import Positive, PositiveInt
from equiscape.task import Task

PAIR = (
    *("dataset", "group", "inputs", "teacher", "width", "kind"),
    *("first", "first_solved", "first_task", "first_optimizer", "first_seed"),
    *("second", "second_solved", "second_task", "second_optimizer", "second_seed"),
)
COLUMNS = (
    *PAIR,
    *("alignment", "curve", "split", "loss_first", "loss_second", "peak", "barrier"),
)
UNITS = dict.fromkeys(("loss_first", "loss_second", "peak", "barrier"), "of the target's variance")


@dataclass(frozen=True)
class Settings(PathSettings):
    """The settings of ``analyses.representation-connectivity``.

    Attributes:
        first_seeds: so many of the final seeds take part.
        pairs: most pairs of two classes, see :func:`measure`.
        solved: a network whose training loss is below this share of the target's variance has
            solved its task.
        tolerance: as of ``representation``.
    """

    first_seeds: PositiveInt = 5
    pairs: PositiveInt = 5
    solved: Positive = 1e-5
    tolerance: Positive = 1e-2


@dataclass(frozen=True)
class End:
    """A network at which paths end.

    Attributes:
        task: that it belongs to.
        checkpoint: whose it is.
        model: in eval mode.
        representation: that its hidden layers carry, as found.
        solved: whether its task is.
    """

    task: Task
    checkpoint: Checkpoint
    model: Any
    representation: str
    solved: bool

    def about(self, name: str) -> dict[str, Any]:
        """Its columns, as the ``first`` or ``second`` end."""
        return {
            name: self.representation,
            f"{name}_solved": self.solved,
            f"{name}_task": self.task.name,
            f"{name}_optimizer": self.checkpoint.optimizer,
            f"{name}_seed": self.checkpoint.seed,
        }


def measure(subjects: Sequence[Subject], settings: Settings) -> Result:
    """One row for each pair, path and split.

    A network counts where a representation was found in its hidden layers. Networks of one data
    set, of the same widths and activation fall into classes: the representation, and whether the
    task is solved. Of every two classes, and of each with itself, up to ``pairs`` pairs are taken,
    no network twice, in an order drawn by ``seed``. ``kind`` is ``same`` where both ends carry one
    representation, else ``other``. Losses are over the target's variance; the barrier is
    ``max_t [L(t) - (1 - t) L(0) - t L(1)]``, and ``peak`` is ``max_t L(t)``.
    """
    rows: list[dict[str, Any]] = []
    for family in families(subjects, settings):
        setup = Setup.of(family[0].task, path_settings(family[0].task, settings))
        for first, second in pairs_of(family, settings.pairs):
            rows += path_rows(setup, first, second)
    return Result(pd.DataFrame(rows, columns=list(COLUMNS)), units=UNITS)


def path_settings(task: Task, settings: Settings) -> connectivity.Settings:
    """As of the analysis ``connectivity``: every sample, in one batch."""
    return connectivity.Settings(
        samples=None,
        batch_size=max(task.dataset.size(split) for split in ("train", "test")),
        plane=0,
        **{field.name: getattr(settings, field.name) for field in fields(PathSettings)},
    )


def families(subjects: Sequence[Subject], settings: Settings) -> list[list[End]]:
    """Networks between which a path makes sense, each family in an order drawn by ``seed``."""
    found: dict[tuple, list[End]] = {}
    for subject in subjects:
        seeds = sorted({c.seed for c in subject.checkpoints})[: settings.first_seeds]
        for checkpoint in subject.checkpoints:
            if checkpoint.seed not in seeds:
                continue
            model: Any = checkpoint.model()
            if not hasattr(model, "plane"):
                continue
            layers = detect_model(model, settings.tolerance)
            if not all(layer.accepted for layer in layers):
                continue
            loss = subject.task.evaluate(model, "train")["loss"]
            name = ", ".join(layer.text for layer in layers)
            end = End(subject.task, checkpoint, model, name, loss < settings.solved)
            shapes = tuple((key, p.shape, p.dtype) for key, p in model.named_parameters())
            key = subject.task.dataset.name, model.activation_name, shapes
            found.setdefault(key, []).append(end)
    orders = [np.random.default_rng(settings.seed).permutation(len(f)) for f in found.values()]
    return [[family[i] for i in order] for family, order in zip(found.values(), orders)]


def pairs_of(family: Sequence[End], most: int) -> Iterator[tuple[End, End]]:
    """At most ``most`` pairs of every two classes, and of each with itself."""
    classes: dict[tuple[bool, str], list[End]] = {}
    for end in family:
        classes.setdefault((not end.solved, end.representation), []).append(end)
    for one, other in combinations_with_replacement(sorted(classes), 2):
        a, b = classes[one], classes[other]
        if one == other:
            a, b = a[::2], a[1::2]
        yield from list(zip(a, b))[:most]


def path_rows(setup: Setup, first: End, second: End) -> Iterator[dict[str, Any]]:
    """The rows of one pair."""
    model = first.model
    inputs, *hidden, _ = model.layer_representations
    teacher = getattr(first.task.dataset, "settings", None)
    head = {
        "dataset": first.task.dataset.name,
        "group": model.group.name,
        "inputs": inputs.text,
        "teacher": ", ".join(teacher.hidden) if teacher else "",
        "width": ", ".join(str(representation.width) for representation in hidden),
        "kind": "same" if first.representation == second.representation else "other",
        **first.about("first"),
        **second.about("second"),
    }
    free = model.symmetries(held=False)
    frame = pd.DataFrame(compare(setup, model, second.model, symmetries=free))
    frame = frame[frame["curve"].isin(PATHS) & frame["alignment"].isin(["none", "weights"])]
    for (alignment, curve, split), path in frame.groupby(["alignment", "curve", "split"]):
        t, loss = path["t"].to_numpy(), path["loss"].to_numpy()
        yield {
            **head,
            "alignment": alignment,
            "curve": curve,
            "split": split,
            "loss_first": loss[0],
            "loss_second": loss[-1],
            "peak": float(np.max(loss)),
            "barrier": connectivity.barrier(t, loss),
        }
