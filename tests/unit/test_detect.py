"""Representations that were planted in a network, and hidden, are found again."""

import numpy as np
import pytest
import torch
from permutation_case import GROUPS, action, arrays, network, shuffle_units

from equiscape.groups import parse_group, parse_representation, representations_of_width
from equiscape.groups.detect import detect, match, nearest_planes, simplify

WIDTHS = {"S3": range(1, 8), "C4": range(1, 9), "D4": (1, 2, 4, 6, 8)}
PLANTED = [
    (name, representation.text)
    for name in GROUPS
    for width in WIDTHS[name]
    for representation in representations_of_width(parse_group(name), width)
]


def visible(group, text, inputs):
    """The representation of the layer as its weights can show it.

    Units that an equivariant map cannot tell apart coincide: the cosets of K see the input through
    its K-fixed vectors alone, so an orbit shows itself as that of the points that these separate.
    """
    expected = []
    for number in parse_representation(group, text).classes:
        coset = group.coset_action(number)
        members = group.classes[number][0]
        # a generic equivariant row of G/K is constant on the K-orbits of the input's points
        labels = action_orbits(inputs, sorted(members))
        fixing = [g for g in range(group.order) if (labels[inputs[g]] == labels).all()]
        expected.append(group.class_of(frozenset(fixing)))
        assert set(members) <= set(fixing)
        assert coset.shape[1] % group.index(expected[-1]) == 0
    return sorted(expected)


def action_orbits(inputs, elements):
    return inputs[elements].min(0)


@pytest.mark.parametrize(("name", "text"), PLANTED)
def test_planted_representations_are_recovered(name, text):
    """From one equivariant network on the regular representation, which shows everything."""
    group = parse_group(name)
    rng = np.random.default_rng(len(text))
    model = network(name, inputs="regular", hidden=[text], seed=1, scale=3.0)
    parameters = shuffle_units(arrays(model), rng, flip=True)
    inputs, outputs = action(name, "regular"), action(name, "trivial")
    (found,) = detect(group, parameters, inputs, outputs, "tanh", tolerance=1e-6)
    assert found.accepted
    assert found.residual < 1e-25
    assert found.text == parse_representation(group, text).text
    assert found.dead == found.merged == 0


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("outputs", ["trivial", "natural"])
def test_what_the_natural_input_shows_is_recovered(name, outputs):
    group = parse_group(name)
    rng = np.random.default_rng(4)
    inputs = action(name, "natural")
    for text in group.class_names:
        model = network(name, outputs=outputs, hidden=[text], seed=2, scale=3.0)
        parameters = shuffle_units(arrays(model), rng, flip=True)
        (found,) = detect(group, parameters, inputs, action(name, outputs), "tanh")
        if outputs == "trivial":
            shown = visible(group, text, inputs)
            assert list(found.representation.classes) == shown, text
        assert found.accepted, text


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
def test_both_hidden_layers_of_a_deeper_network_are_recovered(activation):
    group, rng = parse_group("S3"), np.random.default_rng(5)
    hidden = ["regular + natural", "natural + sign + trivial"]
    model = network(inputs="regular", hidden=hidden, seed=3, scale=2.0, activation=activation)
    parameters = shuffle_units(arrays(model), rng, flip=activation == "tanh")
    inputs, outputs = action("S3", "regular"), action("S3", "trivial")
    found = detect(group, parameters, inputs, outputs, activation)
    assert [layer.text for layer in found] == hidden
    assert all(layer.accepted for layer in found)


def test_rescaled_relu_units_are_recovered():
    group, rng = parse_group("S3"), np.random.default_rng(5)
    parameters = arrays(network(hidden=["natural + trivial"], activation="relu", seed=1))
    factor = rng.uniform(0.2, 5, 4)
    parameters["layers.0.weight"] *= factor[:, None]
    parameters["layers.0.bias"] *= factor
    parameters["layers.1.weight"] /= factor
    arguments = (group, parameters, action("S3", "natural"), action("S3", "trivial"))
    assert detect(*arguments, "relu")[0].text == "natural + trivial"
    assert not detect(*arguments, "silu")[0].accepted


