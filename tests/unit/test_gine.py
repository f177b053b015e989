"""GINE: the tuned network's exact size, symmetries, and second derivatives."""

from pathlib import Path

import pytest
import torch
import yaml

from equiscape.errors import ConfigError
from equiscape.models import build
from equiscape.models.gine import GINE

pytest.importorskip("torch_geometric")

ROOT = Path(__file__).resolve().parents[2]
PEPTIDES = {
    "num_outputs": 10,
    "node_categories": [119, 5, 12, 12, 10, 6, 6, 2, 2],
    "edge_categories": [5, 6, 2],
    "walk_steps": 20,
}
SMALL = {"num_outputs": 2, "node_categories": [4, 3], "edge_categories": [2], "walk_steps": 3}


def network(**settings):
    torch.manual_seed(0)
    settings = {
        "hidden": 12,
        "layers": 2,
        "walk_channels": 4,
        "head": [6],
        "dropout": 0.0,
    } | settings
    return GINE(**SMALL, **settings).double().eval()


def graphs(counts=(4, 3), seed=0):
    """Random inputs: rings of so many nodes, both directions of every edge."""
    generator = torch.Generator().manual_seed(seed)
    n, starts = sum(counts), torch.tensor([0, *counts[:-1]]).cumsum(0).tolist()
    pairs = [(s + i, s + (i + 1) % c) for s, c in zip(starts, counts) for i in range(c)]
    edge_index = torch.tensor(pairs + [(j, i) for i, j in pairs]).T
    features = torch.stack(
        [torch.randint(k, (n,), generator=generator) for k in SMALL["node_categories"]], dim=1
    )
    bonds = torch.randint(2, (len(pairs), 1), generator=generator).repeat(2, 1)
    walks = torch.rand(n, 3, dtype=torch.float64, generator=generator)
    graph = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return features, edge_index, bonds, walks, graph, len(counts)


def test_the_tuned_peptides_network_has_490_966_parameters():
    model = GINE(**PEPTIDES, **shipped("gine-peptides-func"))
    assert sum(p.numel() for p in model.parameters()) == 490_966


def shipped(task):
    """The model settings of a task in the study's configuration."""
    return yaml.safe_load((ROOT / "config.yaml").read_text())["tasks"][task].get("model", {})


def test_the_zinc_recipe_stays_within_500k():
    zinc = {**PEPTIDES, "num_outputs": 1, "node_categories": [28], "edge_categories": [4]}
    model = GINE(**zinc, **shipped("gine-zinc"))
    assert 480_000 < sum(p.numel() for p in model.parameters()) <= 500_000


def test_a_layer_is_its_equation():
    model = network()
    edge_index = graphs()[1]
    h = torch.randn(7, 12, dtype=torch.float64)
    e = torch.randn(edge_index.shape[1], 12, dtype=torch.float64)
    layer = model.layers[0]
    first, activation, second = layer.convolution.nn
    total = h.clone()
    for k, (j, i) in enumerate(edge_index.T.tolist()):
        total[i] += (h[j] + e[k]).relu()
    expected = h + torch.nn.functional.gelu(second(activation(first(total))))
    torch.testing.assert_close(layer(h, edge_index, e), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("readout", ["mean", "sum"])
def test_permuting_nodes_and_batching_change_nothing(readout):
    model = network(readout=readout)
    features, edge_index, bonds, walks, graph, size = graphs()
    before = model(features, edge_index, bonds, walks, graph, size)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order)
    after = model(features[order], place[edge_index], bonds, walks[order], graph[order], size)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)

    for number in range(size):
        nodes, edges = graph == number, graph[edge_index[0]] == number
        first = int(nodes.nonzero()[0])
        alone = model(
            features[nodes],
            edge_index[:, edges] - first,
            bonds[edges],
            walks[nodes],
            torch.zeros(int(nodes.sum()), dtype=torch.long),
            1,
        )
        torch.testing.assert_close(alone[0], before[number], rtol=0, atol=1e-12)


def test_hessian_vector_product_is_the_exact_hessian():
    model = network(hidden=4, walk_channels=1, head=[3])
    inputs = graphs()
    parameters = {k: v.detach() for k, v in model.named_parameters()}
    names, sizes = list(parameters), [p.numel() for p in parameters.values()]

    def loss(flat):
        parts = {n: part.view_as(parameters[n]) for n, part in zip(names, flat.split(sizes))}
        return torch.func.functional_call(model, parts, inputs).sin().sum()

    flat = torch.cat([p.flatten() for p in parameters.values()])
    exact = torch.autograd.functional.hessian(loss, flat)
    v = torch.randn(len(flat), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w = flat.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(w), w, create_graph=True)
    (product,) = torch.autograd.grad(gradient @ v, w)
    step = 1e-5
    grad = torch.func.grad(loss)
    difference = (grad(flat + step * v) - grad(flat - step * v)) / (2 * step)
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(product, exact @ v, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(product, difference, rtol=1e-4, atol=1e-6)


def test_representations_and_first_and_last_layers():
    model, seen = network(), {}
    for name, module in model.representations().items():
        module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.shape}))
    model(*graphs())
    assert seen == {"layers.0": (7, 12), "layers.1": (7, 12), "pool": (2, 12)}
    for name in model.non_hidden:
        model.get_submodule(name)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    assert all(p.dim() == 2 for p in matrices)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"activation": "tanh"}, "model.activation"),
        ({"readout": "max"}, "model.readout"),
        ({"layers": 1.5}, "model.layers"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"hid": 3}, "hidden"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        build("gine", SMALL, settings)
