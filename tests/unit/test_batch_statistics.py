"""Batch statistics in float32: as accurate as stock batch norm, wherever the clouds lie."""

from copy import deepcopy

import pytest
import torch
from reference_models import Reference, edge_conv, norm
from torch.nn.functional import cross_entropy

from equiscape.models import build
from equiscape.models.blocks import PointLayer
from equiscape.models.dgcnn import EdgeConv
from equiscape.ops.moments import centered, edge_moments, moments
from equiscape.ops.neighbors import Graph, knn

PLACES = {
    "plain": lambda x, far: x,
    "far apart": lambda x, far: x + 100 * far,
    "on a line": lambda x, far: x + 100 * torch.arange(float(len(x))).view(-1, 1, 1),
    "moved": lambda x, far: x + 1000,
    "small": lambda x, far: x * 1e-3,
}
NETWORKS = {
    "pointnet": {"channels": [32, 32, 128], "head": [64], "dropout": 0.0},
    "dgcnn": {"channels": [32], "k": 10, "embedding": 64, "head": [32], "dropout": 0.0},
}


def clouds(place, seed, channels=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 100, channels, generator=generator, dtype=torch.float64) / 2
    far = torch.randn(8, 1, channels, generator=generator, dtype=torch.float64)
    return PLACES[place](x, far).float().double()


def error(actual, truth):
    return ((actual.double() - truth).abs().max() / truth.abs().max()).item()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("architecture", NETWORKS)
def test_logits_err_at_most_twice_as_much_as_those_of_stock_batch_norm(architecture, place):
    ours, stock = 0.0, 0.0
    for seed in range(3):
        torch.manual_seed(seed)
        model = build(architecture, {"num_outputs": 5}, NETWORKS[architecture]).train()
        x = clouds(place, seed)
        with torch.no_grad():
            truth = Reference(deepcopy(model).double())(x)
            ours += error(deepcopy(model)(x.float()), truth)
            stock += error(Reference(deepcopy(model))(x.float()), truth)
    assert ours < 2 * stock
    assert place != "moved" or ours < 0.1 * stock  # the graph's differences need no position


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["points", "edges"])
def test_gradients_err_at_most_twice_as_much_as_those_of_stock_batch_norm(kind, place):
    """Of single layers: the maxima of a network may choose another point at a rounding error."""
    ours, stock = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        x = clouds(place, seed)
        graph = knn(clouds("plain", seed), 10, include_self=True)
        target = torch.randint(0, 16, (8,))
        if kind == "points":
            layer = PointLayer(3, 16, 0.2)
            plain = lambda m, x: torch.nn.functional.leaky_relu(norm(m.norm, m.linear(x)), 0.2)  # noqa: E731
            fast = lambda m, x: m(x)  # noqa: E731
        else:
            layer = EdgeConv(3, 16)
            plain = lambda m, x: edge_conv(m, x, graph)  # noqa: E731, B023
            fast = lambda m, x: m(x, graph)  # noqa: E731, B023
        found = []
        for function, dtype in (
            (plain, torch.float64),
            (fast, torch.float32),
            (plain, torch.float32),
        ):
            module = deepcopy(layer).to(dtype).train()
            cross_entropy(function(module, x.to(dtype)).mean(1), target).backward()
            found.append([p.grad.double() for p in module.parameters()])
        truth, *rest = found
        for errors, gradients in zip((ours, stock), rest):
            errors.append(max(error(g, t) for g, t in zip(gradients, truth)))
    assert sum(ours) < 2 * sum(stock)


def test_moments_are_those_of_all_rows():
    x = clouds("far apart", 0, channels=4)
    weight = torch.randn(5, 4, dtype=torch.float64)
    u, centers = centered(x)
    found = moments(u, centers)
    rows = (x @ weight.mT).flatten(0, 1)
    mean, variance = found.linear(weight)
    torch.testing.assert_close(mean + weight @ found.origin, rows.mean(0))
    torch.testing.assert_close(variance, rows.var(0, correction=0))

    neighbors = knn(x, 6, include_self=True)
    both = torch.randn(5, 8, dtype=torch.float64)
    found = edge_moments(u.flatten(0, 1), centers, Graph(neighbors))
    senders = torch.stack([cloud[index] for cloud, index in zip(x, neighbors)])
    edges = torch.cat([senders - x.unsqueeze(2), x.unsqueeze(2).expand_as(senders)], dim=-1)
    rows = (edges @ both.mT).flatten(0, 2)
    mean, variance = found.linear(both)
    torch.testing.assert_close(mean + both @ found.origin, rows.mean(0))
    torch.testing.assert_close(variance, rows.var(0, correction=0))
    assert found.count == len(rows)
