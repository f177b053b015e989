"""Permutation representations as sums of coset representations, and maps between them."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from equiscape.errors import ConfigError
from equiscape.groups.group import Group, decompose
from equiscape.registry import unknown

LARGEST_WIDTH = 4096  # summands of one kind; a projection has as many rows and columns
TERM = re.compile(r"(?:([0-9]+)\s*\*?\s*)?([A-Za-z][A-Za-z0-9/×*]*)")


@dataclass(frozen=True, eq=False)
class Representation:
    """A direct sum of coset representations of one group.

    Args:
        group: G.
        classes: of the stabilizers, one number for each summand, in order.
    """

    group: Group
    classes: tuple[int, ...]

    @property
    def width(self) -> int:
        """The number of coordinates that are permuted."""
        return sum(self.group.index(number) for number in self.classes)

    @cached_property
    def action(self) -> np.ndarray:
        """``[order, width]``: entry (g, i) is where g sends the coordinate i."""
        parts, start = [], 0
        for number in self.classes:
            parts.append(self.group.coset_action(number) + start)
            start += self.group.index(number)
        return np.concatenate(parts, axis=1)

    def matrix(self, g: int) -> np.ndarray:
        """``rho(g) [width, width]``, with ``rho(g) e_i = e_(g i)``."""
        matrix = np.zeros((self.width, self.width))
        matrix[self.action[g], np.arange(self.width)] = 1
        return matrix

    @property
    def text(self) -> str:
        """Its name whatever the order of the summands: ``regular + 2 natural``."""
        return name_of(self.group, self.classes)


def name_of(group: Group, classes: Sequence[int]) -> str:
    """The name of a sum of coset representations, the largest summands first."""
    terms = []
    for number, count in sorted(Counter(classes).items()):
        name = group.class_names[number]
        terms.append(name if count == 1 else f"{count} {name}")
    return " + ".join(terms)


def parse_representation(group: Group, text: str, key: str = "representation") -> Representation:
    """The representation that a text names: ``"C4/C2"``, ``"2 natural + 3 trivial"``.

    Args:
        group: whose coset representations are named, see :attr:`Group.class_names`. ``natural`` is
            the action on the group's points, whatever it is the sum of; every coset
            representation also has its plain name, such as ``S3/C2``.
        text: summands joined by ``+``, each with an optional count.
        key: of the configuration, for the error.

    Raises:
        ConfigError: the text is no such sum; the message lists the names of the group.
    """
    known = _names(group)
    classes: list[int] = []
    for term in text.split("+") if isinstance(text, str) else [""]:
        match = TERM.fullmatch(term.strip())
        if match is None:
            raise ConfigError(
                f"{key}: {text!r} is not a sum such as '2 natural + 3 trivial'; "
                f"{group.name} has {', '.join(known)}."
            )
        if match[2] not in known:
            raise unknown(match[2], known, key)
        count = int(match[1] or 1)
        if count < 1:
            raise ConfigError(f"{key}: {term.strip()!r} has no summand; leave it out.")
        if count > LARGEST_WIDTH:
            raise ConfigError(f"{key}: {term.strip()!r} is too wide; give at most {LARGEST_WIDTH}.")
        classes += [*known[match[2]]] * count
    return Representation(group, tuple(classes))


def _names(group: Group) -> dict[str, tuple[int, ...]]:
    """Every name that a text may use, with the classes it stands for."""
    names: dict[str, tuple[int, ...]] = {
        name: (number,) for number, name in enumerate(group.class_names)
    }
    names["natural"] = group.natural
    structures = [group.structure(members[0]) for members in group.classes]
    for number, structure in enumerate(structures):
        if structures.count(structure) == 1:
            names.setdefault(f"{group.name}/{structure}", (number,))
        else:
            letter = "abcdefghijklmnopqrstuvwxyz"[structures[:number].count(structure)]
            names.setdefault(f"{group.name}/{structure}{letter}", (number,))
    return names


def representations_of_width(group: Group, width: int) -> Iterator[Representation]:
    """Every permutation representation of ``width`` coordinates, once up to order."""
    numbers = range(len(group.classes))

    def fill(left: int, first: int) -> Iterator[tuple[int, ...]]:
        if left == 0:
            yield ()
        for number in numbers[first:]:
            if group.index(number) <= left:
                for rest in fill(left - group.index(number), number):
                    yield (number, *rest)

    for classes in fill(width, 0):
        yield Representation(group, classes)


def orbits(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The orbits of a group on the entries of a matrix, numbered from 0.

    Args:
        rows: ``[order, m]``, the action on the rows.
        columns: ``[order, n]``, the action of the same elements on the columns.

    Returns:
        ``[m, n]``: a matrix commutes with the two actions where it is constant on equal numbers.
    """
    m, n = rows.shape[1], columns.shape[1]
    images = rows[:, :, None] * n + columns[:, None, :]  # where each entry goes, flat
    return np.unique(images.min(0), return_inverse=True)[1].reshape(m, n)


def intertwiner_dimension(first: Representation, second: Representation) -> int:
    """Dimension of the equivariant matrices: double cosets of H and K, over pairs of summands."""
    return sum(double_cosets(first.group, h, k) for h in first.classes for k in second.classes)


def double_cosets(group: Group, h: int, k: int) -> int:
    """The number of double cosets HgK, for the first subgroups of two classes."""
    left = np.array(sorted(group.classes[h][0]))
    right = np.array(sorted(group.classes[k][0]))
    seen, count = np.zeros(group.order, dtype=bool), 0
    for g in range(group.order):
        if not seen[g]:
            count += 1
            seen[group.table[np.ix_(group.table[left, g], right)]] = True
    return count


def identify(group: Group, action: np.ndarray) -> Representation:
    """The representation, up to the order of coordinates, that an action ``[order, width]`` is."""
    return Representation(group, tuple(sorted(decompose(group, action))))
