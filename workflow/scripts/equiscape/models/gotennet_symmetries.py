"""The parameter symmetries of GotenNet; see :meth:`equiscape.models.gotennet.GotenNet.symmetries`.

Three sets of d channels run through the network: h with t (tied, since ``t = (h_i + h_j) * W phi``
holds channel by channel), X, and in every attention the products of queries and keys. Attention
weighs channels head by head, so permutations stay within a head, and heads move together.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from equiscape import symmetries as sym
from equiscape.symmetries import Symmetry, Tie, columns, rows

Read = tuple[Tie, str]  # columns, and the bias beside them


def read(module: str, start: int = 0) -> Read:
    """The columns of a linear layer from ``start`` on, and its bias."""
    return Tie(f"{module}.weight", 1, start), f"{module}.bias"


def hidden(first: str, second: str, size: int) -> sym.Permutation:
    """The neurons between two linear layers."""
    return sym.permutation(f"{first} neurons", size, [*rows(first), *columns(second, 0)])


def start(d: int) -> list[Symmetry]:
    """Of the first features of atoms."""
    combine, neighbors = "start.combine.0", [Tie("start.neighbor.weight", 1)]
    filters, around = rows("start.neighbor_filter"), columns(combine, d)

    def scaled(state: sym.State, coefficients: Tensor) -> dict[str, Tensor]:
        factor = coefficients.exp()
        return {f"{combine}.{part}": state[f"{combine}.{part}"] * factor for part in PARTS}

    ties = [*rows(combine), *sym.affine("start.combine.1"), *columns("start.combine.3", 0)]
    return [
        sym.common_shift(f"{combine} shift", "norm shift", combine, 2 * d),
        sym.Continuous(
            f"{combine} scale",
            "norm scale",
            tuple(f"{combine}.{part}" for part in PARTS),
            exact=False,
            shape=(),
            dimension=1,
            element=scaled,
        ),
        sym.basis_change(
            "start.atom basis", Tie("start.atom.weight", 1), Tie(f"{combine}.weight", 1), d
        ),
        sym.shift(
            "start.atom shift",
            "input shift",
            d,
            [(Tie("start.atom.weight", 1), 1.0)],
            [read(combine)],
        ),
        sym.scale("start.neighbor filter scale", "product scale", d, neighbors, filters),
        sym.scale("start.neighbor scale", "neuron scale", d, neighbors, around),
        sym.permutation("start.atom", d, [Tie("start.atom.weight", 1), *columns(combine, 0)]),
        sym.permutation("start.neighbor", d, [*neighbors, *filters, *around]),
        sym.permutation(f"{combine} neurons", d, ties),
    ]


PARTS = ("weight", "bias")


class Lists:
    """The ties of the three sets of channels, gathered layer by layer.

    Args:
        d: channels.
        layers, degrees, heads: of the network.
        refined: which layers refine the edges.
        head: ``(read_h, read_X)`` of the head: where it reads h and X.
    """

    def __init__(
        self,
        d: int,
        layers: int,
        degrees: int,
        refined: list[bool],
        head: tuple[list[Read], list[Tie]],
    ):
        self.d, self.layers, self.degrees = d, layers, degrees
        self.parts = 1 + 2 * degrees
        self.refined, self.head = refined, head

    def attention(self, layer: int) -> str:
        """Name of a layer's attention."""
        return f"layers.{layer}.attention"

    def outputs(self, layer: int, parts: range, filters: bool) -> list[Tie]:
        """Rows of the attention's values, spatial values and, if asked, filters, in some parts."""
        names = ["value.2", "spatial.2"] + ["edge_filter"] * filters
        return [
            tie
            for name in names
            for part in parts
            for tie in rows(f"{self.attention(layer)}.{name}", part * self.d)
        ]

    def attention_reads(self, layer: int) -> list[Read]:
        """Where a layer's attention reads h."""
        names = ("query", "key", "value.0", "spatial.0")
        return [read(f"{self.attention(layer)}.{name}") for name in names]

    def mix(self, layer: int) -> str:
        """Name of the perceptron of a layer's feed-forward block."""
        return f"layers.{layer}.feed_forward.mix"

    def reads(self, layer: int, after_attention: bool) -> list[Read]:
        """Where h is read from a layer on, its attention left out if ``after_attention``."""
        found = [] if after_attention else self.attention_reads(layer)
        found.append(read(f"{self.mix(layer)}.0"))
        for later in range(layer + 1, self.layers):
            found += [*self.attention_reads(later), read(f"{self.mix(later)}.0")]
        return found + self.head[0]

    def h_writers(self, filters: bool) -> list[Tie]:
        """Rows that write h; those that only multiply (filters) if asked."""
        found = rows("start.combine.3")
        for i in range(self.layers):
            found += self.outputs(i, range(1), filters) + rows(f"{self.mix(i)}.2")
        return found

    def h_readers(self) -> list[Tie]:
        """Columns that read h."""
        return [tie for tie, _ in self.reads(0, after_attention=False)]

    def t_readers(self) -> list[Tie]:
        """Columns that read t."""
        found = []
        for i in range(self.layers):
            found += columns(f"{self.attention(i)}.edge_key", 0)
            found += columns(f"{self.attention(i)}.edge_filter", 0)
            if self.refined[i]:
                found += columns(f"layers.{i}.refinement.gate", 0)
        return found

    def queries(self, layer: int) -> list[Tie]:
        """Rows of a refinement's queries."""
        return rows(f"layers.{layer}.refinement.query", biased=False)

    def keys(self, layer: int) -> list[Tie]:
        """Rows of a refinement's keys of every degree."""
        names = [f"layers.{layer}.refinement.keys.{i}" for i in range(self.degrees)]
        return [tie for name in names for tie in rows(name, biased=False)]

    def X_writers(self) -> list[Tie]:
        """Rows that write X."""
        found = []
        for i in range(self.layers):
            found += self.outputs(i, range(1, 1 + self.degrees), False)
            found += rows(f"{self.mix(i)}.2", self.d)
        return found

    def X_readers(self) -> list[Tie]:
        """Columns that read X."""
        found = []
        for i in range(self.layers):
            found += columns(f"layers.{i}.feed_forward.project", 0)
            if self.refined[i]:
                found += [replace(tie, axis=1) for tie in self.queries(i) + self.keys(i)]
        return found + self.head[1]

    def h_permuted(self) -> list[Tie]:
        """All that moves with the channels of h and t."""
        found = [*self.h_writers(True), *self.h_readers(), *self.t_readers()]
        found += rows("start.edge_filter")
        for i in range(self.layers):
            if self.refined[i]:
                found += [*rows(f"layers.{i}.refinement.gate"), *self.queries(i), *self.keys(i)]
        return found

    def X_permuted(self) -> list[Tie]:
        """All that moves with the channels of X."""
        found = self.X_readers()
        for i in range(self.layers):
            found += self.outputs(i, range(1, self.parts), True)
            found += rows(f"layers.{i}.feed_forward.project", biased=False)
            found += columns(f"{self.mix(i)}.0", self.d) + rows(f"{self.mix(i)}.2", self.d)
        return found

    def products(self, layer: int) -> list[Tie]:
        """Rows of an attention's queries, keys and what the edges multiply them by."""
        names = ("query", "key", "edge_key")
        return [tie for name in names for tie in rows(f"{self.attention(layer)}.{name}")]


