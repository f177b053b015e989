"""The analyses on batches of graphs: second derivatives through message passing, pooled nodes."""

import numpy as np
import pytest
import torch

from equiscape import models
from equiscape.data.base import Batch, Dataset
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.slices import measure_slice
from equiscape.objectives import MultiLabel
from equiscape.spectra.ranks import measure_ranks
from equiscape.task import Task

SETTINGS = {"samples": None, "batch_size": 3, "seed": 0}


class Rings(Dataset):
    """Five rings of 3 to 7 nodes with random features, walks and labels."""

    name = "rings"
    objective = MultiLabel()

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.graphs = []
        for nodes in range(3, 8):
            ring = torch.arange(nodes)
            forward = torch.stack([ring, ring.roll(-1)])
            self.graphs.append(
                (
                    torch.randint(4, (nodes, 2), generator=generator),
                    torch.cat([forward, forward.flip(0)], dim=1),
                    torch.randint(3, (2 * nodes, 1), generator=generator),
                    torch.rand(nodes, 3, generator=generator),
                )
            )
        self.labels = torch.tensor([[0, 1], [1, 1], [1, 0], [0, 0], [1, 1]]).float()

    def size(self, split):
        return len(self.graphs)

    def gather(self, split, indices):
        chosen = [self.graphs[i] for i in indices]
        counts = torch.tensor([len(graph[0]) for graph in chosen])
        offsets = counts.cumsum(0) - counts
        edges = torch.cat([graph[1] + o for graph, o in zip(chosen, offsets)], dim=1)
        features, edge_features, walks = (torch.cat([g[i] for g in chosen]) for i in (0, 2, 3))
        graph = torch.repeat_interleave(torch.arange(len(chosen)), counts)
        inputs = (features, edges, edge_features, walks, graph, len(chosen))
        return Batch(inputs, self.labels[indices], len(chosen), graph)


@pytest.fixture
def case():
    task = Task("rings", {"architecture": "gine"}, Rings(), torch.device("cpu"))
    arguments = {"num_outputs": 2, "node_categories": [4, 4], "edge_categories": [3]}
    settings = {"walk_steps": 3, "walk_channels": 2, "hidden": 6, "layers": 2, "norm": True}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build("gine", arguments, {**settings, "head": [4]})
    return task, model


def test_products_are_the_derivative_of_the_gradient(case):
    task, model = case
    objective = TrainingLoss(task, model, dtype="float64", **SETTINGS)
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(objective.size, generator=generator).double()
    product = objective.operator(direction[None])[0]
    step, gradients = 1e-6, []
    for sign in (1, -1):
        moved = TrainingLoss(task, model, dtype="float64", **SETTINGS)
        with torch.no_grad():
            pieces = (sign * step * direction).split([p.numel() for p in moved.parameters])
            for parameter, piece in zip(moved.parameters, pieces, strict=True):
                parameter += piece.view_as(parameter)
        gradients.append(moved.value_and_gradient()[1])
    difference = (gradients[0] - gradients[1]) / (2 * step)
    assert (product - difference).norm() < 1e-6 * product.norm()


def test_the_loss_weighs_graphs_alike_whatever_their_size_and_chunk(case):
    task, model = case
    arguments = {**SETTINGS, "dtype": "float64"}
    chunked = TrainingLoss(task, model, **arguments).value_and_gradient()
    whole = TrainingLoss(task, model, **{**arguments, "batch_size": 5}).value_and_gradient()
    assert chunked[0] == pytest.approx(whole[0], rel=1e-13)
    torch.testing.assert_close(chunked[1], whole[1], rtol=1e-11, atol=1e-13)


def test_the_slice_has_average_precision_and_no_error(case):
    plane = measure_slice(*case, **SETTINGS, resolution=3, range=1.0)
    assert plane.loss[1, 1] == plane.attributes["checkpoint_loss"]
    assert plane.error is None
    assert plane.attributes["metric"] == "AP"


def test_nodes_are_pooled_to_a_row_a_graph(case):
    ranks = measure_ranks(*case, **SETTINGS).frame()
    layers = ranks[ranks.kind == "representation"]
    assert (layers.rows == 5).all()
    assert np.isfinite(ranks.effective_rank).all()
