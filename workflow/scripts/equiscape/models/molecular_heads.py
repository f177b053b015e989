"""From the features of atoms to one property of the molecule, on the scale of the training loss.

Every head takes ``h [N, d]``, ``X [N, M, d]``, ``z [N]``, ``positions [N, 3]``, ``graph [N]`` and
the number of molecules, returns ``[size, 1]``, and has

* ``output``: its last layer (for :attr:`non_hidden`);
* ``representations()``: the last features before it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from equiscape import symmetries as sym
from equiscape.models.gotennet_symmetries import Read, hidden, read

STABLE = 1e-8  # inside square roots, whose slope at zero is infinite


class SumPool(nn.Module):
    """The sum over the atoms of each molecule."""

    def forward(self, x: Tensor, graph: Tensor, size: int) -> Tensor:
        """``[N, ...]`` to ``[size, ...]``."""
        return x.new_zeros(size, *x.shape[1:]).index_add(0, graph, x)


class ScalarHead(nn.Module):
    """A sum of atomic contributions, ``w sum_i SiLU(V h_i + b) + c``.

    The sum comes before the last layer, which is linear, so that the pooled features are a
    representation of the molecule. Atom references are part of the data: they are subtracted from
    the targets (see :mod:`equiscape.data.qm9`).

    A choice: the bias c is added once a molecule. The released code adds it to every atom, where it
    grows with the molecule and repeats the atom references.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU())
        self.pool = SumPool()
        self.output = nn.Linear(hidden, 1)

    def representations(self) -> dict[str, nn.Module]:
        """The sum over atoms, ``[size, d]``."""
        return {"pool": self.pool}

    def reads(self) -> tuple[list[Read], list[sym.Tie]]:
        """Where the head reads h, with the bias beside it, and where it reads X."""
        return [read("head.hidden.0")], []

    def symmetries(self) -> list[sym.Symmetry]:
        """The hidden neurons' order."""
        return [hidden("head.hidden.0", "head.output", self.output.in_features)]

    def forward(
        self, h: Tensor, X: Tensor, z: Tensor, positions: Tensor, graph: Tensor, size: int
    ) -> Tensor:
        """``[size, 1]``."""
        return self.output(self.pool(self.hidden(h), graph, size))


def centered(z: Tensor, positions: Tensor, graph: Tensor, size: int) -> Tensor:
    """Positions relative to the molecule's center of nuclear charge, ``[N, 3]``."""
    charge = z.to(positions.dtype).unsqueeze(1)
    pool = SumPool()
    center = pool(charge * positions, graph, size) / pool(charge, graph, size)
    return positions - center[graph]


class SpatialExtentHead(nn.Module):
    """The electronic spatial extent, ``sum_i q_i |r_i - c|^2`` with ``q_i = w SiLU(V h_i + b)``.

    c is the center of nuclear charge. With one q an element, a fit to QM9 leaves 3 a0^2 about it
    and about the center of mass, 23 a0^2 about the centroid.

    Choices: the released code takes the center of mass, adds a bias to every q, and its activation
    is a shifted softplus.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU())
        self.pool = SumPool()
        self.output = nn.Linear(hidden, 1, bias=False)

    def representations(self) -> dict[str, nn.Module]:
        """The sum over atoms, weighted by the squared radius, ``[size, d]``."""
        return {"pool": self.pool}

    def reads(self) -> tuple[list[Read], list[sym.Tie]]:
        """Where the head reads h, with the bias beside it, and where it reads X."""
        return [read("head.hidden.0")], []

    def symmetries(self) -> list[sym.Symmetry]:
        """The hidden neurons' order."""
        return [hidden("head.hidden.0", "head.output", self.output.in_features)]

    def forward(
        self, h: Tensor, X: Tensor, z: Tensor, positions: Tensor, graph: Tensor, size: int
    ) -> Tensor:
        """``[size, 1]``."""
        squared = centered(z, positions, graph, size).square().sum(1, keepdim=True)
        return self.output(self.pool(squared * self.hidden(h), graph, size))


