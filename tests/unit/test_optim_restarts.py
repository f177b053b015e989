"""A cosine with restarts is a cosine in each cycle."""

import pytest

from equiscape.errors import ConfigError
from equiscape.optim.schedules import Plan, read_schedule


@pytest.mark.parametrize("warmup", [0, 2])
def test_each_cycle_is_a_cosine_of_its_own(warmup):
    settings = {"warmup_epochs": warmup, "final_fraction": 0.1}
    restarts = read_schedule({"name": "restarts", "cycles": 3, **settings}, 31)
    single = read_schedule({"name": "cosine", **settings}, 31)
    plan, short, last = Plan(2, 31), Plan(2, 10), Plan(2, 11)
    got = [restarts.fraction(step, plan, {}) for step in range(62)]
    expected = [single.fraction(step, short, {}) for step in range(20)] * 2
    expected += [single.fraction(step, last, {}) for step in range(22)]
    assert got == pytest.approx(expected, rel=1e-12)
    assert max(got) == 1
    assert got.count(1) >= 3


def test_one_cycle_is_the_plain_cosine():
    one = read_schedule({"name": "restarts", "cycles": 1}, 7)
    plain = read_schedule({"name": "cosine"}, 7)
    plan = Plan(3, 7)
    for step in range(22):
        assert one.fraction(step, plan, {}) == plain.fraction(step, plan, {})


def test_no_cycle_is_refused():
    with pytest.raises(ConfigError, match="cycles"):
        read_schedule({"name": "restarts", "cycles": 0}, 7)
