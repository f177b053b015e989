"""Finite permutation groups small enough to hold every subgroup."""

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from equiscape.errors import ConfigError

LARGEST = 120  # elements: of S5
FACTOR = re.compile(r"([CDSA])([1-9][0-9]?)")
Subgroup = frozenset[int]


@dataclass(frozen=True, eq=False)
class Group:
    """A group of permutations of ``degree`` points, with its multiplication table.

    Elements are numbered; the identity is element 0. The product ``gh`` applies h first, so that
    permutations act from the left.

    Args:
        name: such as ``S3`` or ``S3xC2``.
        elements: ``[order, degree]``; ``elements[g, i]`` is where g sends the point i.
    """

    name: str
    elements: np.ndarray
    _number: dict[bytes, int] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        self._number.update({row.tobytes(): g for g, row in enumerate(self.elements)})

    @property
    def order(self) -> int:
        """The number of elements."""
        return len(self.elements)

    @property
    def degree(self) -> int:
        """The number of points that the group permutes."""
        return self.elements.shape[1]

    @cached_property
    def table(self) -> np.ndarray:
        """``[order, order]``: entry (g, h) is the number of the product gh."""
        products = self.elements[:, self.elements]  # [g, h, i] -> g(h(i))
        flat = products.reshape(-1, self.degree)
        numbers = [self._number[row.tobytes()] for row in flat]
        return np.array(numbers).reshape(self.order, self.order)

    @cached_property
    def inverses(self) -> np.ndarray:
        """``[order]``: the number of each element's inverse."""
        return (self.table == 0).argmax(1)

    @cached_property
    def generators(self) -> tuple[int, ...]:
        """A few elements that generate the group: what is equivariant under them is under all."""
        chosen: list[int] = []
        made = frozenset({0})
        for g in range(self.order):
            if g not in made:
                chosen.append(g)
                made = self.generate(made | {g})
        return tuple(chosen)

    def generate(self, elements: frozenset[int]) -> Subgroup:
        """The smallest subgroup that contains ``elements``."""
        members = np.zeros(self.order, dtype=bool)
        members[[0, *elements]] = True
        while True:
            inside = np.flatnonzero(members)
            members[self.table[np.ix_(inside, inside)]] = True
            if members.sum() == len(inside):
                return frozenset(inside.tolist())

    def conjugate(self, subgroup: Subgroup, g: int) -> Subgroup:
        """``g K g^-1``."""
        inside = np.array(sorted(subgroup))
        return frozenset(self.table[self.table[g, inside], self.inverses[g]].tolist())

    @cached_property
    def subgroups(self) -> tuple[Subgroup, ...]:
        """Every subgroup, from the smallest: joins of cyclic ones until nothing is new."""
        cyclic = {self.generate(frozenset({g})) for g in range(self.order)}
        found, new = set(cyclic), set(cyclic)
        while new:
            joins = {self.generate(h | c) for h in new for c in cyclic if not c <= h}
            new = joins - found
            found |= new
        return tuple(sorted(found, key=lambda h: (len(h), sorted(h))))

    @cached_property
    def classes(self) -> tuple[tuple[Subgroup, ...], ...]:
        """Conjugacy classes of subgroups, from the trivial subgroup to the group itself."""
        classes, seen = [], set()
        for subgroup in self.subgroups:
            if subgroup in seen:
                continue
            members = {self.conjugate(subgroup, g) for g in range(self.order)}
            seen |= members
            classes.append(tuple(sorted(members, key=sorted)))
        return tuple(classes)

    @cached_property
    def _class_of(self) -> dict[Subgroup, int]:
        return {h: number for number, members in enumerate(self.classes) for h in members}

    def class_of(self, subgroup: Subgroup) -> int:
        """The number of the conjugacy class of a subgroup."""
        return self._class_of[subgroup]

    def index(self, number: int) -> int:
        """The number of cosets of the subgroups of class ``number``."""
        return self.order // len(self.classes[number][0])

    def coset_action(self, number: int) -> np.ndarray:
        """``[order, index]``: how each element permutes the cosets of the class's first subgroup.

        Coset 0 is the subgroup itself, so it is the stabilizer of coset 0.
        """
        return self._coset_actions[number]

    @cached_property
    def _coset_actions(self) -> tuple[np.ndarray, ...]:
        actions = []
        for members in self.classes:
            inside = np.array(sorted(members[0]))
            smallest = self.table[:, inside].min(1)  # of each coset gK, its first element
            starts, coset_of = np.unique(smallest, return_inverse=True)
            actions.append(coset_of[self.table[:, starts]])
        return tuple(actions)

    @cached_property
    def element_orders(self) -> np.ndarray:
        """``[order]``: the order of each element."""
        orders = np.ones(self.order, dtype=int)
        power = np.arange(self.order)
        while (power != 0).any():
            orders += power != 0
            power = np.where(power != 0, self.table[np.arange(self.order), power], 0)
        return orders

    def table_of_marks(self) -> np.ndarray:
        """``[classes, classes]``: fixed points of a subgroup of class K on the cosets of H.

        Row H, column K (Burnside 1911): two permutation representations are the same where the
        sums of their rows are.
        """
        marks = np.zeros((len(self.classes), len(self.classes)), dtype=int)
        for row in range(len(self.classes)):
            action = self.coset_action(row)
            points = np.arange(action.shape[1])
            for column, members in enumerate(self.classes):
                inside = sorted(members[0])
                marks[row, column] = (action[inside] == points).all(0).sum()
        return marks

    @cached_property
    def natural(self) -> tuple[int, ...]:
        """The classes of the coset representations that make up the action on the points."""
        return decompose(self, self.elements)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """A name for each coset representation.

        ``regular`` (G/1), ``trivial`` (G/G), ``natural`` where the group moves every point to
        every other, ``sign`` (cosets of the only subgroup of index 2), and else ``S4/C2xC2``, with
        a letter where subgroups of one structure are not conjugate.
        """
        structures = [self.structure(members[0]) for members in self.classes]
        count, names = Counter(structures), []
        letter: Counter[str] = Counter()
        for structure in structures:
            suffix = ""
            if count[structure] > 1:
                suffix = "abcdefghijklmnopqrstuvwxyz"[letter[structure]]
                letter[structure] += 1
            names.append(f"{self.name}/{structure}{suffix}")
        halves = [n for n in range(len(names)) if self.index(n) == 2]
        if len(halves) == 1 and self.order > 2 and self.name[0] in "SA" and "x" not in self.name:
            names[halves[0]] = "sign"
        if len(self.natural) == 1:
            names[self.natural[0]] = "natural"
        names[0], names[-1] = "regular", "trivial"
        return tuple(names)

    def structure(self, subgroup: Subgroup) -> str:
        """What a subgroup is up to isomorphism, by the orders of its elements.

        Those tell all groups of fewer than 16 elements apart; what is not known is ``K24``.
        """
        orders = tuple(sorted(Counter(self.element_orders[sorted(subgroup)].tolist()).items()))
        return _structures(len(subgroup)).get(orders, f"K{len(subgroup)}")