def test_dead_and_doubled_units_do_not_count():
    group = parse_group("S3")
    parameters = arrays(network(hidden=["natural"], seed=1))
    weight, bias, out = (
        parameters[name] for name in ("layers.0.weight", "layers.0.bias", "layers.1.weight")
    )
    padded = {
        # unit 0 twice, once flipped; a unit that is not heard; one that hears nothing
        "layers.0.weight": np.vstack([weight, -weight[:1], weight[1:2] + 1, 0 * weight[:1]]),
        "layers.0.bias": np.concatenate([bias, -bias[:1], [0.3, 0.7]]),
        "layers.1.weight": np.column_stack([out - [0.4, 0, 0], [[-0.4]], [[0.0]], [[0.5]]]),
    }
    (found,) = detect(group, padded, action("S3", "natural"), action("S3", "trivial"), "tanh")
    assert (found.text, found.dead, found.merged) == ("natural", 2, 1)
    assert found.residual < 1e-25
    assert found.units.tolist() == [0, 1, 2]


def test_a_network_that_is_not_equivariant_has_no_representation():
    group = parse_group("S3")
    free = arrays(network(hidden=["natural"], mode="free"))
    (found,) = detect(group, free, action("S3", "natural"), action("S3", "trivial"), "tanh")
    assert not found.accepted
    assert found.text == "none"
    assert found.residual > 0.05


def test_small_deviations_raise_the_residual_and_not_the_name():
    group, rng = parse_group("S3"), np.random.default_rng(6)
    parameters = arrays(network(hidden=["natural"], seed=1))
    residuals = []
    for size in (1e-4, 1e-3):
        moved = {k: v + size * rng.normal(size=v.shape) for k, v in parameters.items()}
        (found,) = detect(group, moved, action("S3", "natural"), action("S3", "trivial"), "tanh")
        assert found.text == "natural"
        residuals.append(found.residual)
    assert 30 < residuals[1] / residuals[0] < 300  # quadratic


def test_permutations_that_do_not_multiply_are_no_representation():
    """Two units that both fit: the best permutations need not be a homomorphism, and are told."""
    group = parse_group("C4")
    into = np.array([[1.0, 0, -1, 0, 0], [0, 1, 0, -1, 0.3]])
    action_, residual, homomorphism, representation = match(
        group, into, np.ones((1, 2)), action("C4", "natural"), action("C4", "trivial")
    )
    assert action_.shape == (4, 2)
    assert residual > 0.1
    assert homomorphism == (representation is not None)


def test_the_nearest_plane_is_that_of_the_planted_representation():
    rng = np.random.default_rng(7)
    group = parse_group("S3")
    natural, trivial = (parse_representation(group, t) for t in ("natural", "trivial"))
    for text in ("natural + trivial", "2 sign", "4 trivial"):
        model = network(hidden=[text], seed=2)
        parameters = shuffle_units(arrays(model), rng, flip=True)
        distances = nearest_planes(group, parameters, natural, trivial, "tanh")
        assert set(distances) == {
            "natural + trivial",
            "2 sign",
            "sign + 2 trivial",
            "4 trivial",
        }
        assert distances[text] < 1e-15
    # seen through three points, the cosets of the rotations coincide with trivial units
    assert distances["natural + trivial"] > 0.1
    # against all orders by hand: the distance to the plane of trivial units needs none
    plane = torch.as_tensor(parameters["layers.0.weight"])
    assert (plane - plane.mean(1, keepdim=True)).abs().max() < 1e-15


def test_simplifying_keeps_the_function():
    rng = np.random.default_rng(8)
    into, out = rng.normal(size=(5, 4)), rng.normal(size=(2, 5))
    into[3], into[4] = -into[0], into[1]
    x = np.column_stack([rng.normal(size=(9, 3)), np.ones(9)])
    before = np.tanh(x @ into.T) @ out.T
    into, out, units, dead, merged = simplify(into, out, "tanh", 1e-6)
    assert (len(units), dead, merged) == (3, 0, 2)
    np.testing.assert_allclose(np.tanh(x @ into.T) @ out.T, before, atol=1e-12)
