"""The output of each layer of a network, as one matrix with a row for every sample."""

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from equiscape.data.base import Split
from equiscape.task import Task


@torch.no_grad()
def collect_representations(
    task: Task,
    model: nn.Module,
    samples: int | None,
    batch_size: int,
    seed: int,
    split: Split = "train",
) -> dict[str, Tensor]:
    """The representation matrix ``[samples, C]`` of every layer, on the CPU.

    Layers are those that ``model.representations()`` names, observed by forward hooks in eval mode
    (the mode is restored), on a fixed random subset of ``split`` without augmentation, in
    the order of :meth:`equiscape.task.Task.subset`.
    A layer that is called several times counts with its last call.
    """
    layers: dict[str, nn.Module] = cast(Any, model).representations()
    seen: dict[str, Tensor] = {}

    def observe(name: str, module: nn.Module, inputs: tuple, output: Tensor | tuple) -> None:
        seen[name] = output[0] if isinstance(output, tuple) else output

    rows: dict[str, list[Tensor]] = {name: [] for name in layers}
    handles = [m.register_forward_hook(partial(observe, name)) for name, m in layers.items()]
    training = model.training
    model.eval()
    try:
        for indices in task.subset(split, samples, seed, batch_size):
            batch = task.batch(split, indices)
            task.output(model, batch)
            for name in layers:
                rows[name].append(task.pool(seen[name], batch).cpu())
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in rows.items()}
