"""GINE (Hu et al. 2020): message passing on molecular graphs with typed atoms and bonds.

The defaults are the network tuned for Peptides-func by Toenshoff et al. (2023): 490,966 parameters
with the vocabularies of that data set.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from equiscape import symmetries as sym
from equiscape.models.blocks import neuron_symmetries
from equiscape.ops.chunks import node_counts
from equiscape.settings import Depth, NonNegativeInt, PositiveInt, Probability, Width

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


class CategoricalEncoder(nn.Module):
    """The sum of one learned vector for each categorical feature.

    Args:
        categories: number of values of each feature.
        channels: width of the vectors.
    """

    starts: Tensor

    def __init__(self, categories: Sequence[int], channels: int):
        super().__init__()
        self.categories = tuple(categories)
        self.table = nn.Embedding(sum(categories), channels)
        nn.init.xavier_uniform_(self.table.weight)
        starts = torch.tensor([0, *categories[:-1]]).cumsum(0)
        self.register_buffer("starts", starts, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """``[N, F]`` integers to ``[N, channels]``."""
        rows = features.long() + self.starts
        return sum(self.table(column) for column in rows.unbind(1))

    def symmetries(self, name: str) -> list[sym.Symmetry]:
        """What one feature's vectors gain, another's lose; ``name`` is the encoder's."""
        table, sizes = f"{name}.table.weight", self.categories
        if len(sizes) == 1:
            return []

        def element(state: sym.State, coefficients: Tensor) -> dict[str, Tensor]:
            gains = torch.cat([-coefficients.sum(0, keepdim=True), coefficients])
            counts = torch.tensor(sizes, device=gains.device)
            return {table: state[table] + gains.repeat_interleave(counts, 0)}

        shape = (len(sizes) - 1, self.table.embedding_dim)
        return [
            sym.Continuous(
                f"{name} sums",
                "table sums",
                (table,),
                shape=shape,
                dimension=shape[0] * shape[1],
                element=element,
            )
        ]


