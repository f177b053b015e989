"""Batches that a network with batch statistics can be trained on."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from equiscape.errors import ConfigError
from equiscape.task import Task


def batch_statistics(model: nn.Module) -> list[str]:
    """Names of the modules whose output for a sample depends on the rest of its batch."""
    return [name for name, module in model.named_modules() if hasattr(module, "running_mean")]


def sample_statistics(task: Task, model: nn.Module) -> list[str]:
    """Those of the batch statistics that a batch of one sample does not have.

    Of dense batches all of them. Of graphs those taken over the graphs: the nodes of one graph are
    enough for a norm over nodes. Which is which is seen in a forward pass in eval mode.
    """
    names = batch_statistics(model)
    if not names or task.dataset.size("train") < 2:
        return names
    batch = task.batch("train", torch.arange(2))
    if batch.graph is None:
        return names
    over_nodes: set[str] = set()

    def watch(name: str) -> Callable[[nn.Module, tuple], None]:
        def hook(module: nn.Module, inputs: tuple) -> None:
            if len(inputs[0]) != batch.size:
                over_nodes.add(name)

        return hook

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_pre_hook(watch(name)) for name in names]
    training = model.training
    try:
        with torch.no_grad():
            task.output(model.eval(), batch)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return [name for name in names if name not in over_nodes]


def join_single(
    plan: list[Tensor], fits: Callable[[Tensor], bool], statistics: list[str], batch_size: int
) -> list[Tensor]:
    """Join the one batch of a single sample that may be left over to its neighbor.

    Args:
        plan: index tensors, one a batch.
        fits: whether samples may be one batch.
        statistics: names of the modules that need more than one sample.
        batch_size: the configured one.

    Raises:
        ConfigError: there is more than one such batch, or neither neighbor has room for it.
    """
    singles = [i for i, indices in enumerate(plan) if len(indices) == 1]
    if not singles:
        return plan
    refusal = (
        f"has statistics over the samples of a batch ({statistics[0]}), which one sample does not "
        "have"
    )
    if batch_size == 1:
        raise ConfigError(f"training.batch_size: 1 is too small, since the network {refusal}.")
    if len(singles) == 1:
        (i,) = singles
        for first in (i - 1, i):  # the batch before it, else the one after it
            if first < 0 or first + 1 >= len(plan):
                continue
            joined = torch.cat(plan[first : first + 2])
            if fits(joined):
                return [*plan[:first], joined, *plan[first + 2 :]]
    raise ConfigError(
        f"data.node_budget: it leaves {len(singles)} training batches of a single sample, and the "
        f"network {refusal}; raise it, or set it to null and use training.batch_size."
        if len(plan) > 1
        else f"the training split has a single sample, and the network {refusal}."
    )
