"""GotenNet written edge by edge from the paper's equations: slow, and easy to compare with it.

Takes the weights of an :class:`equiscape.models.gotennet.GotenNet` in eval mode and loops over
atoms and their neighbors, one molecule at a time.
"""

import math

import torch
import torch.nn.functional as F

from equiscape.models.molecular_pairs import degree_rows, harmonics


def embed(model, z, positions, edge_index):
    """Final ``h [N, d]`` and ``X [N, M, d]``, as :meth:`GotenNet.embed`."""
    edges = [(int(j), int(i)) for j, i in edge_index.T]
    radial, envelope, direction = {}, {}, {}
    for j, i in edges:
        difference = positions[j] - positions[i]
        r = difference.norm()
        envelope[j, i] = (torch.cos(math.pi * r / model.basis.cutoff) + 1) / 2
        decay = torch.exp(-5 / model.basis.cutoff * r)
        gauss = torch.exp(-model.basis.width * (decay - model.basis.mean) ** 2)
        radial[j, i] = envelope[j, i] * gauss
        unit = difference / r if i != j else torch.zeros_like(difference)
        direction[j, i] = harmonics(unit, model.degrees)
    start = model.start
    around = torch.zeros(len(z), start.atom.embedding_dim, dtype=positions.dtype)
    for j, i in edges:
        if i != j:
            filters = start.neighbor_filter(radial[j, i]) * envelope[j, i]
            around[i] += start.neighbor(z[j]) * filters
    h = start.combine(torch.cat([start.atom(z), around], dim=1))
    t = {(j, i): (h[i] + h[j]) * start.edge_filter(radial[j, i]) for j, i in edges}
    X = torch.zeros(len(z), (model.degrees + 1) ** 2 - 1, h.shape[1], dtype=h.dtype)
    for layer in model.layers:
        h, X = attention(layer.attention, h, X, t, edges, envelope, direction)
        if layer.refinement is not None:
            t = refinement(layer.refinement, X, t, edges, direction)
        h, X = layer.feed_forward(h, X)
    return h, X


def attention(layer, h, X, t, edges, envelope, direction):
    """Equations 4 to 7."""
    d, heads = h.shape[1], layer.heads
    query, key = layer.query(h), layer.key(h)
    value = layer.value(h).view(len(h), layer.parts, d)
    spatial = layer.spatial(h).view(len(h), layer.parts, d)
    new_h, new_X = h.clone(), X.clone()
    for i in range(len(h)):
        mine = [(j, k) for j, k in edges if k == i]
        scores = torch.stack(
            [
                (query[i] * key[j] * F.silu(layer.edge_key(t[j, i]))).view(heads, -1).sum(1)
                for j, _ in mine
            ]
        ).exp()
        if layer.smooth:
            scores = scores * torch.stack([envelope[edge] for edge in mine]).unsqueeze(1)
        alpha = scores / scores.sum(0) / math.sqrt(d)
        for a, (j, _) in zip(alpha, mine):
            filters = layer.edge_filter(t[j, i]).view(layer.parts, d) * envelope[j, i]
            if layer.concatenated:  # heads of all the values in a row, as released
                weights = a.repeat_interleave(layer.parts * d // heads).view(layer.parts, d)
            else:
                weights = a.repeat_interleave(d // heads)
            o = weights * value[j] + filters * spatial[j]
            new_h[i] += o[0]
            for degree, rows in enumerate(degree_rows(layer.degrees), start=1):
                new_X[i, rows] += o[degree] * direction[j, i][rows, None]
                new_X[i, rows] += o[layer.degrees + degree] * X[j, rows]
    return new_h, new_X


def refinement(layer, X, t, edges, direction):
    """Equations 8 and 9, with the rejections formed."""
    new = {}
    for j, i in edges:
        total = 0
        for key, rows in zip(layer.keys, degree_rows(layer.degrees)):
            r = direction[j, i][rows, None]
            q, k = layer.query(X[i, rows]), key(X[j, rows])
            total = total + ((q - r * (r * q).sum(0)) * (k - r * (r * k).sum(0))).sum(0)
        new[j, i] = t[j, i] + F.silu(layer.gate(t[j, i])) * total
    return new
