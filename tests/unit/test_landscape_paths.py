"""Many points of parameter space against the network put there by hand."""

import numpy as np
import pytest
import torch
from tiny_task import tiny_network, tiny_task

from equiscape import models
from equiscape.data.base import Batch
from equiscape.landscape.paths import along, bezier, line, put, reset_norms, state_of
from equiscape.task import Task


def batches(task, size=5):
    return [task.batch("train", i) for i in torch.arange(task.dataset.size("train")).split(size)]


def by_hand(task, model, state):
    put(model, state)
    return task.score(model, iter(batches(task)))


@pytest.mark.parametrize("batch_points", [1, 3, 50])
def test_every_point_is_the_network_put_there(batch_points):
    task, start, end = tiny_task(), tiny_network(0), tiny_network(1)
    t = np.linspace(0, 1, 7)
    states, points = line(state_of(start), state_of(end), t)
    loss, score = along(
        task, tiny_network(0), batches(task), states, points, batch_points=batch_points
    )
    for i, x in enumerate(t):
        state = {name: (1 - x) * tensor + x * states[1][name] for name, tensor in states[0].items()}
        truth = by_hand(task, tiny_network(), state)
        assert loss[i] == pytest.approx(truth["loss"], rel=1e-6)
        assert score[i] == pytest.approx(truth["score"])
    ends = [task.evaluate(network, "train")["loss"] for network in (start, end)]
    np.testing.assert_allclose(loss[[0, -1]], ends, rtol=1e-6)
    if batch_points == 1:
        assert loss[0] == by_hand(task, tiny_network(0), {})["loss"]  # to the last bit


NETWORKS = {
    "egnn": {"hidden": 8, "layers": 2, "k": 4, "head": [8]},
    "pointnet": {"channels": [8, 16], "head": [8]},
    "dgcnn": {"channels": [8, 8], "k": 4, "embedding": 16, "head": [8]},
}


class Clouds(type(tiny_task().dataset)):
    def __init__(self):
        super().__init__(n=6)
        self.x = torch.randn(6, 20, 3, generator=torch.Generator().manual_seed(1))

    def gather(self, split, indices):
        return Batch((self.x[indices],), self.y[indices], len(indices))


@pytest.mark.parametrize("name", NETWORKS)
def test_points_in_one_pass_equal_points_one_by_one(name, caplog):
    task = Task("clouds", {"architecture": name}, Clouds(), torch.device("cpu"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = (models.build(name, {"num_outputs": 3}, NETWORKS[name]) for _ in range(2))
    states, points = line(state_of(first), state_of(second), np.linspace(0, 0.4, 5))
    single = along(task, first, batches(task), states, points, batch_points=1)
    together = along(task, first, batches(task), states, points, batch_points=5)
    np.testing.assert_allclose(together, single, rtol=1e-6)
    assert "one point at a time" not in caplog.text


def test_a_network_that_cannot_be_batched_is_evaluated_point_by_point():
    class Branching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 4))

        def forward(self, x):
            return x @ self.weight.T * (2.0 if self.weight.sum() > 5 else 1.0)

    task, model = tiny_task(), Branching()
    states, points = [state_of(model)], np.array([[0.1], [1.0], [2.0]])
    single = along(task, model, batches(task), states, points, batch_points=1)
    together = along(task, model, batches(task), states, points, batch_points=3)
    assert np.array_equal(single, together)


def test_a_bezier_curve_meets_its_ends_and_bends():
    states = [{"w": torch.tensor([float(i)])} for i in (1, 5, 3)]
    _, points = bezier(*states, np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(points @ [1, 5, 3], [1, 0.25 * 1 + 0.5 * 5 + 0.25 * 3, 3])


def test_statistics_are_the_mean_over_the_batches():
    task, model = tiny_task(), tiny_network()
    reset_norms(task, model, batches(task))
    inputs = [model.first(batch.inputs[0]) for batch in batches(task)]
    mean = torch.stack([x.mean(0) for x in inputs]).mean(0)
    variance = torch.stack([x.var(0) for x in inputs]).mean(0)
    torch.testing.assert_close(model.norm.running_mean, mean)
    torch.testing.assert_close(model.norm.running_var, variance)
    assert model.norm.momentum == 0.1
    assert not model.norm.training


def test_a_reset_makes_a_rescaled_network_the_same_again():
    """Weights ahead of a norm times two: the statistics follow, and so does the loss."""
    task, model = tiny_task(), tiny_network()
    reset_norms(task, model, batches(task))
    scaled = state_of(model)
    for name in ("first.weight", "first.bias"):
        scaled[name] = 2 * scaled[name]
    points = np.ones((1, 1))
    truth = task.score(model.eval(), iter(batches(task)))["loss"]
    stale, _ = along(task, model, batches(task), [scaled], points)
    fresh, _ = along(task, model, batches(task), [scaled], points, reset=batches(task))
    assert fresh[0] == pytest.approx(truth, rel=1e-4)
    assert abs(stale[0] - truth) > 0.01


def test_the_network_is_as_before():
    task, model = tiny_task(), tiny_network().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    along(
        task,
        model,
        batches(task),
        [state_of(tiny_network(1))],
        np.ones((2, 1)),
        reset=batches(task),
    )
    assert model.training
    assert model.norm.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
