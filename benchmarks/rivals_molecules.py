"""The networks of molecules in the form that their released code has: gather, work, scatter.

Written from the published equations, with the weights of one of our networks, so both compute the
same function. Every edge has its own rows; sums over neighbors are scatters. A batch is a
``torch_geometric.data.Batch``, as its ``DataLoader`` collates it.
"""

import math
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import global_add_pool, global_mean_pool
from torch_geometric.utils import softmax

from equiscape.models.gine import GINE, CategoricalEncoder
from equiscape.models.gotennet import GotenNet, Refinement
from equiscape.models.gotennet_attention import Attention, spread
from equiscape.models.molecular_pairs import degree_rows, harmonics


class StockEncoder(nn.Module):
    """One table a categorical feature, as ``ogb``'s encoders have them."""

    def __init__(self, encoder: CategoricalEncoder):
        super().__init__()
        parts = encoder.table.weight.detach().clone().split(encoder.categories)
        self.tables = nn.ModuleList(nn.Embedding.from_pretrained(p, freeze=False) for p in parts)

    def forward(self, features: Tensor) -> Tensor:
        return sum(table(column) for table, column in zip(self.tables, features.long().unbind(1)))


class StockGINE(nn.Module):
    """GINE on collated graphs."""

    def __init__(self, model: GINE):
        super().__init__()
        self.nodes, self.edges = StockEncoder(model.nodes), StockEncoder(model.edges)
        self.walks = deepcopy(model.walks)
        self.layers = deepcopy(model.layers)  # torch-geometric's own GINEConv
        self.pool = global_mean_pool if model.pool.mean else global_add_pool
        self.head = nn.Sequential(*deepcopy(model.head), deepcopy(model.output))

    def forward(self, batch: Batch) -> Tensor:
        h, e = self.nodes(batch.x), self.edges(batch.edge_attr)
        if self.walks is not None:
            h = torch.cat([h, self.walks(batch.walks)], dim=1)
        for layer in self.layers:
            h = layer(h, batch.edge_index, e)
        return self.head(self.pool(h, batch.batch, batch.num_graphs))


class StockGotenNet(nn.Module):
    """GotenNet edge by edge; the neighbors of every batch are searched in it."""

    def __init__(self, model: GotenNet):
        super().__init__()
        self.degrees = model.degrees
        self.basis, self.start = deepcopy(model.basis), deepcopy(model.start)
        self.layers, self.head = deepcopy(model.layers), deepcopy(model.head)

    def forward(self, batch: Batch) -> Tensor:
        z, positions = batch.z, batch.pos
        source, target = edges = neighbors(positions, batch.batch, self.basis.cutoff)
        difference = positions[source] - positions[target]
        own = (source == target).unsqueeze(1)
        length = difference.square().sum(1, keepdim=True).masked_fill(own, 1.0).sqrt()
        radial, envelope = self.basis(length.masked_fill(own, 0.0))
        direction = harmonics(difference / length, self.degrees)
        start = self.start
        messages = start.neighbor_filter(radial) * start.neighbor(z)[source]
        around = scatter(messages * envelope.masked_fill(own, 0.0), target, len(z))
        h = start.combine(torch.cat([start.atom(z), around], dim=1))
        t = (h[target] + h[source]) * start.edge_filter(radial)
        X = h.new_zeros(len(z), direction.shape[1], h.shape[1])
        for layer in self.layers:
            h, X = attention(layer.attention, h, X, t, edges, envelope, direction)
            if layer.refinement is not None:
                t = refinement(layer.refinement, X, t, edges, direction)
            h, X = layer.feed_forward(h, X)
        return self.head(h, X, z, positions, batch.batch, batch.num_graphs)


def neighbors(positions: Tensor, graph: Tensor, cutoff: float) -> Tensor:
    """``[2, E]`` ordered pairs of one molecule within the cutoff, with self-loops."""
    near = (torch.cdist(positions, positions) < cutoff) & (graph[:, None] == graph)
    target, source = near.nonzero().unbind(1)
    return torch.stack([source, target])


def scatter(messages: Tensor, target: Tensor, atoms: int) -> Tensor:
    """``[E, ...]`` summed where they go."""
    return messages.new_zeros(atoms, *messages.shape[1:]).index_add(0, target, messages)


def attention(
    layer: Attention,
    h: Tensor,
    X: Tensor,
    t: Tensor,
    edges: Tensor,
    envelope: Tensor,
    direction: Tensor,
) -> tuple[Tensor, Tensor]:
    """Equations 4 to 7, a row an edge."""
    (source, target), parts, d = edges, layer.parts, h.shape[1]
    product = layer.query(h)[target] * layer.key(h)[source] * F.silu(layer.edge_key(t))
    scores = product.unflatten(-1, (layer.heads, -1)).sum(-1)
    if layer.smooth:  # weights of the softmax's terms
        scores = scores + envelope.log()
    alpha = layer.dropout(softmax(scores, target, num_nodes=len(h)) / math.sqrt(d))
    value, spatial = layer.value(h)[source], layer.spatial(h)[source]
    filters = layer.edge_filter(t) * envelope
    if layer.concatenated:
        weighted = value.unflatten(-1, (layer.heads, -1)) * alpha.unsqueeze(-1)
        output = weighted.flatten(1) + filters * spatial
    else:
        weighted = value.unflatten(-1, (parts, layer.heads, -1)) * alpha[:, None, :, None]
        output = weighted.flatten(1) + filters * spatial
    scalar, directed, tensor = output.unflatten(-1, (parts, -1)).split(
        [1, layer.degrees, layer.degrees], dim=1
    )
    moved = spread(directed, layer.degrees) * direction.unsqueeze(-1)
    moved = moved + spread(tensor, layer.degrees) * X[source]
    return h + scatter(scalar[:, 0], target, len(h)), X + scatter(moved, target, len(h))


def refinement(layer: Refinement, X: Tensor, t: Tensor, edges: Tensor, direction: Tensor) -> Tensor:
    """Equations 8 and 9, with the rejections formed."""
    (source, target), total = edges, 0
    query = layer.query(X)
    for key, rows in zip(layer.keys, degree_rows(layer.degrees)):
        r = direction[:, rows].unsqueeze(-1)
        q, k = query[:, rows][target], key(X[:, rows])[source]
        q, k = (v - r * (r * v).sum(1, keepdim=True) for v in (q, k))
        total = total + (q * k).sum(1)
    return t + F.silu(layer.gate(t)) * total
