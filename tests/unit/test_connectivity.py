"""Alignment recovers planted permutations; barriers are what they were planted to be."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from test_landscape_architectures import SMALL, Clouds
from torch import nn

from equiscape import models
from equiscape.analyses import connectivity
from equiscape.analyses.connectivity import Settings, Setup, barrier, barriers
from equiscape.landscape import alignment, paths
from equiscape.landscape.bend import learn_bend
from equiscape.symmetries import Continuous
from equiscape.task import Task

SETTINGS = Settings(samples=None, batch_size=4, points=5, bend_steps=0, plane=0)


@pytest.fixture(params=SMALL)
def case(request):
    dataset = Clouds()
    dataset.x = dataset.x.double()
    task = Task("clouds", {"architecture": request.param}, dataset, torch.device("cpu"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build(request.param, {"num_outputs": 3}, SMALL[request.param]).double()
        for name, parameter in model.named_parameters():
            nn.init.normal_(parameter, std=0.5)
            if name.endswith("norm.weight"):
                nn.init.uniform_(parameter, 0.5, 1.5)
        for module in model.modules():
            if hasattr(module, "running_mean"):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    return task, model.eval()


def permuted(model, seed=3):
    """A copy of ``model`` with every free set of channels in a random order, and the orders."""
    generator = torch.Generator().manual_seed(seed)
    permutations = alignment.permutations_of(model.symmetries())
    orders = {p.name: p.draw(generator) for p in permutations}
    copy = deepcopy(model)
    copy.load_state_dict(alignment.apply(dict(model.state_dict()), permutations, orders))
    return copy, permutations, orders


def recovered(orders, found):
    """Whether ``found`` undoes ``orders``: channel order[i] went to place i and comes back."""
    return all(
        torch.equal(orders[name][found[name]], torch.arange(len(order)))
        for name, order in orders.items()
    )


def test_weights_find_every_planted_permutation(case):
    _, model = case
    copy, permutations, orders = permuted(model)
    found = alignment.match_weights(
        dict(model.state_dict()), dict(copy.state_dict()), permutations, restarts=5
    )
    assert permutations
    assert recovered(orders, found)


def test_activations_find_every_planted_permutation(case):
    task, model = case
    copy, permutations, orders = permuted(model)
    batches = [task.batch("train", torch.arange(6))]
    found = alignment.match_activations(task, model, copy, batches, permutations)
    assert recovered(orders, found)


def test_a_permuted_copy_has_a_barrier_before_alignment_and_none_after(case):
    task, model = case
    fit(task, model)
    copy, _, _ = permuted(model)
    setup = Setup.of(task, SETTINGS)
    rows = list(connectivity.compare(setup, model, copy))
    heights = {
        (entry["alignment"], entry["reset"], entry["split"]): entry["loss"]
        for entry in barriers(frame(rows).to_dict("records"), -1.0)
    }
    for split in ("train", "test"):
        assert heights["none", False, split] > 0.05
        assert heights["weights", False, split] < 1e-9
        assert heights["activations", False, split] < 1e-9
    by_weights, _ = connectivity.aligned(setup, model, copy, model.symmetries())
    paths.put(copy, by_weights)
    batch = task.batch("train", torch.arange(6))
    torch.testing.assert_close(
        task.output(copy, batch), task.output(model, batch), rtol=1e-10, atol=1e-10
    )


def fit(task, model):
    """Learn the six labels, so that the ends of a path are minima."""
    batch = task.batch("train", torch.arange(6))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()


def frame(rows):
    import pandas as pd

    head = {
        "task": "clouds",
        "pair": "other seed",
        "first": "a",
        "first_seed": 0,
        "second": "a",
        "second_seed": 1,
    }
    return pd.DataFrame([{**head, **row} for row in rows], columns=list(connectivity.COLUMNS))


def test_a_fixed_gauge_is_the_same_along_the_orbit(case):
    _, model = case
    names = [name for name, _ in model.named_parameters()]
    symmetries = model.symmetries()
    state = dict(model.state_dict())
    generator = torch.Generator().manual_seed(1)
    moved = dict(state)
    for symmetry in symmetries:
        if isinstance(symmetry, Continuous) and symmetry.holds(training=False):
            moved = symmetry.act(moved, symmetry.draw(generator, 0.3))
    one, other = (alignment.gauge_fixed(s, symmetries, names, 400) for s in (state, moved))
    before = max((moved[n] - state[n]).abs().max().item() for n in names)
    after = max((other[n] - one[n]).abs().max().item() for n in names)
    assert before > 0.1
    assert after < 1e-3 * before


def test_the_barrier_of_a_planted_path():
    t = np.linspace(0, 1, 25)
    straight = 2.0 + 3.0 * t
    assert barrier(t, straight) == pytest.approx(0.0, abs=1e-12)
    assert barrier(t, straight + 4 * 0.7 * t * (1 - t)) == pytest.approx(0.7)
    assert barrier(t, straight - t * (1 - t)) == 0.0


def test_the_curve_between_equal_ends_stays_and_a_planted_bend_is_found():
    """For L = (|theta|^2 - 1)^2 the ends +-e_1 are joined by a bend that leaves the origin."""

    class Ring(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.tensor([1.0, 0.0], dtype=torch.float64))

        def forward(self, x):
            return self.theta.expand(len(x), 2)

    class Loss(Task):
        def __init__(self):
            super().__init__("ring", {"architecture": "none"}, None, torch.device("cpu"))

        def loss(self, model, batch, *rest):
            return (model(batch).square().sum(1) - 1).square().mean()

    model, task = Ring(), Loss()
    start = paths.state_of(model)
    end = {"theta": torch.tensor([-1.0, 0.02], dtype=torch.float64)}
    data = torch.zeros(1, 1)
    settings = {"steps": 800, "lr": 0.05, "seed": 0}
    bend = learn_bend(task, model, start, end, lambda step: data, [data], **settings)
    t = np.linspace(0, 1, 25)
    values = []
    for states, points in (paths.line(start, end, t), paths.bezier(start, bend, end, t)):
        thetas = [paths.combine(states, row)["theta"] for row in points]
        values.append(np.array([((th.square().sum() - 1) ** 2).item() for th in thetas]))
    assert barrier(t, values[0]) > 0.9  # the line crosses the origin, where the loss is 1
    assert barrier(t, values[1]) < 0.15
    still = learn_bend(task, model, start, start, lambda step: data, [data], **settings)
    states, points = paths.bezier(start, still, start, t)
    flat = [paths.combine(states, row)["theta"].square().sum().item() for row in points]
    assert np.allclose(flat, 1.0, atol=1e-6)
    # steps that lead far away are taken back
    wild = learn_bend(
        task, model, start, end, lambda step: data, [data], steps=3, lr=1e3, seed=0, places=25
    )
    states, points = paths.bezier(start, wild, end, t)
    squares = [paths.combine(states, row)["theta"].square().sum().item() for row in points]
    assert max((square - 1) ** 2 for square in squares) <= values[0].max() + 1e-12


def test_pairs_are_of_both_kinds_and_bounded():
    from types import SimpleNamespace

    cells = [SimpleNamespace(optimizer=o, seed=s) for o in ("adam", "muon") for s in (1, 2, 3)]
    subject = SimpleNamespace(
        checkpoints=cells,
        optimizers=["adam", "muon"],
        of=lambda name: [c for c in cells if c.optimizer == name],
    )
    kinds = [kind for kind, _, _ in connectivity.chosen(subject, 2)]
    assert kinds == ["same seed", "same seed", "other seed", "other seed"]
    subject = SimpleNamespace(checkpoints=cells[:3], optimizers=["adam"], of=None)
    found = [(a.seed, b.seed) for _, a, b in connectivity.chosen(subject, 2)]
    assert found == [(1, 2), (1, 3)]


class Bowl(Task):
    """``theta^T A theta / 2`` of three parameters in two tensors, whatever the sample."""

    CURVATURE = torch.tensor(
        [[3.0, 0.4, 0.0], [0.4, 2.0, -0.3], [0.0, -0.3, 1.0]], dtype=torch.float64
    )

    def __init__(self):
        super().__init__("bowl", {"architecture": "none"}, None, torch.device("cpu"))

    def value(self, state):
        theta = torch.cat([state["first"], state["second"]])
        return (theta @ self.CURVATURE @ theta / 2).item()

    def score(self, model, batches):
        loss = self.value(paths.state_of(model))
        return {"loss": loss, "score": -loss}


def bowl():
    model = nn.Module()
    model.first = nn.Parameter(torch.zeros(2).double())
    model.second = nn.Parameter(torch.zeros(1).double())
    values = [[1.0, 0.2, -0.5], [-0.7, 1.1, 0.3], [0.4, 2.0, 1.5]]
    states = [
        {
            "first": torch.tensor(v[:2], dtype=torch.float64),
            "second": torch.tensor(v[2:], dtype=torch.float64),
        }
        for v in values
    ]
    return model, states, np.array(values)


def test_a_plane_has_its_three_corners_where_they_belong():
    _, states, values = bowl()
    places = paths.corners(states, ["first", "second"])
    d, x, y = places
    found = np.array([(0, 0), (d, 0), (x, y)])
    # an isometry: distances between the corners are those of the parameters
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(found[i] - found[j]) == pytest.approx(
            np.linalg.norm(values[i] - values[j]), rel=1e-12
        )
    np.testing.assert_allclose(paths.plane(places, found), np.eye(3), atol=1e-12)
    middle = paths.combine([*states], paths.plane(places, found.mean(0)[None])[0])
    np.testing.assert_allclose(torch.cat(list(middle.values())), values.mean(0), atol=1e-12)


def test_three_points_on_a_line_have_no_plane():
    _, (start, end, _), _ = bowl()
    assert paths.corners([start, end, paths.combine([start, end], [0.3, 0.7])], ["first"]) is None
    assert paths.corners([start, start, end], ["first", "second"]) is None


def test_the_plane_of_a_quadratic_loss_is_its_closed_form():
    model, states, values = bowl()
    task = Bowl()
    setup = Setup(task, Settings(plane=4), {"train": [], "test": []})
    rows = list(connectivity.plane(setup, model, states, "none", reset=False))
    assert [row["curve"] for row in rows] == ["corner"] * 3 + ["plane"] * 16
    u = values[1] - values[0]
    u /= np.linalg.norm(u)
    v = values[2] - values[0]
    v -= (v @ u) * u
    v /= np.linalg.norm(v)
    matrix = task.CURVATURE.numpy()
    for row in rows:
        theta = values[0] + row["x"] * u + row["y"] * v
        assert row["loss"] == pytest.approx(theta @ matrix @ theta / 2, rel=1e-10)
    for row, state in zip(rows, states, strict=False):
        assert row["loss"] == task.value(state)


def test_a_pair_has_its_plane_and_the_plane_has_no_barrier():
    task, model = small_pointnet()
    other = deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.5 * torch.ones_like(parameter).cumsum(0).sin())
    settings = Settings(samples=None, batch_size=4, points=3, bend_steps=20, plane=2)
    rows = frame(list(connectivity.compare(Setup.of(task, settings), model, other)))
    planes = rows[rows["curve"].isin(["plane", "corner"])]
    assert planes.groupby("alignment").size().to_dict() == {"none": 7, "weights": 7}
    first = planes[(planes["curve"] == "corner") & (planes["alignment"] == "none")].iloc[0]
    line = rows[(rows["curve"] == "line") & (rows["alignment"] == "none")]
    line = line[(line["split"] == "train") & (line["reset"] == first["reset"]) & (line["t"] == 0)]
    assert first["loss"] == line["loss"].item()
    assert {entry["curve"] for entry in barriers(rows.to_dict("records"), -1.0)} == {
        "line",
        "bezier",
    }


def small_pointnet():
    dataset = Clouds()
    dataset.x = dataset.x.double()
    task = Task("clouds", {"architecture": "pointnet"}, dataset, torch.device("cpu"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build("pointnet", {"num_outputs": 3}, SMALL["pointnet"]).double()
    return task, model.eval()