class GatedBlock(nn.Module):
    """Gated equivariant block (Schuett, Unke & Gastegger 2021) of scalars and vectors.

    With ``(V, W) = v U`` and ``(s', g) = MLP [s | |V|]``, the new vectors are ``v' = g * W``.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.vectors = nn.Linear(inputs, 2 * outputs, bias=False)
        self.scalars = nn.Sequential(
            nn.Linear(inputs + outputs, hidden), nn.SiLU(), nn.Linear(hidden, 2 * outputs)
        )

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``s [N, C]`` and ``v [N, 3, C]`` to the same with the block's outputs as channels."""
        first, second = self.vectors(v).chunk(2, dim=-1)
        norm = (first.square().sum(1) + STABLE).sqrt()
        s, gate = self.scalars(torch.cat([s, norm], dim=-1)).chunk(2, dim=-1)
        return s, gate.unsqueeze(1) * second


class DipoleHead(nn.Module):
    """The norm of the dipole moment, ``|sum_i (mu_i + q_i (r_i - c))|``.

    Atomic dipoles and charges come from two gated equivariant blocks. The norm is rounded off
    within 1e-4 of zero, where it would have no second derivative.

    A choice: positions are relative to the center of nuclear charge c, so the prediction does not
    change when a molecule is moved, though its charges need not sum to zero. The released code has
    that as an option, relative to a centroid; without it the origin of the positions counts.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.hidden = GatedBlock(hidden, hidden, hidden)
        self.activation = nn.SiLU()
        self.output = GatedBlock(hidden, hidden, 1)

    def representations(self) -> dict[str, nn.Module]:
        """The scalars of the first block, ``[N, d]``: what is pooled after it is one vector."""
        return {"head.hidden": self.hidden}

    def reads(self) -> tuple[list[Read], list[sym.Tie]]:
        """Where the head reads h, with the bias beside it, and where it reads X."""
        return [read("head.hidden.scalars.0")], sym.columns("head.hidden.vectors", 0)

    def symmetries(self) -> list[sym.Symmetry]:
        """Channels and scales within and between the two blocks.

        The sign of the dipole is free as well, but no continuous symmetry.
        """
        d = self.output.vectors.in_features
        after = sym.columns("head.output.scalars.0", 0)
        between = sym.columns("head.output.vectors", 0)
        gates = sym.rows("head.hidden.scalars.2", d)
        turned = sym.rows("head.hidden.vectors", d, biased=False)
        found = [
            sym.permutation("head scalars", d, [*sym.rows("head.hidden.scalars.2"), *after]),
            sym.permutation("head vectors", d, [*gates, *turned, *between]),
            sym.scale("head vectors scale", "stream scale", d, turned, between),
        ]
        for block, outputs in (("head.hidden", d), ("head.output", 1)):
            norms = sym.rows(f"{block}.vectors", biased=False)
            read_norms = sym.columns(f"{block}.scalars.0", d)
            gates = sym.rows(f"{block}.scalars.2", outputs)
            gated = sym.rows(f"{block}.vectors", outputs, biased=False)
            found += [
                hidden(f"{block}.scalars.0", f"{block}.scalars.2", d),
                sym.permutation(f"{block} norms", outputs, [*norms, *read_norms]),
                sym.scale(f"{block} gates scale", "product scale", outputs, gated, gates),
                sym.scale(
                    f"{block} norms scale", "norm scale", outputs, norms, read_norms, exact=False
                ),
            ]
        return found

    def vector(
        self, h: Tensor, X: Tensor, z: Tensor, positions: Tensor, graph: Tensor, size: int
    ) -> Tensor:
        """The dipole moment itself, ``[size, 3]``."""
        s, v = self.hidden(h, X[:, :3])
        charge, dipole = self.output(self.activation(s), v)
        total = dipole.squeeze(-1) + charge * centered(z, positions, graph, size)
        return SumPool()(total, graph, size)

    def forward(
        self, h: Tensor, X: Tensor, z: Tensor, positions: Tensor, graph: Tensor, size: int
    ) -> Tensor:
        """``[size, 1]``, never negative."""
        squared = self.vector(h, X, z, positions, graph, size).square().sum(1, keepdim=True)
        return (squared + STABLE).sqrt() - STABLE**0.5


HEADS = {"scalar": ScalarHead, "dipole": DipoleHead, "spatial-extent": SpatialExtentHead}


def build_head(name: str, hidden: int) -> Any:
    """The head ``name`` of :data:`HEADS` over ``hidden`` channels."""
    return HEADS[name](hidden)
