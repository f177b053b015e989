"""GotenNet (Aykent & Xia, ICLR 2025) on batches of molecules.

Every atom i carries invariant channels ``h_i [d]`` and steerable ones ``X_i [M, d]``, whose M rows
are the components of degree l = 1 .. L: under a rotation they turn by the Wigner matrix of their
degree. Every pair of neighbors (i, j) carries invariant channels ``t_ij [d]``. A layer is

* attention (GATA), which moves messages along the edges,
* refinement of the edges (HTR) by inner products of the steerable channels at their two ends,
* a feed-forward block (EQFF), which mixes channels within an atom.

Products of degrees are inner products alone, so no Clebsch-Gordan coefficients are needed.

Sums over neighbors are batched matrix products over all pairs of a molecule (see
:mod:`equiscape.models.molecular_pairs`), so the tensors ``[edges, M, d]`` of a gather and scatter,
an order of magnitude wider than all others, never exist. The heads are in
:mod:`equiscape.models.molecular_heads`, which say where they differ from the released code; the
attention and its heads are in :mod:`equiscape.models.gotennet_attention`.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscape import symmetries as sym
from equiscape.models import gotennet_symmetries
from equiscape.models.gotennet_attention import Attention, perceptron
from equiscape.models.molecular_heads import build_head
from equiscape.models.molecular_pairs import Pairs, RadialBasis, degree_rows, geometry
from equiscape.settings import Depth, Positive, PositiveInt, Probability, Width

STABLE = 1e-8  # inside square roots, whose slope at zero is infinite


class Start(nn.Module):
    """Atom and pair features from atomic numbers and distances (paper, equations 1 to 3).

    ::

        m_i  = sum_{j != i} A_nbr(z_j) * (W_ndp phi(r_ij)) fc(r_ij)
        h_i  = Lin SiLU LN Lin [A(z_i) | m_i]
        t_ij = (h_i + h_j) * W_e phi(r_ij)
    """

    def __init__(self, hidden: int, radial: int, elements: int):
        super().__init__()
        self.atom = nn.Embedding(elements, hidden)
        self.neighbor = nn.Embedding(elements, hidden)
        self.neighbor_filter = nn.Linear(radial, hidden)
        self.combine = nn.Sequential(
            nn.Linear(2 * hidden, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
        )
        self.edge_filter = nn.Linear(radial, hidden)

    def forward(self, z: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """``z [N]`` to ``h [N, d]`` and ``t [B, n, n, d]``."""
        messages = self.neighbor_filter(pairs.radial) * pairs.pad(self.neighbor(z)).unsqueeze(1)
        around = pairs.flat((pairs.around.unsqueeze(2) @ messages).squeeze(2))
        h = self.combine(torch.cat([self.atom(z), around], dim=-1))
        padded = pairs.pad(h)
        return h, (padded.unsqueeze(2) + padded.unsqueeze(1)) * self.edge_filter(pairs.radial)


class Refinement(nn.Module):
    """Hierarchical tensor refinement of the edges, HTR (paper, equations 8 and 9)::

        t_ij += SiLU(W_t t_ij) * sum_l < rej(W_q X_i^l), rej(W_k^l X_j^l) >

    where rej removes the component along r_ij^l. As r_ij^l is a unit vector, the product of two
    rejections is ``<Q, K> - <Q, r> <K, r>``, so neither is formed.
    """

    def __init__(self, hidden: int, degrees: int):
        super().__init__()
        self.degrees = degrees
        self.gate = nn.Linear(hidden, hidden)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.keys = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(degrees))

    def forward(self, X: Tensor, t: Tensor, pairs: Pairs) -> Tensor:
        """``X [N, M, d]`` and ``t [B, n, n, d]`` to the new ``t``."""
        rows = degree_rows(self.degrees)
        query = pairs.pad(self.query(X))
        key = pairs.pad(torch.cat([w(X[:, part]) for w, part in zip(self.keys, rows)], dim=1))
        # one product [n, M] @ [M, n] for each molecule and channel
        products = (query.permute(0, 3, 1, 2) @ key.permute(0, 3, 2, 1)).permute(0, 2, 3, 1)
        for part in rows:
            direction = pairs.direction[..., part]
            along_query = direction @ query[:, :, part]
            along_key = direction.transpose(1, 2) @ key[:, :, part]
            products = products - along_query * along_key.transpose(1, 2)
        return t + F.silu(self.gate(t)) * products


class FeedForward(nn.Module):
    """Equivariant feed-forward block, EQFF (paper, equations 10 and 11).

    With ``P = X W`` and ``(m_1, m_2) = gamma_m [h | sqrt(sum_M P^2 + eps)]``: ``h += m_1`` and
    ``X += m_2 * P``.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.project = nn.Linear(hidden, hidden, bias=False)
        self.mix = perceptron(2 * hidden, hidden, 2 * hidden)

    def forward(self, h: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
        """``h [N, d]`` and ``X [N, M, d]`` to their new values."""
        projected = self.project(X)
        norm = (projected.square().sum(1) + STABLE).sqrt()
        first, second = self.mix(torch.cat([h, norm], dim=-1)).chunk(2, dim=-1)
        return h + first, X + second.unsqueeze(1) * projected


class GotenLayer(nn.Module):
    """Attention, feed-forward, and (``refines``) refinement of the edges for the next layer."""

    def __init__(self, hidden: int, degrees: int, refines: bool, **attention):
        super().__init__()
        self.attention = Attention(hidden, degrees=degrees, **attention)
        self.refinement = Refinement(hidden, degrees) if refines else None
        self.feed_forward = FeedForward(hidden)

    def forward(
        self, h: Tensor, X: Tensor | None, t: Tensor, pairs: Pairs
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The new ``h [N, d]``, ``X [N, M, d]`` and ``t [B, n, n, d]``."""
        h, X = self.attention(h, X, t, pairs)
        if self.refinement is not None:
            t = self.refinement(X, t, pairs)
        h, X = self.feed_forward(h, X)
        return h, X, t


class GotenNet(nn.Module):
    """An E(3)-equivariant transformer that predicts one scalar of a molecule.

    7,646,464 parameters at the defaults before the head (66,049 more in the scalar one).

    Args:
        num_outputs: 1.
        head: ``"scalar"`` (a sum over atoms), ``"dipole"`` (norm of a vector) or
            ``"spatial-extent"``.
        cutoff: radius of the neighbor lists, in Angstrom.
        hidden: channels d.
        layers: of message passing.
        heads: of the attention; must divide ``hidden``.
        degrees: highest degree L of the steerable channels, 1 or 2.
        radial: number of radial functions K.
        dropout: of the attention coefficients.
        smooth: whether the attention vanishes smoothly at the cutoff; false is the paper's form.
        value_heads: which values a head of the attention weighs: its channels of every part
            (``"parts"``), or, as the released code does, a piece of all parts put end to end
            (``"concatenated"``); see :class:`Attention`.
        elements: rows of the tables of atomic numbers.
    """

    CONSTRAINTS = (("hidden % heads == 0", "heads must divide hidden, {hidden}"),)

    def __init__(
        self,
        *,
        num_outputs: Literal[1] = 1,
        head: Literal["scalar", "dipole", "spatial-extent"] = "scalar",
        cutoff: Positive = 5.0,
        hidden: Width = 256,
        layers: Depth = 4,
        heads: Width = 8,
        degrees: Literal[1, 2] = 2,
        radial: Width = 64,
        dropout: Probability = 0.1,
        smooth: bool = True,
        value_heads: Literal["parts", "concatenated"] = "parts",
        elements: PositiveInt = 100,
    ):
        super().__init__()
        self.degrees = degrees
        self.basis = RadialBasis(radial, float(cutoff))
        self.start = Start(hidden, radial, elements)
        self.layers = nn.ModuleList(
            GotenLayer(
                hidden,
                degrees,
                refines=i < layers - 1,
                heads=heads,
                dropout=dropout,
                smooth=smooth,
                concatenated=value_heads == "concatenated",
            )
            for i in range(layers)
        )
        self.head: Any = build_head(head, hidden)
        self.non_hidden = (
            "start.atom",
            "start.neighbor",
            "start.neighbor_filter",
            "start.edge_filter",
            "head.output",
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def representations(self) -> dict[str, nn.Module]:
        """The invariant channels ``[N, d]`` after each layer, then the head's last ones."""
        layers = {f"layers.{i}": layer for i, layer in enumerate(self.layers)}
        return layers | self.head.representations()

    def symmetries(self) -> tuple[sym.Symmetry, ...]:
        """The streams' of h with t and of X, the layers', the start's, the head's; dropout off.

        Complete on generic data, but for rows of elements that no molecule has. Three families are
        exact only up to an eps: the scale before the layer norm, and those of the rows whose norms
        feed-forward blocks and the dipole's head take.
        """
        lists = gotennet_symmetries.Lists(
            self.start.edge_filter.out_features,
            len(self.layers),
            self.degrees,
            [layer.refinement is not None for layer in self.layers],
            self.head.reads(),
        )
        attention: Any = self.layers[0].attention
        found = gotennet_symmetries.start(lists.d)
        found += gotennet_symmetries.streams(lists, attention.heads, attention.concatenated)
        for i in range(lists.layers):
            found += gotennet_symmetries.layer(lists, i)
        return (*found, *gotennet_symmetries.dead(lists), *self.head.symmetries())

    def embed(
        self,
        z: Tensor,
        positions: Tensor,
        edge_index: Tensor,
        graph: Tensor,
        size: int,
        largest: int,
    ) -> tuple[Tensor, Tensor]:
        """Final channels of every atom: invariant ``h [N, d]`` and steerable ``X [N, M, d]``."""
        pairs = geometry(self.basis, self.degrees, positions, edge_index, graph, size, largest)
        h, t = self.start(z, pairs)
        X: Any = None  # zero, until the first layer
        for layer in self.layers:
            h, X, t = layer(h, X, t, pairs)
        return h, X

    def forward(
        self,
        z: Tensor,
        positions: Tensor,
        edge_index: Tensor,
        graph: Tensor,
        size: int,
        largest: int,
    ) -> Tensor:
        """Predictions ``[size, 1]``.

        Args:
            z: ``[N]`` atomic numbers of all molecules of the batch, one molecule after the other.
            positions: ``[N, 3]`` in Angstrom.
            edge_index: ``[2, E]`` neighbors and the atoms they neighbor, self-loops included.
            graph: ``[N]`` molecule of every atom.
            size: number of molecules.
            largest: atoms of the largest.
        """
        h, X = self.embed(z, positions, edge_index, graph, size, largest)
        return self.head(h, X, z, positions, graph, size)
