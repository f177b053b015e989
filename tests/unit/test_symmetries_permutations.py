"""Orders with signs and orders that commute, and what keeps a network on its plane."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from permutation_case import action, network
from test_symmetries import jacobian, null_space, output, rank, span, state_of

from equiscape import orders
from equiscape.symmetries import Continuous, Permutation

CASES = [
    ("S3", "natural + 2 trivial"),
    ("S3", "regular"),
    ("C4", "2 C4/C2"),
    ("C4", "regular"),
    ("S4", "2 sign"),
]


def commuting(group_action, size):
    """All orders that commute, by trying every one."""
    return {
        order
        for order in permutations(range(size))
        if all(order[g[i]] == g[order[i]] for g in group_action for i in range(size))
    }


@pytest.mark.parametrize(("group", "text"), CASES)
@pytest.mark.parametrize("signed", [False, True])
def test_the_best_order_that_commutes_is_that_of_an_exhaustive_search(group, text, signed):
    rho = action(group, text)
    size, action_of = rho.shape[1], rho.tolist()
    allowed = commuting(rho, size)
    labels = np.empty(size, dtype=int)
    orbits = orders.orbits_of(rho)
    for number, orbit in enumerate(orbits):
        labels[orbit] = number
    choices = list(product((1, -1), repeat=len(orbits))) if signed else [(1,) * len(orbits)]
    rng = np.random.default_rng(0)
    for _ in range(5):
        values = rng.normal(size=(size, size))
        place = np.arange(size)
        top = max(
            (values[place, list(order)] * np.array(signs)[labels]).sum()
            for order in allowed
            for signs in choices
        )
        found = orders.best(values, (), signed, action_of)
        assert tuple(orders.channels(found).tolist()) in allowed
        taken = values[place, orders.channels(found)] * orders.signs(found).numpy()
        assert taken.sum() == pytest.approx(top)
    generator = torch.Generator().manual_seed(0)
    drawn = {
        tuple(orders.draw(size, (), signed, action_of, generator).tolist()) for _ in range(600)
    }
    assert len(drawn) == len(allowed) * len(choices)


@pytest.mark.parametrize("signed", [False, True])
def test_the_best_order_of_all_is_that_of_an_exhaustive_search(signed):
    values = np.random.default_rng(1).normal(size=(5, 5))
    weight = np.abs(values) if signed else values
    top = max(weight[np.arange(5), list(order)].sum() for order in permutations(range(5)))
    found = orders.best(values, (), signed, ())
    taken = values[np.arange(5), orders.channels(found)] * orders.signs(found).numpy()
    assert taken.sum() == pytest.approx(top)


def test_orders_compose_as_the_moves_they_stand_for():
    generator = torch.Generator().manual_seed(2)
    tie, x = orders.Tie("x", 0, 1, 2), torch.arange(1.0, 10.0)
    for _ in range(20):
        one, two = (orders.draw(4, (), True, (), generator) for _ in range(2))
        both = tie.reorder(tie.reorder(x, one), two)
        assert torch.equal(both, tie.reorder(x, orders.composed(one, two)))


def held(activation, group="S3", hidden="natural + 2 trivial", inputs="natural + trivial"):
    model = network(
        group, inputs, "natural", 3, hidden=[hidden], activation=activation, output_bias=True
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(model.plane.draw(name, generator))
    x = torch.randn(200, model.layers[0].in_features, generator=generator, dtype=torch.float64)
    return model, x


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize(("group", "text"), CASES)
def test_a_held_network_stays_on_its_plane(activation, group, text):
    model, x = held(activation, group, text, "natural")
    state, generator = state_of(model), torch.Generator().manual_seed(1)
    before = output(model, state, (x,))
    moved = 0
    for symmetry in model.symmetries():
        for _ in range(5):
            after = symmetry.act(state, symmetry.draw(generator))
            torch.testing.assert_close(output(model, after, (x,)), before, rtol=1e-11, atol=1e-11)
            assert model.plane.distance(after) < 1e-15
            moved += any(not torch.equal(after[name], state[name]) for name in state)
    assert moved
    # any order leads off the plane
    free = network(group, "natural", "natural", hidden=[text], mode="free", activation=activation)
    (order,) = [s for s in free.symmetries() if isinstance(s, Permutation)]
    after = [order.act(state, order.draw(generator)) for _ in range(10)]
    leaves = max(model.plane.distance(one).item() for one in after)
    if (group, text) != ("S4", "2 sign"):  # looking at points without their order, units are equal
        assert leaves > 0.05


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_no_flat_direction_within_the_plane_is_left(activation):
    """The rank of the outputs' derivative along the plane misses one scale an orbit of ReLUs."""
    model, x = held(activation)
    state = state_of(model)
    basis = model.plane.basis([name for name, _ in model.named_parameters()])
    matrix = jacobian(model, state, (x,)) @ basis
    expected = 3 if activation == "relu" else 0
    generators = span(model, state)
    torch.testing.assert_close(generators @ basis @ basis.mT, generators.double())
    assert null_space(matrix) == rank(generators) == expected
    scales = [s for s in model.symmetries() if isinstance(s, Continuous)]
    assert sum(s.dimension for s in scales) == expected
