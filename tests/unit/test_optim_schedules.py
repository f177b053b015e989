"""Schedules against their closed form."""

import math

import pytest
import torch
from torch import nn

from equiscape.errors import ConfigError
from equiscape.optim.schedules import schedule


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


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"name": "cosin"}, "schedule.name"),
        ({"warm_up": 3}, "warm_up"),
        ({"warmup_epochs": 9}, "warmup_epochs"),
        ({"final_fraction": 2}, "final_fraction"),
    ],
)
def test_a_bad_setting_is_named(settings, word):
    with pytest.raises(ConfigError, match=word):
        rates(settings, 2, 3)
