"""Batches keep the size that was asked for; batch statistics get what they need, or a refusal."""

import numpy as np
import pytest
import torch
from test_landscape_graphs import Rings
from torch import nn
from training_case import MUON, Plain, case

from equiscape.data.base import Batch
from equiscape.data.molecules import MoleculeDataset, Molecules
from equiscape.errors import ConfigError
from equiscape.models.gine import GINE
from equiscape.objectives import Regression
from equiscape.task import Task
from equiscape.training.batches import join_single, sample_statistics
from equiscape.training.cell import train_cell
from equiscape.training.loop import Trainer
from equiscape.training.settings import Settings


def train(task, **training):
    settings = {**task.training, **training}
    return train_cell(task, MUON, "1e-2", "0", 5, settings)


def sizes(*lengths):
    """A plan of batches of these lengths."""
    return list(torch.arange(sum(lengths)).split(lengths))


def join(plan, fits=lambda indices: True, batch_size=8):
    return [len(indices) for indices in join_single(plan, fits, ["norm"], batch_size)]


def test_at_most_one_single_joins_one_neighbor():
    plan = sizes(8, 8, 1)
    joined = join_single(plan, lambda indices: True, ["norm"], 8)
    assert [len(i) for i in joined] == [8, 9]
    assert torch.equal(torch.cat(joined), torch.arange(17))
    assert join(sizes(1, 3)) == [4]
    assert join(sizes(8, 1, 8)) == [9, 8]
    assert join(sizes(8, 8)) == [8, 8]
    # the batch before has no room, the one after has
    assert join(sizes(8, 1, 5), fits=lambda indices: len(indices) < 8) == [8, 6]


@pytest.mark.parametrize(
    ("plan", "batch_size", "message"),
    [
        (sizes(1, 1, 1), 1, r"training\.batch_size: 1 is too small.*\(norm\)"),
        (sizes(1, 5, 1), 8, r"data\.node_budget: it leaves 2 training batches.*\(norm\)"),
        (sizes(8, 1), 8, r"data\.node_budget: it leaves 1"),
        (sizes(1), 8, r"the training split has a single sample"),
    ],
)
def test_what_cannot_be_joined_is_refused_by_key(plan, batch_size, message):
    with pytest.raises(ConfigError, match=message):
        join(plan, fits=lambda indices: False, batch_size=batch_size)


@pytest.mark.parametrize(
    ("architecture", "model"),
    [
        ("pointnet", {"channels": [8, 8, 16], "head": [16]}),
        ("dgcnn", {"channels": [8, 8], "embedding": 16, "head": [8], "k": 4}),
    ],
)
def test_batches_of_one_cloud_are_refused_where_a_norm_is_over_clouds(architecture, model):
    entry = {"architecture": architecture, "model": model, "training": {"epochs": 2}}
    task = Task("t", entry, case().dataset, torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"training\.batch_size: 1 is too small"):
        train(task, batch_size=1)


def test_without_batch_statistics_batches_of_one_stay():
    assert train(case(network=Plain, train=17, epochs=1)).metrics["steps"] == 3  # 8, 8, 1
    assert train(case(network=Plain, train=5, epochs=2), batch_size=1).metrics["steps"] == 10
    assert train(case(train=17, epochs=1)).metrics["steps"] == 2  # 8, 9


