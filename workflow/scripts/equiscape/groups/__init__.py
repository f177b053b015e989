"""Finite groups and their permutation representations: what an equivariant layer is made of.

A *permutation representation* of G permutes the coordinates of a vector. Every one is a direct sum
of *coset representations* G/K, on which g sends the coset hK to ghK; G/K and G/L are the same
representation exactly where K and L are conjugate. The equivariant matrices from one representation
to another have a basis of 0/1 matrices, one for each orbit of G on the pairs (row, column).

Nothing here knows of networks or of torch; sympy makes the elements of the named groups.
"""

from equiscape.groups.group import Group, parse_group
from equiscape.groups.representation import (
    Representation,
    intertwiner_dimension,
    orbits,
    parse_representation,
    representations_of_width,
)

__all__ = [
    "Group",
    "Representation",
    "intertwiner_dimension",
    "orbits",
    "parse_group",
    "parse_representation",
    "representations_of_width",
]
