"""Whether two solutions are connected: loss along lines and curves between them.

The barrier of a path ``theta(t)`` is ``max_t [L(theta(t)) - (1 - t) L(theta(0)) - t L(theta(1))]``
(Frankle et al. 2020). Paths are taken as the networks are, after their channels were aligned by the
declared permutation symmetries (Ainsworth et al. 2023), and with batch-norm statistics recomputed
on the path (Jordan et al. 2023), since averaged weights have statistics of their own. A quadratic
Bezier curve with a learned bend (Garipov et al. 2018) shows whether a barrier belongs to the line
or to the solutions, and the plane through both ends and the bend shows what lies between them.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from equiscape.analyses.partial import NOTHING
from equiscape.analyses.result import Result
from equiscape.analyses.subject import Checkpoint, Subject
from equiscape.data.base import Batch
from equiscape.landscape import alignment, paths
from equiscape.landscape.bend import learn_bend
from equiscape.settings import NonNegativeInt, Positive, PositiveInt, Seed
from equiscape.symmetries import declared
from equiscape.table import Table
from equiscape.task import Task

log = logging.getLogger("equiscape.connectivity")

COLUMNS = (
    "task",
    "pair",
    "first",
    "first_seed",
    "second",
    "second_seed",
    "alignment",
    "reset",
    "curve",
    "t",
    "split",
    "loss",
    "score",
    "x",
    "y",
)
PATHS = ("line", "bezier")
T = TypeVar("T")
MARGIN = 0.2


@dataclass(frozen=True)
class PathSettings:
    """What paths between two networks are made with, whatever the analysis.

    Attributes:
        seed: of subsets, of the choice of pairs, the matching and the curve's samples and places.
        points: places on a path, ends included.
        restarts: orders of the weight matching, of which the best is kept.
        bend_steps: gradient steps of the Bezier curve's bend; 0 leaves the curve out.
        bend_lr: first step of a tensor (Adam), in root mean squares of its ends' difference.
    """

    seed: Seed = 0
    points: PositiveInt = 25
    restarts: PositiveInt = 3
    bend_steps: NonNegativeInt = 200
    bend_lr: Positive = 0.05

    CONSTRAINTS: ClassVar[tuple[tuple[str, str], ...]] = (
        ("points >= 3", "a path has at least one point between its ends"),
    )


@dataclass(frozen=True)
class Settings(PathSettings):
    """The settings of ``analyses.connectivity``.

    Attributes:
        samples: of each split, a fixed random subset; None for all.
        batch_size: samples a batch.
        pairs: most pairs of a kind: same seed (same start and order of data), other seeds.
        plane: places along each axis of the plane through both ends and the bend; 0 for none.
    """

    samples: PositiveInt | None = 1024
    batch_size: PositiveInt = 64
    pairs: PositiveInt = 2
    plane: NonNegativeInt = 9

    CONSTRAINTS = (
        ("plane != 1", "a plane has two or more places along an axis; 0 leaves it out"),
        ("plane == 0 or bend_steps > 0", "a plane takes the bend as its third point; set plane: 0"),
    )


@dataclass(frozen=True)
class Setup:
    """What every pair is measured with: task, settings, batches of both splits."""

    task: Task
    settings: Settings
    batches: dict[str, list[Batch]]

    @classmethod
    def of(cls, task: Task, settings: Settings) -> "Setup":
        """The setup of a task: its batches are drawn once."""
        s = settings
        return cls(
            task,
            s,
            {
                split: [
                    task.batch(split, i)
                    for i in task.subset(split, s.samples, s.seed, s.batch_size)
                ]
                for split in ("train", "test")
            },
        )


def measure(subject: Subject, settings: Settings) -> Result:
    """Loss and score on every path of every pair, one row a place and split.

    ``alignment`` is ``none``, ``weights`` or ``activations``; ``reset`` says whether batch-norm
    statistics were recomputed on the path; ``curve`` is ``line`` or ``bezier`` (between ends that
    weights aligned), or ``plane`` and ``corner``: places ``x``, ``y`` of the plane through both
    ends and that bend, and the three themselves, without and with the second end aligned, on the
    training samples. The envelope's ``barriers`` hold each path's barrier of the loss, and of the
    score as a drop in the metric's unit.
    """
    setup = Setup.of(subject.task, settings)
    rows: list[dict[str, Any]] = []
    for kind, a, b in chosen(subject, settings.pairs):
        head = {
            "task": subject.task.name,
            "pair": kind,
            "first": a.optimizer,
            "first_seed": a.seed,
            "second": b.optimizer,
            "second_seed": b.seed,
        }
        log.info("%s %d - %s %d (%s)", a.optimizer, a.seed, b.optimizer, b.seed, kind)
        name = f"{a.optimizer} {a.seed} {b.optimizer} {b.seed}"

        def stage(part: str, compute: Callable[[], T], name: str = name) -> T:
            return subject.partial.stage(f"{name} {part}", compute)

        rows += [{**head, **row} for row in compare(setup, a.model(), b.model(), stage)]
    metric = subject.task.metric
    sign = 1.0 if metric.direction == "min" else -1.0
    return Result(
        Table.of(rows, COLUMNS),
        units={"loss": "", "score": metric.unit},
        attributes={"barriers": barriers(rows, sign), "metric": metric.name},
    )


def chosen(subject: Subject, most: int) -> Iterator[tuple[str, Checkpoint, Checkpoint]]:
    """At most ``most`` pairs of each kind: ``same seed``, ``other seed``."""
    names = subject.optimizers
    if len(names) == 1:
        pairs = [("other seed", a, b) for a, b in combinations(subject.checkpoints, 2)]
    else:
        first, second = (subject.of(name) for name in names)
        pairs = [
            ("same seed" if a.seed == b.seed else "other seed", a, b) for a in first for b in second
        ]
    for kind in ("same seed", "other seed"):
        yield from [pair for pair in pairs if pair[0] == kind][:most]


def compare(
    setup: Setup,
    a: nn.Module,
    b: nn.Module,
    stage: Callable[[str, Callable[[], Any]], Any] = NOTHING.stage,
    symmetries: tuple | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of all paths between two networks; both are restored afterwards.

    Args:
        setup: what every pair is measured with.
        a, b: in eval mode.
        stage: keeps each part, given by its name and what computes it: aligned ends, the bend, and
            the rows of each path and plane.
        symmetries: of both networks; None for those that ``a`` declares.
    """
    s = setup.settings
    ends = {"none": paths.state_of(b)}
    start = paths.state_of(a)
    symmetries = declared(a) if symmetries is None else symmetries
    permutations = alignment.permutations_of(symmetries)
    if permutations:
        ends["weights"], ends["activations"] = stage(
            "alignment", lambda: aligned(setup, a, b, symmetries)
        )
    resets = [False, True] if has_batch_norm(a) else [False]
    for name, end in ends.items():
        for reset in resets:
            where = paths.line(start, end, np.linspace(0, 1, s.points))
            yield from kept(stage, path, setup, a, *where, name, reset, "line")
    if s.bend_steps:
        name = "weights" if permutations else "none"
        end = ends[name]
        bend = stage("bend", lambda: learned_bend(setup, a, start, end))
        where = paths.bezier(start, bend, end, np.linspace(0, 1, s.points))
        for reset in resets:
            yield from kept(stage, path, setup, a, *where, name, reset, "bezier")
        if s.plane:
            for chosen_end in dict.fromkeys(("none", name)):
                states = [start, ends[chosen_end], bend]
                yield from kept(stage, plane, setup, a, states, chosen_end, resets[-1])