def streams(lists: Lists, heads: int, concatenated: bool) -> list[Symmetry]:
    """Scales and permutations of h with t, of X, and of the products of queries and keys."""
    d = lists.d
    down = [*lists.h_readers(), *rows("start.edge_filter")]
    queries = [tie for i in range(lists.layers) if lists.refined[i] for tie in lists.queries(i)]
    found: list[Symmetry] = [
        sym.scale("h scale", "stream scale", d, lists.h_writers(False), down),
        sym.scale(
            "t scale", "stream scale", d, [*rows("start.edge_filter"), *queries], lists.t_readers()
        ),
        sym.scale("X scale", "stream scale", d, lists.X_writers(), lists.X_readers()),
    ]
    h, X = lists.h_permuted(), lists.X_permuted()
    products = [lists.products(i) for i in range(lists.layers)]
    within = (d // heads,) * heads
    parts = range(lists.parts)
    blocks_h = head_blocks(d, heads, lists.parts, parts[:1]) if concatenated else within
    blocks_X = head_blocks(d, heads, lists.parts, parts[1:]) if concatenated else within
    found += [
        sym.permutation("h and t", d, h, blocks=blocks_h),
        sym.permutation("X", d, X, blocks=blocks_X),
    ]
    found += [
        sym.permutation(f"{lists.attention(i)} products", d, ties, blocks=within)
        for i, ties in enumerate(products)
    ]
    if heads > 1 and not concatenated:
        ties = [*h, *X, *(tie for layer in products for tie in layer)]
        wide = [replace(tie, width=d // heads) for tie in ties]
        found.append(sym.permutation("heads", heads, wide))
    return found


def head_blocks(d: int, heads: int, parts: int, among: range) -> tuple[int, ...]:
    """Runs of channels that share a head in each part, where heads cut the parts put end to end.

    Args:
        d, heads: channels and heads.
        parts: of d channels each, of which every head takes ``parts d / heads`` in a row.
        among: the parts that the channels lie in.
    """
    size = parts * d // heads
    head = (torch.tensor(list(among)).unsqueeze(1) * d + torch.arange(d)) // size
    change = (head[:, 1:] != head[:, :-1]).any(0).nonzero().flatten() + 1
    ends = torch.cat([torch.tensor([0]), change, torch.tensor([d])])
    return tuple((ends[1:] - ends[:-1]).tolist())


def layer(lists: Lists, i: int) -> list[Symmetry]:
    """Of one layer."""
    d, name, mix = lists.d, lists.attention(i), lists.mix(i)
    live = (lists.parts if i else 1 + lists.degrees) * d
    project = f"layers.{i}.feed_forward.project"
    found: list[Symmetry] = [
        sym.scale(
            f"{name} products scale", "product scale", d, rows(f"{name}.query"), rows(f"{name}.key")
        ),
        sym.scale(
            f"{name} filters scale",
            "product scale",
            live,
            rows(f"{name}.edge_filter"),
            rows(f"{name}.spatial.2"),
        ),
        # the coefficients of attention sum to 1 / sqrt(d)
        sym.shift(
            f"{name} shift",
            "stream shift",
            d,
            [(Tie(f"{name}.value.2.bias"), math.sqrt(d))],
            lists.reads(i, after_attention=True),
        ),
        sym.shift(
            f"{mix} shift",
            "stream shift",
            d,
            [(Tie(f"{mix}.2.bias"), 1.0)],
            lists.reads(i + 1, after_attention=False) if i + 1 < lists.layers else lists.head[0],
        ),
        sym.scale(
            f"{project} scale",
            "norm scale",
            d,
            rows(project, biased=False),
            [*columns(f"{mix}.0", d), *rows(f"{mix}.2", d)],
            exact=False,
        ),
        hidden(f"{name}.value.0", f"{name}.value.2", d),
        hidden(f"{name}.spatial.0", f"{name}.spatial.2", d),
        hidden(f"{mix}.0", f"{mix}.2", d),
    ]
    if lists.refined[i]:
        found.append(
            sym.scale(
                f"layers.{i}.refinement scale", "product scale", d, lists.queries(i), lists.keys(i)
            )
        )
    return found


def dead(lists: Lists) -> list[Symmetry]:
    """What the first layer multiplies by X = 0, and what the last one writes that is not read."""
    d = lists.d
    unused = lists.degrees * d
    ties = [
        tie
        for name in ("value.2", "spatial.2", "edge_filter")
        for tie in rows(f"{lists.attention(0)}.{name}", (1 + lists.degrees) * d)
    ]
    counts = [d, 1] * 3
    found: list[Symmetry] = [sym.dead("first tensor parts", ties, [unused] * 6, counts)]
    if not lists.head[1]:
        last = rows(f"{lists.mix(lists.layers - 1)}.2", d)
        found.append(sym.dead("last steerable update", last, [d, d], [d, 1]))
    return found
