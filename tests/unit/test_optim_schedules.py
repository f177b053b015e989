"""Schedules against their closed form."""

import math

import pytest
import torch
from torch import nn

from equiscape.errors import ConfigError
from equiscape.metric import Metric
from equiscape.optim.schedules import SCHEDULES, schedule


def rates(settings, steps_per_epoch, epochs, lr=0.1, extra=0):
    """The learning rate of every step of a training."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    plan = schedule(optimizer, settings, steps_per_epoch, epochs)
    found = []
    for _ in range(steps_per_epoch * epochs + extra):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan.step()
    return found


def test_warm_up_and_cosine():
    settings = {"name": "cosine", "warmup_epochs": 2, "final_fraction": 0.1}
    found = rates(settings, 5, 8)
    warmup = [0.1 * (i + 1) / 10 for i in range(10)]
    cosine = [0.1 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * i / 30))) for i in range(30)]
    assert found == pytest.approx(warmup + cosine, rel=1e-12)


def test_without_warm_up_it_is_torch_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert rates({"name": "cosine"}, 4, 3, lr=0.3) == pytest.approx(expected, abs=1e-12)


def test_constant_after_fractional_warm_up():
    found = rates({"name": "constant", "warmup_epochs": 0.5}, 4, 2)
    assert found == pytest.approx([0.05] + [0.1] * 7)
    assert rates(None, 2, 2) == [0.1] * 4


def test_stays_at_the_end_beyond_the_planned_steps():
    found = rates({"name": "cosine", "final_fraction": 0.2}, 3, 2, extra=4)
    assert found[-4:] == pytest.approx([0.02] * 4)


def test_goes_on_from_its_state():
    settings = {"name": "cosine", "warmup_epochs": 1}
    full = rates(settings, 4, 3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    first = schedule(optimizer, settings, 4, 3)
    for _ in range(5):
        optimizer.step()
        first.step()
    again = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    second = schedule(again, settings, 4, 3)
    again.load_state_dict(optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    for expected in full[5:]:
        assert again.param_groups[0]["lr"] == expected
        again.step()
        second.step()


def test_step_is_torch_step_lr():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.3)
    expected = []
    for _ in range(7):
        expected += 3 * [optimizer.param_groups[0]["lr"]]
        optimizer.step()
        theirs.step()
    assert rates({"name": "step", "every_epochs": 2, "factor": 0.3}, 3, 7) == pytest.approx(
        expected
    )
    floored = rates({"name": "step", "every_epochs": 1, "factor": 0.1, "final_fraction": 0.5}, 1, 3)
    assert floored == pytest.approx([0.1, 0.05, 0.05])


def test_warm_up_stable_decay():
    settings = {"name": "wsd", "warmup_epochs": 1, "decay_fraction": 0.4, "final_fraction": 0.1}
    found = rates(settings, 4, 5, extra=2)  # 4 up, 8 flat, 8 down
    up, flat = [0.1 * (i + 1) / 4 for i in range(4)], [0.1] * 8
    down = [0.1 * (1 - 0.9 * i / 8) for i in range(8)]
    assert found == pytest.approx([*up, *flat, *down, 0.01, 0.01], rel=1e-12)
    assert rates({"name": "wsd", "decay_fraction": 0}, 2, 2, extra=1) == [0.1] * 5


@pytest.mark.parametrize(
    ("direction", "scores", "threshold"),
    [
        ("max", [10, 30, 30, 20, 25, 31, 31, 31, 31, 5, 5, 5, 5, 90, 5, 5, 5, 5], 0.0),
        ("max", [50, 51, 52, 53, 54, 55, 60, 60, 61, 70, 70, 70], 0.1),
        ("min", [9, 8, 8, 7.5, 7.4, 7.4, 7.4, 7.4, 7.4, 7.4, 3, 3, 3, 3, 3], 0.05),
    ],
)
def test_plateau_is_torch_reduce_lr_on_plateau(direction, scores, threshold):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, direction, factor=0.5, patience=2, threshold=threshold, min_lr=0.02
    )
    ours = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    settings = {"name": "plateau", "factor": 0.5, "patience": 2, "threshold": threshold}
    plan = schedule(ours, {**settings, "final_fraction": 0.2}, 1, len(scores))
    metric = Metric("score", direction)
    for epoch, score in enumerate(scores, start=1):
        ours.step()
        plan.step()
        plan.observe(epoch, score, metric)
        theirs.step(score)
        assert ours.param_groups[0]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"])
    assert ours.param_groups[0]["lr"] < 0.1


def test_a_plateau_goes_on_from_its_state_and_no_number_is_no_improvement():
    def follow(plan, optimizer, scores, first):
        found = []
        for epoch, score in enumerate(scores, start=first):
            optimizer.step()
            plan.step()
            plan.observe(epoch, score, Metric("MAE", "min"))
            found.append(optimizer.param_groups[0]["lr"])
        return found

    scores = [math.nan, 3, 3, math.nan, 2, 2, 2, 2, 1, 1, 1]
    settings = {"name": "plateau", "factor": 0.5, "patience": 1, "warmup_epochs": 1}
    optimizers = [torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1) for _ in range(3)]
    whole, first, second = (schedule(o, settings, 1, 20) for o in optimizers)
    full = follow(whole, optimizers[0], scores, 1)
    assert full == pytest.approx([0.1] * 3 + [0.05] * 3 + [0.025] * 4 + [0.0125])
    follow(first, optimizers[1], scores[:6], 1)
    optimizers[2].load_state_dict(optimizers[1].state_dict())
    second.load_state_dict(first.state_dict())
    assert follow(second, optimizers[2], scores[6:], 7) == full[6:]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_every_schedule_warms_up_and_resumes(name):
    """A contract of every registered schedule."""
    settings = {"name": name, "warmup_epochs": 0.5}
    assert rates(settings, 4, 6)[:2] == pytest.approx([0.05, 0.1])
    optimizers = [torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1) for _ in range(2)]
    first, second = (schedule(o, settings, 4, 6) for o in optimizers)
    for step in range(10):
        first.step()
        if step % 4 == 3:
            first.observe(step // 4 + 1, 1.0, Metric("accuracy", "max"))
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(14):
        assert optimizers[0].param_groups[0]["lr"] == optimizers[1].param_groups[0]["lr"]
        first.step()
        second.step()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"name": "cosin"}, "schedule.name"),
        ({"warm_up": 3}, "warm_up"),
        ({"warmup_epochs": 9}, "warmup_epochs"),
        ({"final_fraction": 2}, "final_fraction"),
        ({"name": "wsd", "warmup_epochs": 2, "decay_fraction": 0.5}, "must not overlap"),
        ({"name": "plateau", "factor": 1}, "schedule.factor"),
        ({"name": "step", "every_epochs": 0}, "schedule.every_epochs"),
    ],
)
def test_a_bad_setting_is_named(settings, word):
    with pytest.raises(ConfigError, match=word):
        rates(settings, 2, 3)
