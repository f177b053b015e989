"""Groups and representations against tables that are in every textbook."""

import itertools

import numpy as np
import pytest

from equiscape.errors import ConfigError
from equiscape.groups import (
    intertwiner_dimension,
    orbits,
    parse_group,
    parse_representation,
    representations_of_width,
)
from equiscape.groups.representation import identify

# order, subgroups, conjugacy classes of subgroups
COUNTS = {
    "C1": (1, 1, 1),
    "C4": (4, 3, 3),
    "C6": (6, 4, 4),
    "S3": (6, 6, 4),
    "D4": (8, 10, 8),
    "A4": (12, 10, 5),
    "S4": (24, 30, 11),
    "D6": (12, 16, 10),
    "C2xC2": (4, 5, 5),
    "S3xC2": (12, 16, 10),
    "S5": (120, 156, 19),
}
NAMES = {
    "S3": ("regular", "natural", "sign", "trivial"),
    "C4": ("regular", "C4/C2", "trivial"),
    "S4": (
        *("regular", "S4/C2a", "S4/C2b", "S4/C3", "S4/C2xC2a", "S4/C2xC2b", "S4/C4"),
        *("natural", "S4/D4", "sign", "trivial"),
    ),
}
MARKS = {
    "S3": [[6, 0, 0, 0], [3, 1, 0, 0], [2, 0, 2, 0], [1, 1, 1, 1]],
    "C4": [[4, 0, 0], [2, 2, 0], [1, 1, 1]],
}
GROUPS = ["S3", "C4", "D4", "S4"]


@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_orders_and_subgroups_are_the_known_ones(name, counts):
    group = parse_group(name)
    assert (group.order, len(group.subgroups), len(group.classes)) == counts


@pytest.mark.parametrize("name", GROUPS)
def test_the_table_is_a_group_that_acts_from_the_left(name):
    group = parse_group(name)
    table = group.table
    assert (np.sort(table, 0) == np.arange(group.order)[:, None]).all()
    assert (table[0] == np.arange(group.order)).all()
    for g, h in itertools.product(range(group.order), repeat=2):
        assert (group.elements[table[g, h]] == group.elements[g][group.elements[h]]).all()
    assert (table[np.arange(group.order), group.inverses] == 0).all()
    assert group.generate(frozenset(group.generators)) == frozenset(range(group.order))


def test_coset_representations_have_their_usual_names():
    for name, expected in NAMES.items():
        found = parse_group(name).class_names
        assert len(found) == len(set(found))
        assert set(found) == set(expected), name


@pytest.mark.parametrize(("name", "marks"), MARKS.items())
def test_tables_of_marks_are_burnsides(name, marks):
    np.testing.assert_array_equal(parse_group(name).table_of_marks(), marks)


def test_the_table_of_marks_of_the_square():
    group = parse_group("D4")
    marks = group.table_of_marks()
    # on the diagonal, the order of normalizer over subgroup; below it the first column is indices
    assert sorted(marks.diagonal()) == sorted([8, 4, 2, 2, 2, 2, 2, 1])
    assert sorted(marks[:, 0]) == [1, 2, 2, 2, 4, 4, 4, 8]
    assert (np.triu(marks, 1) == 0).all()
    assert len(group.natural) == 1
    assert marks[group.natural[0], 0] == 4


@pytest.mark.parametrize("name", GROUPS)
def test_coset_actions_are_transitive_homomorphisms_with_the_right_stabilizer(name):
    group = parse_group(name)
    for number, members in enumerate(group.classes):
        action = group.coset_action(number)
        for g, h in itertools.product(range(group.order), repeat=2):
            np.testing.assert_array_equal(action[group.table[g, h]], action[g][action[h]])
        assert set(action[:, 0]) == set(range(group.index(number)))
        assert frozenset(np.flatnonzero(action[:, 0] == 0).tolist()) == members[0]


