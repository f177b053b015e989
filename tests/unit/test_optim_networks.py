"""Every registered optimizer trains every network."""

import pytest
import torch
from molecule_batches import random_molecules
from test_landscape_architectures import SMALL, Clouds
from test_landscape_graphs import Rings
from test_optim_build import entry_of

from equiscape import models
from equiscape.data.base import Batch, Dataset
from equiscape.objectives import Regression
from equiscape.optim import OPTIMIZERS, build_optimizer
from equiscape.task import Task


class Molecules(Dataset):
    """Four random molecules with random targets."""

    name = "molecules"

    def __init__(self):
        self.objective = Regression("mse")
        z, positions, edges, graph, size, largest = random_molecules([4, 6, 5, 3])
        self.inputs = (z, positions.float(), edges, graph, size, largest)
        self.target = torch.randn(size, 1, generator=torch.Generator().manual_seed(0))

    def size(self, split):
        return 4

    def gather(self, split, indices):
        return Batch(self.inputs, self.target, 4, self.inputs[3])


NETWORKS = {
    **{name: (Clouds, {"num_outputs": 3}, settings) for name, settings in SMALL.items()},
    "gotennet": (
        Molecules,
        {"num_outputs": 1},
        {"hidden": 8, "layers": 2, "heads": 2, "radial": 6, "dropout": 0.0},
    ),
    "gine": (
        Rings,
        {"num_outputs": 2, "node_categories": [4, 4], "edge_categories": [3]},
        {"walk_steps": 3, "walk_channels": 2, "hidden": 8, "layers": 2, "head": [8]},
    ),
}


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("network", NETWORKS)
def test_two_steps_lower_the_loss(network, optimizer):
    dataset, arguments, settings = NETWORKS[network]
    dataset = dataset()
    task = Task("case", {"architecture": network}, dataset, torch.device("cpu"))
    batch = dataset.gather("train", torch.arange(dataset.size("train")))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build(network, arguments, settings)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # so that losses compare
    steps, names = build_optimizer(model, entry_of(optimizer), 1e-3, 1e-2)
    if optimizer == "switch":
        steps.plan(2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = []
    for _ in range(3):
        steps.zero_grad()
        loss = task.loss(model, batch)
        loss.backward()
        losses.append(loss.item())
        if len(losses) < 3:
            steps.step()
    assert losses[2] < losses[0]
    assert {name for group in names.values() for name in group} == set(before)
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    still = {n for n in with_gradient if torch.equal(before[n], model.get_parameter(n).detach())}
    silent = {n for n in still if not model.get_parameter(n).grad.any()}  # dead ones may stay
    assert still <= silent