class WalkEncoder(nn.Module):
    """Return probabilities of random walks (Dwivedi et al. 2022), normalized and projected."""

    def __init__(self, steps: int, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(steps)
        self.project = nn.Linear(steps, channels)

    def forward(self, walks: Tensor) -> Tensor:
        """``[N, steps]`` to ``[N, channels]``."""
        return self.project(self.norm(walks))


class GINELayer(nn.Module):
    """``h_i + act(MLP(h_i + sum_j ReLU(h_j + e_ij)))``, with dropout before the addition."""

    def __init__(self, hidden: int, activation: str, dropout: float, norm: bool, residual: bool):
        super().__init__()
        from torch_geometric.nn import GINEConv  # seconds to import: only where it is used

        self.convolution = GINEConv(
            nn.Sequential(
                nn.Linear(hidden, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, hidden)
            )
        )
        self.norm = nn.BatchNorm1d(hidden) if norm else nn.Identity()
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.residual = residual

    def forward(self, h: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
        """``h [N, d]``, ``edge_index [2, E]``, ``e [E, d]`` to the new ``h``."""
        update = self.dropout(self.activation(self.norm(self.convolution(h, edge_index, e))))
        return h + update if self.residual else update


class Readout(nn.Module):
    """The mean or the sum over the nodes of each graph."""

    def __init__(self, name: str):
        super().__init__()
        self.mean = name == "mean"

    def forward(self, h: Tensor, graph: Tensor, size: int) -> Tensor:
        """``[N, d]`` to ``[size, d]``."""
        total = h.new_zeros(size, h.shape[1]).index_add(0, graph, h)
        if not self.mean:
            return total
        return total / node_counts(graph, size).clamp(min=1).unsqueeze(1)


class GINE(nn.Module):
    """A graph classifier or regressor.

    Args:
        num_outputs: labels or targets.
        node_categories, edge_categories: number of values of each feature of nodes and edges.
        walk_steps: random-walk encodings of each node; 0 for none.
        hidden: channels.
        layers: of message passing.
        walk_channels: channels that encode the random walks, of the ``hidden`` ones.
        activation: ``"gelu"`` or ``"relu"``.
        dropout: after every layer.
        norm: batch norm in every layer; the encoder of random walks has its own either way.
        residual: add every layer's input to its output.
        readout: ``"mean"`` or ``"sum"`` over the nodes.
        head: widths of the hidden layers after the readout.
    """

    CONSTRAINTS = (
        (
            "walk_steps == 0 or walk_channels < hidden",
            "walk_channels must be below hidden, {hidden}",
        ),
        (
            "micro_batch is None or micro_batch >= batch_size or not (norm or walk_steps)",
            "batch norm admits no training.micro_batch below training.batch_size",
        ),
    )

    def __init__(
        self,
        *,
        num_outputs: PositiveInt,
        node_categories: Sequence[PositiveInt],
        edge_categories: Sequence[PositiveInt],
        walk_steps: NonNegativeInt = 0,
        hidden: Width = 160,
        layers: Depth = 8,
        walk_channels: Width = 28,
        activation: Literal["gelu", "relu"] = "gelu",
        dropout: Probability = 0.1,
        norm: bool = False,
        residual: bool = True,
        readout: Literal["mean", "sum"] = "mean",
        head: Sequence[Width] = (160, 160),
    ):
        super().__init__()
        encoded = walk_channels if walk_steps else 0
        self.nodes = CategoricalEncoder(node_categories, hidden - encoded)
        self.walks = WalkEncoder(walk_steps, encoded) if walk_steps else None
        self.edges = CategoricalEncoder(edge_categories, hidden)
        self.layers = nn.ModuleList(
            GINELayer(hidden, activation, dropout, norm, residual) for _ in range(layers)
        )
        self.pool = Readout(readout)
        widths = (hidden, *head)
        self.head = nn.Sequential()
        for before, after in pairwise(widths):
            self.head.append(nn.Linear(before, after))
            self.head.append(ACTIVATIONS[activation]())
        self.output = nn.Linear(widths[-1], num_outputs)
        self.non_hidden = ("nodes", "walks", "edges", "output")

    def representations(self) -> dict[str, nn.Module]:
        """The features ``[N, d]`` after each layer, then pooled as ``[size, d]``."""
        return {f"layers.{i}": layer for i, layer in enumerate(self.layers)} | {"pool": self.pool}

    def symmetries(self) -> tuple[sym.Symmetry, ...]:
        """The encoders', the stream's, every layer's neurons and norms, the head's, the softmax's.

        The stream h is read through ``ReLU(h_j + e_ij)``: with ReLUs throughout each channel of it
        and of e has a positive scale; and where h reaches the readout through residuals alone, a
        mean readout lets h be shifted against e. Complete on generic data: a ReLU that is always
        on or always off adds flat directions, as does a category that no sample has, or a first
        layer of the head that is narrower than h after a sum readout.
        """
        last = len(self.layers) - 1
        first = "head.0" if len(self.head) else "output"
        found: list[sym.Symmetry] = [
            sym.softmax_shift("output", self.output.in_features),
            *self.nodes.symmetries("nodes"),
            *self.edges.symmetries("edges"),
        ]
        hidden, known = self.edges.table.embedding_dim, self.nodes.table.embedding_dim
        blocks = [("nodes", 0, known, [sym.Tie("nodes.table.weight", 1)])]
        if self.walks is not None:
            blocks.append(("walks", known, hidden - known, sym.rows("walks.project")))
            found += self._walk_symmetries()
        residual = bool(self.layers[0].residual)
        into = range(last + residual)  # layers whose output other layers read
        for name, start, size, writers in blocks:
            feeds = [*writers, sym.Tie("edges.table.weight", 1, start)]
            readers = [
                tie for i in range(last + 1) for tie in sym.columns(self._name(i, 0), start)
            ] + (sym.columns(first, start) if residual else [])
            found += self._stream(f"{name} stream", size, start, feeds, into, readers)
            if (residual and self.pool.mean) or (last == 0 and not residual):
                found.append(self._shift(name, start, size, readers))
        if not residual:
            found += self._stream("last stream", hidden, 0, [], [last], sym.columns(first, 0))
        for i, layer in enumerate(self.layers):
            relu = isinstance(layer.activation, nn.ReLU)
            readers = sym.columns(self._name(i, 2), 0)
            found += neuron_symmetries(
                self._name(i, 0), readers, hidden, True, None, None, homogeneous=relu
            )
            if isinstance(layer.norm, nn.BatchNorm1d):
                norm = f"layers.{i}.norm"
                found += sym.norm_gauges(self._name(i, 2), norm, hidden, True, layer.norm.eps)
        names = [f"head.{i}" for i in range(0, len(self.head), 2)] + ["output"]
        for name, reader in pairwise(names):
            before, activation = (self.head[int(name[5:]) + i] for i in (0, 1))
            found += neuron_symmetries(
                name,
                sym.columns(reader, 0),
                cast(nn.Linear, before).out_features,
                True,
                None,
                None,
                homogeneous=isinstance(activation, nn.ReLU),
            )
        return tuple(found)

    @staticmethod
    def _name(layer: int, place: int) -> str:
        """Name of a layer's first (0) or second (2) matrix."""
        return f"layers.{layer}.convolution.nn.{place}"

    def _stream(
        self,
        name: str,
        size: int,
        start: int,
        feeds: list[sym.Tie],
        layers: Iterable[int],
        readers: list[sym.Tie],
    ) -> list[sym.Symmetry]:
        """Permutation and, unless a GELU writes them, scale of what layers and feeds write."""
        moved: list[sym.Tie] = []
        scaled: list[sym.Tie] = []
        buffers: list[sym.Tie] = []
        for i in layers:
            rows = sym.rows(self._name(i, 2), start)
            norm = f"layers.{i}.norm"
            if isinstance(self.layers[i].norm, nn.BatchNorm1d):
                after = sym.affine(norm, start)
                buffers += sym.running(norm, start)
                moved, scaled = moved + rows + after, scaled + after
            else:
                moved, scaled = moved + rows, scaled + rows
        found: list[sym.Symmetry] = [
            sym.permutation(name, size, [*feeds, *moved, *readers], buffers)
        ]
        if not scaled or isinstance(self.layers[0].activation, nn.ReLU):
            up = [*feeds, *scaled]
            found.append(sym.scale(f"{name} scale", "stream scale", size, up, readers))
        return found

    def _walk_symmetries(self) -> list[sym.Symmetry]:
        """Scale and shift of each normalized return probability, which a linear map reads."""
        steps = cast(WalkEncoder, self.walks).norm.num_features
        read = sym.columns("walks.project", 0)
        raised = [(sym.Tie("walks.norm.bias"), 1.0)]
        taken = [(read[0], "walks.project.bias")]
        return [
            sym.scale("walks scale", "input scale", steps, sym.affine("walks.norm"), read),
            sym.shift("walks shift", "input shift", steps, raised, taken),
        ]

    def _shift(self, name: str, start: int, size: int, readers: list[sym.Tie]) -> sym.Continuous:
        """Raise h and lower e: the messages stay, and biases take back what else reads h."""
        if name == "nodes":  # each row of every feature by its share
            raised = [(sym.Tie("nodes.table.weight", 1), 1 / len(self.nodes.categories))]
        else:
            raised = [(sym.Tie("walks.project.bias"), 1.0)]
        raised.append((sym.Tie("edges.table.weight", 1, start), -1 / len(self.edges.categories)))
        taken = [(tie, f"{tie.parameter.removesuffix('weight')}bias") for tie in readers]
        return sym.shift(f"{name} stream shift", "stream shift", size, raised, taken)

    def forward(
        self,
        features: Tensor,
        edge_index: Tensor,
        edge_features: Tensor,
        walks: Tensor | None,
        graph: Tensor,
        size: int,
    ) -> Tensor:
        """Logits or predictions ``[size, num_outputs]``.

        Args:
            features: ``[N, F]`` categorical features of all nodes of the batch.
            edge_index: ``[2, E]`` sources and targets of the directed edges.
            edge_features: ``[E, G]`` categorical features.
            walks: ``[N, walk_steps]`` random-walk encodings, or None.
            graph: ``[N]`` graph of every node.
            size: number of graphs.
        """
        h = self.nodes(features)
        if self.walks is not None:
            h = torch.cat([h, self.walks(walks)], dim=1)
        e = self.edges(edge_features)
        for layer in self.layers:
            h = layer(h, edge_index, e)
        return self.output(self.head(self.pool(h, graph, size)))
