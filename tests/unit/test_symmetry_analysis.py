"""Identities hold to the last digits at declared symmetries, and fail where there is none."""

import numpy as np
import pytest
import torch
from test_connectivity import case  # noqa: F401
from tiny_task import tiny_network, tiny_task

from equiscape import symmetries as sym
from equiscape.analyses.symmetry import Settings, loss_at, rows_of
from equiscape.landscape import identities

SETTINGS = Settings(samples=None, batch_size=6, eigenvectors=2, tolerance=1e-4)


@pytest.fixture
def rows(case):  # noqa: F811
    return case, list(rows_of(*case, SETTINGS))


def test_first_and_second_order_identities_hold_in_float64(rows):
    (_, model), found = rows
    families = [row for row in found if row["level"] == "family"]
    declared = {s.family for s in model.symmetries() if isinstance(s, sym.Continuous)}
    assert {row["family"] for row in families} == declared
    for row in families:
        exact = row["mode"] == "eval"  # in train mode a norm's eps breaks the scale a little
        assert row["first"] < (1e-12 if exact else 1e-3), row
        assert row["second"] < (1e-9 if exact else 1e-2), row
        assert row["rayleigh"] == pytest.approx(row["predicted"], rel=1e-3, abs=1e-6), row


def test_no_gradient_lies_in_the_span_and_a_copy_is_the_same_function(rows):
    _, found = rows
    gradient = [r for r in found if r.get("name") == "gradient" and r["mode"] == "eval"]
    assert gradient
    assert all(row["share"] < 1e-6 for row in gradient)
    (copy,) = [row for row in found if row["level"] == "permutation"]
    assert copy["first"] < 1e-12
    assert copy["second"] < 1e-10


def test_what_is_no_symmetry_fails():
    """The scale of a tanh unit against its consumer: tanh is not homogeneous."""
    task, model = tiny_task(), tiny_network().double()
    ties = [sym.Tie("norm.weight"), sym.Tie("norm.bias")]
    control = sym.scale("control", "control", 5, ties, [sym.Tie("head.weight", 1)])
    settings = Settings(samples=None, batch_size=13)
    objective = loss_at(task, model, settings, training=False)
    _, gradient = objective.value_and_gradient()
    kept = identities.identity(
        objective, gradient, [control], "eval", 1.0, torch.Generator().manual_seed(0)
    )
    assert kept.first > 1e-3
    assert kept.second > 1e-2


def test_the_imbalance_of_a_scale_is_the_difference_of_squared_norms():
    model = tiny_network()
    state = dict(model.state_dict())
    symmetry = sym.scale(
        "scale", "scale", 5, [sym.Tie("first.weight")], [sym.Tie("head.weight", 1)]
    )
    expected = state["first.weight"].square().sum(1) - state["head.weight"].square().sum(0)
    measured = identities.imbalance(state, symmetry)
    torch.testing.assert_close(measured.float(), expected)
    total = state["first.weight"].square().sum() + state["head.weight"].square().sum()
    value, relative = identities.relative_imbalance(state, symmetry)
    assert value == pytest.approx(expected.norm().item(), rel=1e-6)
    assert relative == pytest.approx(expected.norm().item() / total.item(), rel=1e-6)


def test_shares_of_planted_directions(case):  # noqa: F811
    task, model = case
    objective = loss_at(task, model, SETTINGS, training=False)
    found = identities.applicable(model.symmetries(), False, "cross entropy")
    span = identities.Span(objective, found)
    rng = np.random.default_rng(0)
    inside = span.fields(rng.standard_normal(sum(span.sizes)))
    assert span.share(torch.from_numpy(inside)) == pytest.approx(1.0, abs=1e-6)
    vector = rng.standard_normal(objective.size)
    shares = [span.share(torch.from_numpy(rng.standard_normal(objective.size))) for _ in range(20)]
    expected = span.dimension / objective.size
    spread = np.std(shares) / np.sqrt(len(shares))
    assert abs(np.mean(shares) - expected) < 4 * spread + 1e-3
    products = span.products(vector)
    coefficients = rng.standard_normal(sum(span.sizes))
    assert coefficients @ products == pytest.approx(vector @ span.fields(coefficients), rel=1e-9)
