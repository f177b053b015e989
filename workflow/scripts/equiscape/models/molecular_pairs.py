"""The pairs of atoms of each molecule of a batch, and what their geometry gives a network.

At a cutoff of 5 Angstrom nearly all pairs of a small molecule are neighbors. So atoms are kept
flat, ``[N, ...]``, but what belongs to pairs is kept in one block a molecule, ``[B, n, n, ...]``
with n the atoms of the largest: every sum over neighbors is then a batched matrix product. Pairs
that are not neighbors have a zero envelope. Batches of molecules of similar size pad little (see
:func:`equiscape.data.molecules.pack`).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equiscape.ops.chunks import node_counts


@dataclass(frozen=True)
class Pairs:
    """The pairs of atoms of each molecule and their geometry; B molecules of up to n atoms.

    Attributes:
        slot: ``[N]`` place of every atom among the ``B n`` padded ones.
        shape: (B, n).
        radial: ``[B, n, n, K]`` radial basis of the distance.
        neighbors: ``[B, n, n]`` 1 where j is a neighbor of i, or i itself, else 0.
        envelope: ``[B, n, n]`` the cosine envelope of the neighbors, else 0.
        around: ``[B, n, n]`` the same without i itself.
        direction: ``[B, n, n, M]`` harmonics of the unit vector from i to j, 0 for i itself.
    """

    slot: Tensor
    shape: tuple[int, int]
    radial: Tensor
    neighbors: Tensor
    envelope: Tensor
    around: Tensor
    direction: Tensor

    def pad(self, x: Tensor) -> Tensor:
        """Atoms ``[N, ...]`` to blocks ``[B, n, ...]``, zero where a molecule has no atom."""
        return pad(x, self.slot, self.shape)

    def flat(self, x: Tensor) -> Tensor:
        """Blocks ``[B, n, ...]`` to atoms ``[N, ...]``."""
        return x.flatten(0, 1).index_select(0, self.slot)


def pad(x: Tensor, slot: Tensor, shape: tuple[int, int]) -> Tensor:
    """Rows ``[N, ...]`` placed at ``slot`` in zeros, ``[B, n, ...]``."""
    blocks = x.new_zeros(shape[0] * shape[1], *x.shape[1:]).index_add(0, slot, x)
    return blocks.unflatten(0, shape)


def harmonics(unit: Tensor, degrees: int) -> Tensor:
    """Real harmonics of unit vectors ``[E, 3]``, degrees 1 .. ``degrees``, as ``[E, M]``.

    Each degree is scaled to unit norm on the sphere; a zero vector gives zeros.
    """
    if degrees == 1:
        return unit
    x, y, z = unit.unbind(-1)
    root = math.sqrt(3)
    second = (
        root * x * z,
        root * x * y,
        y**2 - (x**2 + z**2) / 2,
        root * y * z,
        root / 2 * (z**2 - x**2),
    )
    return torch.cat([unit, torch.stack(second, dim=-1)], dim=-1)


def degree_rows(degrees: int) -> list[slice]:
    """The rows of each degree l among the M steerable components."""
    return [slice(degree**2 - 1, (degree + 1) ** 2 - 1) for degree in range(1, degrees + 1)]


class RadialBasis(nn.Module):
    """Exponential normal functions (Unke & Meuwly 2019) of the distance r, under the envelope.

    ``phi_k = fc(r) exp(-b (exp(-alpha r) - mu_k)^2)`` with ``alpha = 5 / cutoff``.
    """

    mean: Tensor

    def __init__(self, functions: int, cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        start = math.exp(-cutoff)
        self.width = (2 / functions * (1 - start)) ** -2
        self.register_buffer("mean", torch.linspace(start, 1, functions), persistent=False)

    def envelope(self, distance: Tensor) -> Tensor:
        """``fc = (cos(pi r / cutoff) + 1) / 2`` below the cutoff, zero above."""
        inside = (distance < self.cutoff).to(distance.dtype)
        return (torch.cos(math.pi / self.cutoff * distance) + 1) / 2 * inside

    def forward(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """``[E, 1]`` to the basis ``[E, K]`` and the envelope ``[E, 1]``."""
        envelope = self.envelope(distance)
        decay = torch.exp(-5 / self.cutoff * distance)
        return envelope * torch.exp(-self.width * (decay - self.mean) ** 2), envelope


def geometry(
    basis: RadialBasis,
    degrees: int,
    positions: Tensor,
    edge_index: Tensor,
    graph: Tensor,
    size: int,
    largest: int,
) -> Pairs:
    """The pairs of each molecule and their geometry.

    Args:
        basis, degrees: radial functions, and the highest degree of the harmonics.
        positions: ``[N, 3]``, one molecule after the other.
        edge_index: ``[2, E]``, rows source and target: which pairs are neighbors.
        graph: ``[N]`` molecule of every atom.
        size, largest: number of molecules, and of the atoms of the largest.
    """
    counts = node_counts(graph, size)
    place = torch.arange(len(graph), device=graph.device) - (counts.cumsum(0) - counts)[graph]
    slot, shape = graph * largest + place, (size, largest)
    source, target = edge_index
    neighbors = positions.new_zeros(size * largest * largest)
    neighbors[slot[target] * largest + place[source]] = 1
    neighbors = neighbors.view(size, largest, largest)

    padded = pad(positions, slot, shape)
    difference = padded.unsqueeze(1) - padded.unsqueeze(2)
    squared = difference.square().sum(-1, keepdim=True)
    # The norm has no derivative at zero: there it is taken of 1 and discarded.
    zero = squared == 0
    length = squared.masked_fill(zero, 1.0).sqrt()
    radial, envelope = basis(length.masked_fill(zero, 0.0))
    envelope = envelope.squeeze(-1) * neighbors
    proper = 1 - torch.eye(largest, dtype=positions.dtype, device=positions.device)
    direction = harmonics(difference / length, degrees)
    return Pairs(slot, shape, radial, neighbors, envelope, envelope * proper, direction)
