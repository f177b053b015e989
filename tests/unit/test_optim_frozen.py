"""Optimizers as linear maps with frozen second moments, and where they diverge."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from equiscape.optim import build_optimizer
from equiscape.optim.frozen import average, frozen_maps, heavy_ball, radii, threshold
from equiscape.optim.matrices import scale

ENTRIES = {
    "adamw": {"class": "adamw"},
    "soap": {"class": "soap", "settings": {"every": 2}},
    "shampoo": {"class": "shampoo", "settings": {"every": 2}},
    "shampoo, not grafted": {"class": "shampoo", "settings": {"graft": "none", "factors": "sum"}},
    "muon": {"class": "muon"},
    "switch": {
        "class": "switch",
        "settings": {"first": {"class": "muon"}, "second": {"class": "adamw"}, "at": 0.0},
    },
}


class Net(nn.Module):
    non_hidden = ("head",)

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(9, 10), nn.Linear(10, 3)


def stepped(entry, steps=5, lr=0.01):
    """A network after some steps with random gradients, its optimizer, and its last updates."""
    torch.manual_seed(0)
    model = Net().double()
    optimizer, _ = build_optimizer(model, entry, lr, 0.0)
    if hasattr(optimizer, "plan"):
        optimizer.plan(steps)
    for _ in range(steps):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        before = deepcopy(model)
        optimizer.step()
    updates = [b.detach() - p.detach() for b, p in zip(before.parameters(), model.parameters())]
    return model, optimizer, updates


@pytest.mark.parametrize("name", ENTRIES)
def test_the_map_gives_the_optimizers_own_step_from_its_momentum(name):
    """``lr P^-1 M`` is what the last step took off, for whatever has such a map."""
    model, optimizer, updates = stepped(ENTRIES[name])
    maps = frozen_maps(optimizer)
    found = getattr(optimizer, "active", optimizer)
    assert len(maps) == (3 if name == "muon" else 4)  # its one matrix has none
    for p, update in zip(model.parameters(), updates):
        if p in maps:
            momentum = found.state[p]["exp_avg"].reshape(p.shape)
            twice = maps[p].root(maps[p].root(momentum))
            torch.testing.assert_close(0.01 * twice, update, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_map_is_symmetric_and_positive(name):
    _, optimizer, _ = stepped(ENTRIES[name])
    for p, frozen in frozen_maps(optimizer).items():
        a, b = torch.randn_like(p), torch.randn_like(p)
        torch.testing.assert_close((a * frozen.root(b)).sum(), (b * frozen.root(a)).sum())
        assert (a * frozen.root(a)).sum() > 0


SMALL = 1e-6  # so that its gradients hardly change an average of squares


def grows(update, steps=4000):
    """Whether a scalar that starts at 1 leaves its start behind."""
    x = 1.0
    for _ in range(steps):
        x = update(x)
        if abs(x) > 1e3:
            return True
    return False


def with_optimizer(entry, curvature, lr=0.1, decay=0.0, state=None):
    """One entry under a registered optimizer on the loss ``curvature x^2 / 2``."""
    model = nn.Linear(1, 1, bias=False).double()
    optimizer, _ = build_optimizer(model, entry, lr, decay)
    p = model.weight
    with torch.no_grad():
        p.fill_(SMALL)
    if state:
        optimizer.state[p].update({k: v.clone() for k, v in state.items()})
    frozen = frozen_maps(optimizer)[p]

    def update(_):
        p.grad = curvature(frozen) * p.detach()
        optimizer.step()
        return p.item() / SMALL

    return grows(update)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_sgd_diverges_from_its_threshold_on(momentum, nesterov, decay):
    if nesterov and not momentum:
        return
    entry = {"class": "sgd", "settings": {"momentum": momentum, "nesterov": nesterov}}
    for factor, expected in ((0.995, False), (1.005, True)):
        curvature = lambda f: factor * f.threshold - f.penalty  # noqa: B023, E731
        assert with_optimizer(entry, curvature, decay=decay) == expected


@pytest.mark.parametrize("beta", [0.5, 0.9])
@pytest.mark.parametrize("decay", [0.0, 2.0])
def test_adam_with_a_frozen_preconditioner_diverges_at_its_threshold(beta, decay):
    """Its own code, at an average of squares that a second beta of nearly 1 holds as it is."""
    entry = {"class": "adamw", "settings": {"betas": [beta, 1 - 1e-13]}}
    state = {
        "step": torch.tensor(1e13),
        "exp_avg": torch.zeros(1, 1).double(),
        "exp_avg_sq": torch.full((1, 1), 4.0).double(),
    }
    one = torch.ones(1, 1).double()
    for factor, expected in ((0.995, False), (1.005, True)):
        curvature = lambda f: factor * f.threshold / f.root(f.root(one)).item()  # noqa: B023, E731
        assert with_optimizer(entry, curvature, decay=decay, state=state) == expected


@pytest.mark.parametrize("beta", [0.9, 0.95])
@pytest.mark.parametrize("nesterov", [False, True])
def test_averages_of_gradients_diverge_at_their_threshold(beta, nesterov):
    for factor, expected in ((0.995, False), (1.005, True)):
        curvature, m = factor * threshold(1.0, average(beta, nesterov)), 0.0

        def update(x):
            nonlocal m
            m = beta * m + (1 - beta) * curvature * x  # noqa: B023
            step = beta * m + (1 - beta) * curvature * x if nesterov else m  # noqa: B023
            return x - step

        assert grows(update) == expected


def test_the_thresholds_that_are_known():
    """Cohen et al. 2022: 38 / lr for Adam; 2 (1 + beta) / lr for the heavy ball."""
    assert threshold(1.0, average(0.9)) == pytest.approx(38)
    assert threshold(1.0, average(0.95)) == pytest.approx(78)
    assert threshold(1.0, average(0.95, True)) == pytest.approx(26.90, abs=5e-3)
    assert threshold(1.0, average(0.9, True)) == pytest.approx(13.57, abs=5e-3)
    assert threshold(0.5, heavy_ball(0.9)) == pytest.approx(7.6)
    assert threshold(0.0, 1.0) == float("inf")
    assert frozen_maps(stepped({"class": "adamw"}, lr=0.1)[1])
    for frozen in frozen_maps(stepped({"class": "adamw"}, lr=0.1)[1]).values():
        assert frozen.threshold == pytest.approx(380)


def test_schedule_free_diverges_at_its_threshold_while_the_average_stands_still():
    model, optimizer, _ = stepped({"class": "schedule-free-adamw"}, lr=0.1)
    p = model.head.bias
    frozen, group = frozen_maps(optimizer)[p], optimizer.param_groups[0]
    size = group["lr"] * (1 - group["betas"][1] ** group["steps"]) ** 0.5
    for factor, expected in ((0.995, False), (1.005, True)):
        z = 1.0

        def update(_):
            nonlocal z
            y = (1 - group["betas"][0]) * z  # the average is 0
            z = z - size * factor * frozen.threshold * y  # noqa: B023
            return z

        assert grows(update) == expected


def test_radii_are_those_of_muons_own_steps():
    model, optimizer, updates = stepped({"class": "muon", "settings": {"polar": "exact"}})
    ((p, (radius, blocks)),) = radii(optimizer).items()
    assert (p is model.hidden.weight, blocks) == (True, 1)
    assert radius == pytest.approx(scale(10, 9, "match_rms_adamw"))
    singular = torch.linalg.svdvals(updates[0]) / 0.01
    torch.testing.assert_close(singular, torch.full_like(singular, radius), rtol=1e-5, atol=0)


def test_stacked_matrices_have_the_radius_of_a_part():
    entry = {"class": "muon", "settings": {"blocks": {"hidden.weight": 2}}}
    ((radius, blocks),) = radii(stepped(entry)[1]).values()
    assert (radius, blocks) == (pytest.approx(scale(5, 9, "match_rms_adamw")), 2)


@pytest.mark.parametrize("settings", [{"spectrum": 1.0}, {"variant": "normuon"},
                                      {"order": "polar-first"}])  # fmt: skip
def test_what_takes_no_polar_steps_has_no_radius(settings):
    assert radii(stepped({"class": "muon", "settings": settings})[1]) == {}
    assert radii(stepped({"class": "soap"})[1]) == {}
    assert radii(stepped({"class": "lion"})[1]) == {}
    assert frozen_maps(stepped({"class": "lion"})[1]) == {}


def test_there_is_no_map_ahead_of_the_first_step():
    for name in ("adamw", "soap", "shampoo", "schedule-free-adamw"):
        optimizer, _ = build_optimizer(Net(), {"class": name}, 0.1, 0.0)
        assert frozen_maps(optimizer) == {}
