"""A grid point of a loss slice: ours against plain loops that evaluate the network at each point.

Loss and score at the points of a filter-normalized plane, in eval mode, at the size of the demo and
at 1,024 points a cloud with the networks' published widths. The rivals take turns:

* ours: ``equiscape.landscape.slices.measure_slice``, and the same with several points in one
  forward pass;
* a plain loop over our own network, which searches neighbors anew at each point;
* a plain loop over stock torch-geometric layers (:mod:`rivals`), as a study without this library
  would write it: copy the weights of a point, evaluate, go on.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from rivals import stock
from timing import Row, command, show, take_turns, timed_rows
from torch import nn

from equiscape.data import procedural
from equiscape.landscape import slices
from equiscape.landscape.paths import combine, put, state_of
from equiscape.ops import neighbors
from equiscape.task import Task, load_task

# size: points, samples, samples a batch, settings of each network
DEMO = {
    "egnn": {"hidden": 32, "layers": 3, "k": 8},
    "pointnet": {"channels": [32, 32, 64, 128], "head": [64]},
    "dgcnn": {"channels": [32, 32, 64], "embedding": 128, "head": [64], "k": 10},
}
SIZES = {
    "48 x 128": (128, 48, 48, DEMO),
    "8 x 1024": (1024, 8, 8, {"egnn": {"k": 20}, "pointnet": {}, "dgcnn": {}}),
}
SIDE = 3  # grid points a side
TOGETHER = 8  # grid points in one forward pass


def task_of(name: str, size: str, folder: Path, device: str) -> tuple[Task, nn.Module]:
    """A task on generated shapes and its network with random weights."""
    points, _, batch_size, settings = SIZES[size]
    entry = {"kind": "procedural", "points": points, "train_per_class": 8, "test_per_class": 2}
    prepared = folder / f"{points}.h5"
    if not prepared.exists():
        procedural.prepare(entry, None, prepared)
    training = {"batch_size": batch_size}
    given = {"architecture": name, "model": settings[name], "training": training}
    task = load_task(name, given, "shapes", entry, prepared, torch.device(device))
    return task, task.build(0).eval()


@torch.no_grad()
def stock_plane(
    model: nn.Module, task: Task, batches: Sequence, seed: int
) -> list[tuple[float, float]]:
    """Loss and score of stock layers at every point of a plane, one point after the other."""
    objective, center = task.dataset.objective, state_of(model, buffers=False)
    directions = [slices.filter_normalized(model, 2 * seed + i) for i in range(2)]
    states = [center, *(dict(zip(center, d)) for d in directions)]
    axis, found = torch.linspace(-1, 1, SIDE).tolist(), []
    targets = torch.cat([batch.target for batch in batches])
    for y in axis:
        for x in axis:
            put(model, combine(states, [1.0, x, y]))
            outputs = torch.cat([model(batch.inputs[0]) for batch in batches])
            loss = objective.loss(outputs, targets).item()
            found.append((loss, objective.score(outputs, targets)))
    put(model, center)
    return found


def planes(task: Task, model: nn.Module, size: str) -> dict[str, Callable[[int], object]]:
    """What each rival does with a seed: nine points of a plane."""
    _, samples, batch_size, _ = SIZES[size]
    batches = [task.batch("train", i) for i in task.subset("train", samples, 0, batch_size)]
    rival = stock(model)

    def plane(seed: int, reuse: bool = True, batch_points: int | None = None) -> object:
        anew = mock.patch.object(
            neighbors.NeighborTables,
            "find",
            lambda self, x, rows, on_device, *rest: neighbors.knn(x, *rest),
        )
        with nullcontext() if reuse else anew:
            return slices.measure_slice(
                task,
                model,
                samples=samples,
                batch_size=batch_size,
                resolution=SIDE,
                range=1.0,
                seed=seed,
                batch_points=batch_points,
            )

    return {
        "ours": plane,
        "stock layers, plain loop": lambda seed: stock_plane(rival, task, batches, seed),
        "our network, plain loop": partial(plane, reuse=False),
        "points together": partial(plane, batch_points=TOGETHER),
    }


def measure(
    names: tuple[str, ...] = tuple(DEMO), repetitions: int = 5, device: str = "cpu"
) -> Iterator[Row]:
    """Rows of every network and size: wall and CPU milliseconds a grid point."""
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            for name in names:
                task, model = task_of(name, size, Path(folder), device)
                rivals = planes(task, model, size)
                found = take_turns(rivals, repetitions, device)
                case = f"slice, a point, {name}, {size}"
                for rival, times in found.items():  # ours evaluates the checkpoint too
                    evaluated = SIDE**2 + (not rival.startswith("stock"))
                    yield from timed_rows(case, {rival: times}, "ms", 1 / evaluated)


if __name__ == "__main__":
    given = command(__doc__, 5, DEMO)
    show(measure(tuple(given.names), given.repetitions, given.device))
