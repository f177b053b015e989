"""What a snapshot says without second derivatives: rows of the analysis ``dynamics``."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equiscape.analyses.subject import Checkpoint
from equiscape.checkpoint import read
from equiscape.landscape import identities
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.step import angle
from equiscape.spectra.activations import collect_representations
from equiscape.spectra.probes import fit_probe, margins, wanted_outputs
from equiscape.spectra.ranks import ranks_of
from equiscape.symmetries import declared
from equiscape.task import Task

WHOLE = "all"
UNITS = {
    "loss": "of the trained loss",
    "value": "by quantity: of the loss, a number of directions, degrees, or 1",
    "error": "residual, standard error or rounding, as the value",
    "products": "Hessian-vector products over the subset",
    "update_angle": "degrees",
    "gradient_angle_1": "degrees",
    "update_angle_1": "degrees",
    "margin": "of the outputs",
    "margin_positive": "%",
}
Row = dict[str, Any]


def row(quantity: str, value: float, layer: str = WHOLE, **more: Any) -> Row:
    """A row about the whole network, or a layer."""
    return {"quantity": quantity, "layer": layer, "value": value, **more}


def outputs(task: Task, model: nn.Module) -> int:
    """How many numbers the network gives for a sample."""
    with torch.no_grad():
        return task.output(model, task.batch("train", torch.arange(1))).shape[-1]


def initial(task: Task, first: Checkpoint, last: Checkpoint) -> dict[str, Tensor]:
    """The weights ahead of the first step, by name: from the snapshot, or drawn again by seed."""
    if first.epoch == 0:
        state = read(first.path, map_location=task.device)["model"]
        names = [name for name, _ in task.build(last.seed).named_parameters()]
        return {name: state[name] for name in names}
    return {name: p.detach() for name, p in task.build(last.seed).named_parameters()}


def kept_rows(
    task: Task,
    model: nn.Module,
    ends: Mapping[str, Mapping[str, Tensor]],
    samples: int,
    batch_size: int,
    seed: int,
) -> tuple[list[Row], list[tuple[str, str]]]:
    """Rows of weights: ranks, distances, imbalance, margins, probes; what is absent and why.

    Args:
        task: gives data and objective.
        model: the network, in eval mode.
        ends: name of a distance -> the weights that it is from.
        samples: training and test samples of margins and probes; 0 for none.
        batch_size: samples a batch.
        seed: of the subset.
    """
    rows, absent = [], []
    weights = {name: p.detach() for name, p in model.named_parameters()}
    for name, weight in weights.items():
        if weight.dim() == 2:
            rows += rank_rows("weight", name, weight)
    for name, end in ends.items():
        rows += distance_rows(name, weights, end)
    rows += list(imbalance_rows(task, model))
    if samples:
        outputs_of, targets = {}, {}
        for split in ("train", "test"):
            plan = task.subset(split, samples, seed, batch_size)
            found = task.predict(model, (task.batch(split, indices) for indices in plan))
            outputs_of[split], targets[split] = found.output, found.target
        rows += list(margin_rows(task, outputs_of, targets))
        if not any(r["quantity"].startswith("margin") for r in rows):
            absent.append(("margin", "a regression has no margins"))
        wanted = wanted_outputs(
            task.dataset.objective, targets["train"].cpu(), outputs_of["train"].shape[-1]
        )
        rows += list(
            probe_rows(task, model, wanted, targets["test"].cpu(), samples, batch_size, seed)
        )
    return rows, absent


def rank_rows(what: str, name: str, matrix: Tensor) -> list[Row]:
    """Both ranks of a matrix."""
    layer = name.removesuffix(".weight")
    return [row(f"{what}_{rank}", value, layer) for rank, value in ranks_of(matrix).items()]


def distance_rows(name: str, weights: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> list[Row]:
    """Euclidean distance from ``end``, whole (also by the norm there) and by matrix."""
    moved = {key: (weights[key] - end[key]).double().norm().item() for key in weights}
    whole = sum(value**2 for value in moved.values()) ** 0.5
    size = sum(end[key].double().square().sum().item() for key in weights) ** 0.5
    rows = [row(name, whole)]
    if size:
        rows.append(row(f"{name}_relative", whole / size))
    return rows + [
        row(name, value, key.removesuffix(".weight"))
        for key, value in moved.items()
        if weights[key].dim() == 2
    ]


def imbalance_rows(task: Task, model: nn.Module) -> Iterator[Row]:
    """How unbalanced each declared scaling is: gradient flow conserves it, optimizers do not."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    name = task.dataset.objective.loss_name
    for symmetry in identities.applicable(declared(model), False, name):
        if "scale" in symmetry.family:
            yield row("imbalance", identities.relative_imbalance(state, symmetry)[1], symmetry.name)


def margin_rows(
    task: Task, outputs_of: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> Iterator[Row]:
    """Median, tenth percentile and share above zero of the margins, on train and test."""
    for split, output in outputs_of.items():
        found = margins(task.dataset.objective, output, targets[split])
        if found is None:
            continue
        yield row(f"margin_{split}_median", found.quantile(0.5).item())
        yield row(f"margin_{split}_tenth", found.quantile(0.1).item())
        yield row(f"margin_{split}_positive", 100.0 * (found > 0).double().mean().item())


def probe_rows(
    task: Task,
    model: nn.Module,
    wanted: Tensor,
    target: Tensor,
    samples: int,
    batch_size: int,
    seed: int,
) -> Iterator[Row]:
    """The score on test samples of a linear probe of every layer, fitted on training samples.

    Args:
        task: gives data and objective.
        model: the network, in eval mode.
        wanted: ``[training samples, outputs]``, what is fitted.
        target: of the test samples.
        samples, batch_size, seed: of both subsets.
    """
    layers = {
        split: collect_representations(task, model, samples, batch_size, seed, split)
        for split in ("train", "test")
    }
    for layer, features in layers["train"].items():
        if features.dim() != 2 or not torch.isfinite(features).all():
            continue
        found = fit_probe(features, wanted)(layers["test"][layer])
        yield row("probe", task.dataset.objective.score(found, target), layer)


def flow_rows(
    objective: TrainingLoss, gradient: Tensor, update: Tensor, momenta: Mapping[str, Tensor]
) -> Iterator[Row]:
    """Norms, ranks and angles of gradient, momentum and update.

    Args:
        objective: gives names and shapes.
        gradient: ``[n]``.
        update: ``[n]``, what the step takes off the weights.
        momenta: by name of a parameter.
    """
    flat = {"gradient": gradient.double(), "update": update.double()}
    for name, vector in flat.items():
        yield row(f"{name}_norm", vector.norm().item())
    yield row("update_angle", angle(flat["update"], flat["gradient"]))
    parts = {name: objective.split_vector(vector) for name, vector in flat.items()}
    for i, name in enumerate(objective.names):
        if parts["gradient"][i].dim() != 2:
            continue
        layer = name.removesuffix(".weight")
        matrices = {what: parts[what][i] for what in ("gradient", "update")}
        for what, matrix in matrices.items():
            yield row(f"{what}_norm", matrix.norm().item(), layer)
            yield from rank_rows(what, name, matrix)
        yield row("update_angle", angle(matrices["update"], matrices["gradient"]), layer)
        if name in momenta:
            yield from rank_rows("momentum", name, momenta[name])
