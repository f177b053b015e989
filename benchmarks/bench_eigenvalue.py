"""Products and CPU time until the eigenvalue of largest magnitude is known to 1 %.

Lanczos against power iteration (the published way) on the Hessian of five networks after a few
epochs, from the same start vectors, taking turns. The truth is a Lanczos run to a residual of 1e-4;
each method stops at the first product after which its own value is within 1 % of that. What a
method cannot know, when to stop, is so left out for both: Lanczos's bound of the error comes from
its recurrence, power iteration's from the product that it has made, so neither pays for it.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from timing import Row, command, quartiles, row, show, take_turns, timed_rows
from torch import nn

from equiscape.data import KINDS
from equiscape.landscape.lanczos import Krylov, gaussian, inner, lanczos, unit_rows
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.operators import SymmetricOperator
from equiscape.optim import build_optimizer
from equiscape.registry import lookup
from equiscape.task import Task, load_task

CLOUDS = {"kind": "procedural", "points": 128}
MOLECULES = {"kind": "molecules-generated", "molecules": 500}
ZINC = Path(__file__).parents[2] / "shared/data/zinc"
NETWORKS = {
    "egnn": (CLOUDS, {"hidden": 32, "layers": 3, "k": 8}),
    "pointnet": (CLOUDS, {"channels": [32, 32, 64, 128], "head": [64]}),
    "dgcnn": (CLOUDS, {"channels": [32, 32, 64], "embedding": 128, "head": [64], "k": 10}),
    "gotennet": (MOLECULES, {"hidden": 16, "layers": 2}),
    "gine": ({"kind": "zinc", "walk_steps": 20}, {"hidden": 32, "layers": 3}),
}
SAMPLES, BATCH, EPOCHS, NEAR, MOST = 32, 32, 2, 0.01, 200


def trained(name: str, folder: Path) -> tuple[Task, nn.Module]:
    """A task and its network after a few epochs of AdamW."""
    entry, model_settings = NETWORKS[name]
    prepared = folder / f"{entry['kind']}.h5"
    if not prepared.exists():
        source = ZINC if entry["kind"] == "zinc" else None
        lookup(KINDS, entry["kind"], "kind").prepare(entry, source, prepared)
    settings = {"architecture": name, "model": model_settings, "training": {"batch_size": BATCH}}
    if entry is MOLECULES:
        settings["target"] = "energy"
    task = load_task(name, settings, "data", entry, prepared, torch.device("cpu"))
    model = task.build(0)
    optimizer, _ = build_optimizer(model, {"class": "adamw"}, 3e-3, 1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for indices in task.plan("train", BATCH, generator)[:20]:
            loss = task.loss(model, task.batch("train", indices))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return task, model.eval()


def by_lanczos(operator: SymmetricOperator, near: Callable[[float], bool], seed: int) -> None:
    """Extend a Krylov space until the Ritz value of largest magnitude is near."""
    space = Krylov(operator, MOST, generator=torch.Generator().manual_seed(seed))
    while space.count < space.limit:
        space.extend()
        if near(max(space.theta[0], space.theta[-1], key=abs) * (space.unit or 1.0)):
            return


def by_power(operator: SymmetricOperator, near: Callable[[float], bool], seed: int) -> None:
    """Power iteration until its Rayleigh quotient is near."""
    vector = unit_rows(gaussian(operator, 1, torch.Generator().manual_seed(seed)))
    for _ in range(MOST):
        image = operator(vector)
        if near(inner(vector, image).item()):
            return
        vector = unit_rows(image)


METHODS = {"ours": by_lanczos, "power iteration": by_power}


def measure(names: tuple[str, ...] = tuple(NETWORKS), repetitions: int = 7) -> Iterator[Row]:
    """Rows of every network and method: products, wall and CPU milliseconds.

    GINE is left out where its data (ZINC) are not at hand.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if name == "gine" and not ZINC.is_dir():
                continue
            task, model = trained(name, Path(folder))
            objective = TrainingLoss(
                task, model, samples=SAMPLES, batch_size=BATCH, seed=0, graph_memory=2**40
            )
            operator = objective.operator
            found = lanczos(operator, leading=1, trailing=1, tolerance=1e-4)
            ends = (float(found.leading.values[0]), float(found.trailing.values[0]))
            truth = max(ends, key=abs)

            def near(value: float, truth: float = truth) -> bool:
                return abs(value - truth) <= NEAR * abs(truth)

            products: dict[str, dict[int, int]] = {rival: {} for rival in METHODS}

            def run(rival: str, seed: int, operator=operator, near=near, products=products) -> None:
                before = operator.products
                METHODS[rival](operator, near, seed)
                products[rival][seed] = operator.products - before

            case = f"eigenvalue to 1 %, {name}"
            yield from timed_rows(
                case, take_turns({r: partial(run, r) for r in METHODS}, repetitions)
            )
            for rival, spent in products.items():
                yield row(case, rival, "products", *quartiles(list(spent.values())))


if __name__ == "__main__":
    given = command(__doc__, 7, NETWORKS, device=False)
    show(measure(tuple(given.names), given.repetitions))