def kept(
    stage: Callable[[str, Callable[[], Any]], Any], rows: Callable[..., Iterator[T]], *given: Any
) -> list[T]:
    """What ``rows(*given)`` yields, as a stage named by the texts and flags among ``given``."""
    words = [str(word) for word in given if isinstance(word, str | bool)]
    return stage(" ".join([rows.__name__, *words]), lambda: list(rows(*given)))


def aligned(
    setup: Setup, a: nn.Module, b: nn.Module, symmetries: tuple
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state of ``b`` in the orders that weights and activations choose."""
    s = setup.settings
    permutations = alignment.permutations_of(symmetries)
    names = [name for name, _ in a.named_parameters()]
    target, state = (alignment.gauge_fixed(dict(m.state_dict()), symmetries, names) for m in (a, b))
    by_weights = alignment.match_weights(target, state, permutations, s.seed, s.restarts)
    by_activations = alignment.match_activations(
        setup.task, a, b, setup.batches["train"], permutations
    )
    own = paths.state_of(b)
    moved = []
    for orders in (by_weights, by_activations):
        state = alignment.apply(dict(b.state_dict()), permutations, orders)
        # buffers that a checkpoint does not hold are the same in both
        moved.append({name: state.get(name, tensor).clone() for name, tensor in own.items()})
    return moved[0], moved[1]


def path(
    setup: Setup,
    model: nn.Module,
    states: list,
    points: np.ndarray,
    alignment: str,
    reset: bool,
    curve: str,
) -> Iterator[dict[str, Any]]:
    """Rows of one path, both splits."""
    train = setup.batches["train"]
    for split, batches in setup.batches.items():
        loss, score = paths.along(
            setup.task, model, batches, states, points, reset=train if reset else None
        )
        for t, one, other in zip(np.linspace(0, 1, len(points)), loss, score, strict=True):
            yield {
                "alignment": alignment,
                "reset": reset,
                "curve": curve,
                "t": t,
                "split": split,
                "loss": one,
                "score": other,
            }


def plane(
    setup: Setup, model: nn.Module, states: list, alignment: str, reset: bool
) -> Iterator[dict[str, Any]]:
    """Rows of the plane through three states, on the training samples; none if they lie on a line.

    The grid reaches a fifth of its extent beyond the three corners, which have rows of their own.
    """
    names = [name for name, _ in model.named_parameters()]
    places = paths.corners(states, names)
    if places is None:
        log.info("no plane (%s): both ends and the bend lie on a line", alignment)
        return
    d, x, y = places
    corners = np.array([(0.0, 0.0), (d, 0.0), (x, y)])
    low, high = corners.min(0), corners.max(0)
    reach = MARGIN * (high - low)
    axes = [
        np.linspace(a, b, setup.settings.plane)
        for a, b in zip(low - reach, high + reach, strict=True)
    ]
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=1)
    everywhere = np.concatenate([corners, grid])
    train = setup.batches["train"]
    # exact ones and zeros at the corners, so that they are the states to the last bit
    points = np.concatenate([np.eye(3), paths.plane(places, grid)])
    loss, score = paths.along(
        setup.task, model, train, states, points, reset=train if reset else None
    )
    for index, (place, one, other) in enumerate(zip(everywhere, loss, score, strict=True)):
        yield {
            "alignment": alignment,
            "reset": reset,
            "curve": "corner" if index < len(corners) else "plane",
            "split": "train",
            "loss": one,
            "score": other,
            "x": place[0],
            "y": place[1],
        }


def learned_bend(
    setup: Setup, model: nn.Module, start: paths.State, end: paths.State
) -> paths.State:
    """``landscape.bend.learn_bend`` over batches of all training samples, in an order by seed."""
    task, s = setup.task, setup.settings
    order = torch.randperm(
        task.dataset.size("train"), generator=torch.Generator().manual_seed(s.seed)
    ).split(s.batch_size)
    return learn_bend(
        task,
        model,
        start,
        end,
        lambda step: task.batch("train", order[step % len(order)]),
        setup.batches["train"],
        steps=s.bend_steps,
        lr=s.bend_lr,
        seed=s.seed,
    )


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a network carries running statistics."""
    return any(hasattr(module, "running_mean") for module in model.modules())


def barriers(rows: Iterable[Mapping[str, Any]], sign: float) -> list[dict[str, Any]]:
    """The barrier of every path, one entry per path and split.

    ``loss``: largest excess over the straight line between the ends' losses; ``score`` the same in
    the metric's unit, counted as a loss of quality (``sign`` -1 where a higher score is better).
    """
    keys = [c for c in COLUMNS if c not in ("t", "loss", "score", "x", "y")]
    grouped: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["curve"] in PATHS:
            grouped.setdefault(tuple(row[key] for key in keys), []).append(row)
    found = []
    for values, path in grouped.items():
        entry = dict(zip(keys, values, strict=True))
        t, loss, score = (np.array([row[c] for row in path]) for c in ("t", "loss", "score"))
        found.append({**entry, "loss": barrier(t, loss), "score": barrier(t, sign * score)})
    return found


def barrier(t: np.ndarray, loss: np.ndarray) -> float:
    """``max_t [L(t) - (1 - t) L(0) - t L(1)]``, not negative since it is 0 at the ends."""
    return float(np.max(loss - ((1 - t) * loss[0] + t * loss[-1])))