def decompose(group: Group, action: np.ndarray) -> tuple[int, ...]:
    """The classes of the orbits of an action ``[order, width]``, by their first points.

    Each orbit is G/K with K the stabilizer of one of its points.
    """
    return tuple(
        group.class_of(frozenset(np.flatnonzero(action[:, orbit[0]] == orbit[0]).tolist()))
        for orbit in orbits_of(action)
    )


def orbits_of(action: np.ndarray) -> list[list[int]]:
    """The orbits of an action ``[order, width]``, each sorted, by their first points."""
    smallest = action.min(0)
    return [np.flatnonzero(smallest == point).tolist() for point in np.unique(smallest)]


@lru_cache
def parse_group(name: str) -> Group:
    """The group that a text names: ``C4``, ``D4``, ``S3``, ``A4``, or a product ``S3xC2``.

    ``Dn`` is the symmetry of the n-gon, of order 2n and acting on its n corners. A product acts on
    the points of its factors side by side.

    Raises:
        ConfigError: the text names no group, or one of more than 120 elements.
    """
    from sympy.combinatorics import named_groups
    from sympy.combinatorics.group_constructs import DirectProduct

    makers = {
        "C": named_groups.CyclicGroup,
        "D": named_groups.DihedralGroup,
        "S": named_groups.SymmetricGroup,
        "A": named_groups.AlternatingGroup,
    }
    factors = []
    for part in re.split(r"\s*[x*×]\s*", name.strip()) if isinstance(name, str) else [""]:
        match = FACTOR.fullmatch(part)
        if match is None:
            raise ConfigError(
                f"group: {name!r} is not a group such as C4, D4, S3, A4 or a product like S3xC2."
            )
        factors.append(makers[match[1]](int(match[2])))
    order = 1
    for factor in factors:
        order *= int(factor.order())
    if order > LARGEST:
        raise ConfigError(
            f"group: {name} has more than {LARGEST} elements; choose one of at most {LARGEST}."
        )
    made = factors[0] if len(factors) == 1 else DirectProduct(*factors)
    rows = sorted(element.array_form for element in made.generate())
    plain = re.sub(r"\s*[x*×]\s*", "x", name.strip())
    return Group(plain, np.array(rows, dtype=np.int64))


@lru_cache
def _structures(order: int) -> dict[tuple, str]:
    """Names of groups of an order, by the counts of their elements' orders; earlier names win."""
    names = [f"C{order}"]
    names += {
        4: ["C2xC2"],
        6: ["S3"],
        8: ["D4", "C4xC2", "C2xC2xC2"],
        9: ["C3xC3"],
        12: ["A4", "C6xC2"],
        24: ["S4"],
        60: ["A5"],
        120: ["S5"],
    }.get(order, [])
    if order % 2 == 0 and order >= 10:
        names.append(f"D{order // 2}")
    found: dict[tuple, str] = {}
    for name in names if order <= 99 else names[1:]:
        orders = parse_group(name).element_orders.tolist()
        found.setdefault(tuple(sorted(Counter(orders).items())), name)
    return found