def test_burnside_counts_colorings_of_the_square():
    """Orbits of k^4 colorings of a square's corners under D4: (k^4 + 2 k^3 + 3 k^2 + 2 k) / 8."""
    group = parse_group("D4")
    for k in (2, 3):
        colorings = list(itertools.product(range(k), repeat=4))
        number = {c: i for i, c in enumerate(colorings)}
        action = np.array(
            [[number[tuple(np.array(c)[element])] for c in colorings] for element in group.elements]
        )
        count = len(np.unique(action.min(0)))
        assert count == (k**4 + 2 * k**3 + 3 * k**2 + 2 * k) // 8


@pytest.mark.parametrize("name", [*GROUPS, "S3xC2"])
def test_intertwiners_are_counted_by_double_cosets_orbits_and_characters(name):
    group = parse_group(name)
    texts = [*group.class_names, "natural + 2 trivial", "regular + natural"]
    for first, second in itertools.product(texts, repeat=2):
        one, two = parse_representation(group, first), parse_representation(group, second)
        count = intertwiner_dimension(one, two)
        assert orbits(one.action, two.action).max() + 1 == count
        characters = [
            (r.action == np.arange(r.width)).sum(1)  # fixed points
            for r in (one, two)
        ]
        assert count == (characters[0] * characters[1]).sum() / group.order


def test_dimensions_that_are_known_for_the_symmetric_group():
    group = parse_group("S3")
    natural = parse_representation(group, "natural")
    expected = {"regular": 3, "natural": 2, "sign": 1, "trivial": 1}
    for text, dimension in expected.items():
        assert intertwiner_dimension(parse_representation(group, text), natural) == dimension


@pytest.mark.parametrize("name", GROUPS)
def test_matrices_that_are_constant_on_orbits_commute(name):
    group = parse_group(name)
    rng = np.random.default_rng(0)
    for first, second in itertools.product(group.class_names, repeat=2):
        one, two = parse_representation(group, first), parse_representation(group, second)
        labels = orbits(one.action, two.action)
        weight = rng.normal(size=labels.max() + 1)[labels]
        for g in range(group.order):
            error = np.abs(one.matrix(g) @ weight - weight @ two.matrix(g)).max()
            assert error <= 1e-14


def test_texts_are_parsed_and_written():
    group = parse_group("S3")
    assert parse_representation(group, "2 natural + 3 trivial").width == 9
    assert parse_representation(group, "trivial + regular+2natural").text == (
        "regular + 2 natural + trivial"
    )
    assert parse_representation(group, "S3/C3").text == "sign"
    assert parse_representation(parse_group("C4"), "natural").text == "regular"
    product = parse_group("S3 x C2")
    assert product.degree == 5
    assert parse_representation(product, "natural").width == 5


@pytest.mark.parametrize("text", ["", "2", "naturel", "natural +", "0 natural", "natural - sign"])
def test_what_is_no_representation_is_refused(text):
    with pytest.raises(ConfigError, match=r"model\.hidden"):
        parse_representation(parse_group("S3"), text, "model.hidden")


@pytest.mark.parametrize("name", ["", "B3", "S", "S6", "C0", "S3yC2", "Z4"])
def test_what_is_no_small_group_is_refused(name):
    with pytest.raises(ConfigError, match="group"):
        parse_group(name)


def test_representations_of_a_width_are_all_and_different():
    """For S3 as many as ways to pay ``width`` with coins of 6, 3, 2 and 1."""
    group = parse_group("S3")
    for width, count in {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8}.items():
        found = list(representations_of_width(group, width))
        assert all(r.width == width for r in found)
        assert len({r.text for r in found}) == len(found) == count


@pytest.mark.parametrize("name", GROUPS)
def test_an_action_is_identified_after_hiding_its_coordinates(name):
    group = parse_group(name)
    rng = np.random.default_rng(1)
    for width in (1, 3, 4, 6):
        for representation in representations_of_width(group, width):
            order = rng.permutation(width)
            hidden = order[representation.action[:, np.argsort(order)]]
            assert identify(group, hidden).text == representation.text
