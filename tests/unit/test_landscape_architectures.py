"""Second derivatives of every point-cloud network, and each analysis on each of them."""

import numpy as np
import pytest
import torch
from tiny_task import TinyClouds

from equiscape import models
from equiscape.analyses.hessian import Settings, measure_hessian
from equiscape.data.base import Batch
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.slices import measure_slice
from equiscape.ops import neighbors
from equiscape.ops.neighbors import NeighborTables, knn
from equiscape.spectra.ranks import measure_ranks
from equiscape.task import Task

SMALL = {
    "egnn": {"hidden": 8, "layers": 2, "k": 4, "head": [8]},
    "pointnet": {"channels": [8, 16], "head": [8]},
    "dgcnn": {"channels": [8, 8], "k": 4, "embedding": 16, "head": [8]},
}


class Clouds(TinyClouds):
    """Six clouds of 20 points."""

    def __init__(self):
        super().__init__(n=6)
        self.x = torch.randn(6, 20, 3, generator=torch.Generator().manual_seed(1))

    def gather(self, split, indices):
        rows = (split, indices, indices)
        return Batch((self.x[indices],), self.y[indices], len(indices), rows=rows)


@pytest.fixture(params=SMALL)
def case(request):
    task = Task("clouds", {"architecture": request.param}, Clouds(), torch.device("cpu"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build(request.param, {"num_outputs": 3}, SMALL[request.param])
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                torch.nn.init.normal_(module.weight)
                torch.nn.init.normal_(module.bias)
    return task, model


def test_products_are_the_derivative_of_the_gradient(case):
    task, model = case
    arguments = {"samples": None, "batch_size": 4, "seed": 0, "dtype": "float64"}
    objective = TrainingLoss(task, model, **arguments)
    direction = torch.randn(objective.size, generator=torch.Generator().manual_seed(2)).double()
    direction /= direction.norm()
    product = objective.operator(direction[None])[0]
    step = 1e-6
    gradients = []
    for sign in (1, -1):
        moved = TrainingLoss(task, model, **arguments)
        with torch.no_grad():
            pieces = (sign * step * direction).split([p.numel() for p in moved.parameters])
            for parameter, piece in zip(moved.parameters, pieces, strict=True):
                parameter += piece.view_as(parameter)
        gradients.append(moved.value_and_gradient()[1])
    difference = (gradients[0] - gradients[1]) / (2 * step)
    assert (product - difference).norm() < 1e-7 * product.norm()


def test_products_do_not_depend_on_what_is_kept(case):
    """Graphs that keep every edge, and graphs that are built again and keep none."""
    task, model = case
    arguments = {"samples": None, "batch_size": 4, "seed": 0, "dtype": "float64"}
    products = []
    for memory in (2**30, 0):
        objective = TrainingLoss(task, model, graph_memory=memory, **arguments)
        vectors = torch.randn(2, objective.size, generator=torch.Generator().manual_seed(3))
        products.append(objective.operator(vectors.double()))
    torch.testing.assert_close(*products, rtol=1e-9, atol=1e-11)


def test_the_loss_is_the_one_that_evaluation_reports(case):
    task, model = case
    objective = TrainingLoss(task, model, samples=None, batch_size=4, seed=0)
    assert objective.value_and_gradient()[0] == pytest.approx(
        task.evaluate(model, "train")["loss"], rel=1e-6
    )


def test_every_analysis_runs(case):
    task, model = case
    settings = {"samples": 5, "batch_size": 3, "seed": 0}
    hessian = measure_hessian(
        task, model, Settings(**settings, eigenvalues=1, probes=2, tolerance=0.05)
    )
    assert hessian["largest"]["converged"]
    plane = measure_slice(task, model, **settings, resolution=3, range=1.0)
    assert plane.loss[1, 1] == plane.attributes["checkpoint_loss"]
    assert plane.loss[1, 1] == pytest.approx(hessian["loss_value"], rel=1e-6)
    ranks = measure_ranks(task, model, **settings).frame()
    assert list(ranks[ranks.kind == "representation"].layer) == list(model.representations())
    assert np.isfinite(ranks.effective_rank).all()


def test_a_slice_searches_the_neighbors_of_the_input_once(case, monkeypatch):
    """And gives the same losses, to the last bit, as a search at every grid point."""
    task, model = case
    searched = []
    distances = neighbors.squared_distances
    monkeypatch.setattr(
        neighbors, "squared_distances", lambda x: searched.append(x) or distances(x)
    )
    settings = {"samples": None, "batch_size": 4, "seed": 0, "resolution": 3, "range": 1.0}
    reused = measure_slice(task, model, **settings)
    once, searched[:] = len([x for x in searched if x.shape[2] == 3]), []
    monkeypatch.setattr(NeighborTables, "find", lambda self, x, *rest: knn(x, *rest[2:]))
    repeated = measure_slice(task, model, **settings)
    batches, passes = 2, 10  # nine grid points and the checkpoint
    uses = 0 if task.architecture == "pointnet" else 1
    assert once == uses * batches
    assert len([x for x in searched if x.shape[2] == 3]) == uses * batches * passes
    assert np.array_equal(reused.loss, repeated.loss)