class Graphs(Task):
    """GINE on five rings."""

    def __init__(self, network, **settings):
        super().__init__("rings", {"architecture": "gine"}, Rings(), torch.device("cpu"))
        sizes = {"walk_steps": 3, "walk_channels": 2, "hidden": 6, "layers": 1}
        self.network, self.settings = network, {**sizes, **settings}

    def build(self, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            arguments = {"num_outputs": 2, "node_categories": [4, 4], "edge_categories": [3]}
            return self.network(**arguments, **self.settings)


class HeadNorm(GINE):
    """A network of somebody else with a norm over graphs."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.head.append(nn.BatchNorm1d(160))


class Embedded(GINE):
    """Without batch statistics, so that a batch may be cut."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.walks.norm = nn.Identity()


def rings(network=GINE, **settings):
    return Graphs(network, **settings)


@pytest.mark.parametrize("norm", [False, True])
def test_norms_over_nodes_need_no_joining(norm):
    task = rings(norm=norm)
    assert sample_statistics(task, task.build(0)) == []
    settings = {"epochs": 2, "schedule": None}
    assert train(task, **settings, batch_size=1).metrics["steps"] == 10
    assert train(task, **settings, batch_size=2).metrics["steps"] == 6  # 2, 2, 1
    assert train(task, **settings, batch_size=1).metrics["status"] == "finished"


def test_norms_over_graphs_do():
    task = rings(HeadNorm, norm=True)
    assert sample_statistics(task, task.build(0)) == ["head.4"]
    settings = {"epochs": 2, "schedule": None}
    assert train(task, **settings, batch_size=2).metrics["steps"] == 4  # 2, 3
    with pytest.raises(ConfigError, match=r"training\.batch_size: 1.*\(head\.4\)"):
        train(task, **settings, batch_size=1)


def test_finding_them_changes_nothing():
    task = rings(HeadNorm, norm=True)
    model = task.build(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    sample_statistics(task, model)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def chains(counts, budget):
    """Chains of atoms of these lengths, all of them training graphs."""
    nodes = sum(counts)
    ptr = np.concatenate([[0], np.cumsum(counts)])
    ends = [np.stack([np.arange(n - 1), np.arange(1, n)]) for n in counts]
    molecules = Molecules(
        node_ptr=ptr,
        edge_ptr=np.concatenate([[0], np.cumsum([n - 1 for n in counts])]),
        node_features=np.zeros((nodes, 1), np.uint8),
        edge_index=np.concatenate(ends, axis=1),
        edge_features=np.zeros((nodes - len(counts), 1), np.uint8),
        walks=np.random.default_rng(0).random((nodes, 3)).astype(np.float32),
        targets=np.zeros((len(counts), 1)),
        splits=dict.fromkeys(("train", "validation", "test"), np.arange(len(counts))),
        target_names=["y"],
        units=[""],
        node_categories=[1],
        edge_categories=[1],
    )
    targets = np.zeros(len(counts))
    return MoleculeDataset(molecules, torch.device("cpu"), targets, Regression("mse"),
                           node_budget=budget)  # fmt: skip


def test_a_node_budget_is_never_exceeded():
    """It grew sixteenfold: every batch of one large graph was joined to its neighbors."""
    counts = [40, 70, 90, 100, 120, 149] * 4
    data = chains(counts, budget=150)
    entry = {"architecture": "gine", "model": {"hidden": 6, "layers": 1, "walk_channels": 2}}
    task = Task("t", entry, data, torch.device("cpu"))
    trainer = Trainer(task, MUON, 1e-2, 0, 0, Settings.read({"epochs": 1}))
    nodes = torch.tensor(counts)
    for seed in range(5):
        plan = trainer._plan(torch.Generator().manual_seed(seed))
        assert max(int(nodes[indices].sum()) for indices in plan) <= 150
        assert torch.equal(torch.cat(plan).sort().values, torch.arange(len(counts)))
    assert data.fits("train", torch.tensor([0, 3]))
    assert not data.fits("train", torch.tensor([0, 4]))


class Trembling(Rings):
    """Rings whose walks are perturbed in training; counts how many graphs were."""

    augmented = 0

    def augment(self, batch, settings, generator):
        self.augmented += batch.size
        features, edges, edge_features, walks, graph, size = batch.inputs
        noise = torch.rand(walks.shape, generator=generator)
        inputs = (features, edges, edge_features, walks + noise, graph, size)
        return Batch(inputs, batch.target, batch.size, batch.graph)


@pytest.mark.parametrize("micro_batch", [None, 1, 2, 5])
def test_graphs_are_augmented_once_whatever_the_micro_batches(micro_batch):
    task = rings(Embedded)
    task.dataset = Trembling()
    settings = {"epochs": 2, "schedule": None, "batch_size": 5, "micro_batch": micro_batch}
    assert train(task, **settings).metrics["steps"] == 2
    assert task.dataset.augmented == 10
