"""GotenNet (Aykent & Xia, ICLR 2025) on sparse batches of molecules.

Every atom i carries invariant channels ``h_i [d]`` and steerable ones ``X_i [M, d]``, whose M rows
are the components of degree l = 1 .. L: under a rotation they turn by the Wigner matrix of their
degree. Every edge, from a neighbour j to i, carries invariant channels ``t_ij [d]``. A layer is

* attention (GATA), which moves messages along the edges,
* refinement of the edges (HTR) by inner products of the steerable channels at their two ends,
* a feed-forward block (EQFF), which mixes channels within an atom.

Products of degrees are inner products alone, so no Clebsch-Gordan coefficients are needed. All of
it is made of index operations whose derivatives are index operations again, so second derivatives
exist. The heads are in :mod:`equiscape.models.molecular_heads`.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscape.errors import ConfigError
from equiscape.models.blocks import fraction, whole
from equiscape.models.molecular_heads import build_head

STABLE = 1e-8  # inside square roots, whose slope at zero is infinite


class Edges(NamedTuple):
    """A batch of neighbour lists, self-loops included, with their geometry.

    Attributes:
        source, target: ``[E]`` nodes j and i.
        radial: ``[E, K]`` radial basis of the distance.
        cutoff: ``[E, 1]`` cosine envelope, 1 on a self-loop and 0 at the cutoff.
        direction: ``[E, M]`` harmonics of the unit vector from i to j, zero on a self-loop.
        proper: ``[E, 1]`` 0 on a self-loop, 1 elsewhere.
    """

    source: Tensor
    target: Tensor
    radial: Tensor
    cutoff: Tensor
    direction: Tensor
    proper: Tensor


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


def scatter_sum(messages: Tensor, index: Tensor, size: int) -> Tensor:
    """``out[i] = sum of messages[e] where index[e] = i``: ``[E, ...]`` to ``[size, ...]``."""
    return messages.new_zeros(size, *messages.shape[1:]).index_add(0, index, messages)


def edge_softmax(scores: Tensor, weights: Tensor, target: Tensor, size: int) -> Tensor:
    """``weights exp(scores)``, normalised over the edges that share a target.

    Args:
        scores: ``[E, heads]``.
        weights: ``[E, 1]``, at least one of them positive for each target.
        target: ``[E]`` in ``range(size)``.
    """
    index = target.unsqueeze(1).expand_as(scores)
    # The maximum cancels between numerator and denominator: it needs no derivative.
    maximum = scores.new_zeros(size, scores.shape[1]).scatter_reduce(
        0, index, scores.detach(), "amax", include_self=False
    )
    exponential = weights * (scores - maximum[target]).exp()
    return exponential / scatter_sum(exponential, target, size)[target]


class RadialBasis(nn.Module):
    """Exponential normal functions (Unke & Meuwly 2019) of the distance r, under the envelope::

    phi_k = fc(r) exp(-b (exp(-alpha r) - mu_k)^2),    alpha = 5 / cutoff
    """

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


class Start(nn.Module):
    """Node and edge features from atomic numbers and distances (paper, equations 1 to 3)::

    m_i  = sum_{j != i} A_nbr(z_j) * (W_ndp phi(r_ij)) fc(r_ij)
    h_i  = Lin SiLU LN Lin [A(z_i) | m_i]
    t_ij = (h_i + h_j) * W_e phi(r_ij)
    """

    def __init__(self, hidden: int, radial: int, elements: int):
        super().__init__()
        self.atom = nn.Embedding(elements, hidden)
        self.neighbour = nn.Embedding(elements, hidden)
        self.neighbour_filter = nn.Linear(radial, hidden)
        self.combine = nn.Sequential(
            nn.Linear(2 * hidden, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
        )
        self.edge_filter = nn.Linear(radial, hidden)

    def forward(self, z: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """``z [N]`` to ``h [N, d]`` and ``t [E, d]``."""
        filters = self.neighbour_filter(edges.radial) * (edges.cutoff * edges.proper)
        messages = self.neighbour(z)[edges.source] * filters
        around = scatter_sum(messages, edges.target, z.shape[0])
        h = self.combine(torch.cat([self.atom(z), around], dim=-1))
        return h, (h[edges.target] + h[edges.source]) * self.edge_filter(edges.radial)


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, SiLU, Linear."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


class Attention(nn.Module):
    """Geometry-aware tensor attention, GATA (paper, equations 4 to 7)::

        alpha = softmax_j(sum_c q_i k_j SiLU(W_re t_ij)) / sqrt(d)              in every head
        o     = alpha gamma_v(h_j) + (W_rs t_ij) gamma_s(h_j) fc = (o_s, o_d^l, o_t^l)
        h_i   += sum_j o_s
        X_i^l += sum_j (o_d^l r_ij^l + o_t^l X_j^l)

    ``smooth`` weighs the terms of the softmax by the envelope, so that an atom crossing the cutoff
    comes and goes gradually; the paper's softmax gives it a finite weight at once.
    """

    def __init__(self, hidden: int, heads: int, degrees: int, dropout: float, smooth: bool):
        super().__init__()
        self.heads, self.degrees, self.smooth = heads, degrees, smooth
        self.parts = 1 + 2 * degrees
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.edge_key = nn.Linear(hidden, hidden)
        self.value = perceptron(hidden, hidden, self.parts * hidden)
        self.spatial = perceptron(hidden, hidden, self.parts * hidden)
        self.edge_filter = nn.Linear(hidden, self.parts * hidden)
        self.dropout = nn.Dropout(dropout)

    def attend(self, h: Tensor, t: Tensor, edges: Edges) -> Tensor:
        """The attention coefficients ``[E, heads]``."""
        product = self.query(h)[edges.target] * self.key(h)[edges.source] * F.silu(self.edge_key(t))
        scores = product.unflatten(-1, (self.heads, -1)).sum(-1)
        weights = edges.cutoff if self.smooth else torch.ones_like(edges.cutoff)
        alpha = edge_softmax(scores, weights, edges.target, h.shape[0])
        return self.dropout(alpha / math.sqrt(h.shape[1]))

    def forward(
        self, h: Tensor, X: Tensor | None, t: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor]:
        """New ``h [N, d]`` and ``X [N, M, d]``; ``X`` is None where it is still zero."""
        alpha = self.attend(h, t, edges)
        value = self.value(h)[edges.source].unflatten(-1, (self.parts, self.heads, -1))
        attended = (alpha[:, None, :, None] * value).flatten(-2)
        filters = (self.edge_filter(t) * edges.cutoff).unflatten(-1, (self.parts, -1))
        output = attended + filters * self.spatial(h)[edges.source].unflatten(-1, (self.parts, -1))

        size = h.shape[0]
        h = h + scatter_sum(output[:, 0], edges.target, size)
        moved = []
        for degree, rows in enumerate(degree_rows(self.degrees), start=1):
            message = output[:, degree, None] * edges.direction[:, rows, None]
            if X is not None:
                message = message + output[:, self.degrees + degree, None] * X[edges.source, rows]
            moved.append(scatter_sum(message, edges.target, size))
        update = torch.cat(moved, dim=1)
        return h, update if X is None else X + update


def degree_rows(degrees: int) -> list[slice]:
    """The rows of each degree l among the M steerable components."""
    return [slice(degree**2 - 1, (degree + 1) ** 2 - 1) for degree in range(1, degrees + 1)]


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

    def forward(self, X: Tensor, t: Tensor, edges: Edges) -> Tensor:
        """``X [N, M, d]`` and ``t [E, d]`` to the new ``t``."""
        queries, products = self.query(X), 0
        for key, rows in zip(self.keys, degree_rows(self.degrees)):
            q = queries[edges.target, rows]
            k = key(X[:, rows])[edges.source]
            r = edges.direction[:, rows, None]
            products = products + (q * k).sum(1) - (q * r).sum(1) * (k * r).sum(1)
        return t + F.silu(self.gate(t)) * products


class FeedForward(nn.Module):
    """Equivariant feed-forward block, EQFF (paper, equations 10 and 11)::

    P = X W,   (m_1, m_2) = gamma_m [h | sqrt(sum_M P^2 + eps)],   h += m_1,   X += m_2 * P
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

    def __init__(
        self, hidden: int, heads: int, degrees: int, dropout: float, smooth: bool, refines: bool
    ):
        super().__init__()
        self.attention = Attention(hidden, heads, degrees, dropout, smooth)
        self.refinement = Refinement(hidden, degrees) if refines else None
        self.feed_forward = FeedForward(hidden)

    def forward(
        self, h: Tensor, X: Tensor | None, t: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The new ``h [N, d]``, ``X [N, M, d]`` and ``t [E, d]``."""
        h, X = self.attention(h, X, t, edges)
        if self.refinement is not None:
            t = self.refinement(X, t, edges)
        h, X = self.feed_forward(h, X)
        return h, X, t


class GotenNet(nn.Module):
    """An E(3)-equivariant transformer that predicts one scalar of a molecule.

    7,646,464 parameters at the defaults before the head (66,049 more in the scalar one).

    Args:
        num_outputs: 1.
        head: ``"scalar"`` (a sum over atoms), ``"dipole"`` (norm of a vector) or
            ``"spatial-extent"``.
        cutoff: radius of the neighbour lists, in Angstrom.
        hidden: channels d.
        layers: of message passing.
        heads: of the attention; must divide ``hidden``.
        degrees: highest degree L of the steerable channels, 1 or 2.
        radial: number of radial functions K.
        dropout: of the attention coefficients.
        smooth: whether the attention vanishes smoothly at the cutoff; false is the paper's form.
        elements: rows of the tables of atomic numbers.

    Raises:
        ConfigError: a setting is out of range.
    """

    def __init__(
        self,
        *,
        num_outputs: int = 1,
        head: str = "scalar",
        cutoff: float = 5.0,
        hidden: int = 256,
        layers: int = 4,
        heads: int = 8,
        degrees: int = 2,
        radial: int = 64,
        dropout: float = 0.1,
        smooth: bool = True,
        elements: int = 100,
    ):
        super().__init__()
        hidden, layers, heads = (
            whole("hidden", hidden),
            whole("layers", layers),
            whole("heads", heads),
        )
        if hidden % whole("heads", heads):
            raise ConfigError(f"model.heads: {heads} does not divide model.hidden, {hidden}.")
        if degrees not in (1, 2):
            raise ConfigError(f"model.degrees: {degrees!r} is neither 1 nor 2.")
        self.degrees = degrees
        self.basis = RadialBasis(whole("radial", radial), float(cutoff))
        self.start = Start(hidden, radial, whole("elements", elements))
        self.layers = nn.ModuleList(
            GotenLayer(
                hidden, heads, degrees, fraction("dropout", dropout), smooth, refines=i < layers - 1
            )
            for i in range(layers)
        )
        self.head = build_head(head, hidden, num_outputs)
        self.boundary = (
            "start.atom",
            "start.neighbour",
            "start.neighbour_filter",
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

    def geometry(self, positions: Tensor, edge_index: Tensor) -> Edges:
        """The geometry of the neighbour lists ``edge_index [2, E]``, rows source and target."""
        source, target = edge_index
        difference = positions[source] - positions[target]
        loop = (source == target).unsqueeze(1)
        # The norm has no derivative at zero: a self-loop takes it of 1 and discards it.
        length = difference.square().sum(1, keepdim=True).masked_fill(loop, 1.0).sqrt()
        radial, envelope = self.basis(length.masked_fill(loop, 0.0))
        direction = harmonics(difference / length, self.degrees)
        return Edges(source, target, radial, envelope, direction, (~loop).to(positions.dtype))

    def embed(self, z: Tensor, positions: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """Final channels of every atom: invariant ``h [N, d]`` and steerable ``X [N, M, d]``."""
        edges = self.geometry(positions, edge_index)
        h, t = self.start(z, edges)
        X = None
        for layer in self.layers:
            h, X, t = layer(h, X, t, edges)
        return h, X

    def forward(
        self, z: Tensor, positions: Tensor, edge_index: Tensor, graph: Tensor, size: int
    ) -> Tensor:
        """Predictions ``[size, 1]``.

        Args:
            z: ``[N]`` atomic numbers of all molecules of the batch.
            positions: ``[N, 3]`` in Angstrom.
            edge_index: ``[2, E]`` neighbours and the atoms they neighbour, self-loops included.
            graph: ``[N]`` molecule of every atom.
            size: number of molecules.
        """
        h, X = self.embed(z, positions, edge_index)
        return self.head(h, X, z, positions, graph, size)
