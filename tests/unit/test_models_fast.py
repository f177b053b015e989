"""The networks' fast forms against their plain ones: values, gradients, second derivatives."""

from copy import deepcopy

import pytest
import torch
from reference_models import Reference, edge_conv
from test_models_pointclouds import architectures, clouds, differentiate, labels, loss_of, tiny
from torch.func import functional_call, hessian, vmap

from equiscape.models import blocks, build, pointnet
from equiscape.models.dgcnn import EdgeConv
from equiscape.ops import messages, neighbors
from equiscape.ops.chunks import first_maximum
from equiscape.ops.messages import message_sums, plain_messages
from equiscape.ops.neighbors import Graph, knn, neighbor_max, neighbor_sum

MEDIUM = {
    "egnn": {"hidden": 32, "layers": 3, "k": 10},
    "pointnet": {"dropout": 0.0},
    "dgcnn": {"channels": [32, 48], "k": 10, "embedding": 128, "dropout": 0.0},
}


@pytest.fixture
def tiny_chunks(monkeypatch):
    """Every pass over clouds or nodes takes many chunks."""
    for module in (blocks, messages, neighbors, pointnet):
        monkeypatch.setattr(module, "chunk_size", lambda device: 10)


def close(actual, expected, tolerance):
    """Equal up to ``tolerance`` of the largest entry."""
    scale = expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * scale)


def medium(architecture, dtype, train):
    torch.manual_seed(0)
    model = build(architecture, {"num_outputs": 5}, MEDIUM[architecture])
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.weight, mean=0.5)  # both signs
            torch.nn.init.normal_(module.bias)
    return model.to(dtype).train(train)


def assert_same(model, plain, points, values, gradients):
    close(model(points), plain(points), values)
    target = torch.arange(len(points)) % 3
    for network in (model, plain):
        network.zero_grad()
        torch.nn.functional.cross_entropy(network(points), target).backward()
    for (name, p), q in zip(model.named_parameters(), plain.parameters()):
        scale = q.grad.abs().max().clamp_min(1e-5 * max(1.0, p.abs().max().item())).item()
        assert (p.grad - q.grad).abs().max() <= gradients * scale, name
    for (name, b), c in zip(model.named_buffers(), plain.buffers()):
        assert torch.allclose(b.double(), c.double(), rtol=10 * values, atol=values), name


@architectures
@pytest.mark.parametrize("train", [False, True])
def test_networks_equal_their_plain_form_in_float64(architecture, train):
    model = medium(architecture, torch.float64, train)
    plain = Reference(deepcopy(model))
    assert_same(model, plain, clouds(3, 200) / 2, values=1e-9, gradients=1e-9)


@pytest.mark.parametrize("architecture", ["egnn", "pointnet"])
@pytest.mark.parametrize("train", [False, True])
def test_networks_equal_their_plain_form_in_float32(architecture, train):
    # not DGCNN: rounding may swap neighbors in feature space, so its layers are compared below
    model = medium(architecture, torch.float32, train)
    plain = Reference(deepcopy(model))
    assert_same(model, plain, clouds(8, 200).float() / 2, values=1e-5, gradients=1e-4)


@pytest.mark.parametrize("channels", [3, 64])
@pytest.mark.parametrize("train", [False, True])
def test_edge_convolution_equals_its_plain_form_in_float32(channels, train):
    torch.manual_seed(0)
    layer = EdgeConv(channels, 64).train(train)
    torch.nn.init.normal_(layer.norm.weight)
    plain = deepcopy(layer)
    x = torch.randn(4, 300, channels) + 1.0
    graph = knn(x, 20, include_self=True)
    x, y = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours, theirs = layer(x, graph), edge_conv(plain, y, graph)
    close(ours, theirs, 1e-5)
    gradient = torch.randn_like(ours)
    ours.backward(gradient)
    theirs.backward(gradient)
    close(x.grad, y.grad, 1e-4)
    for p, q in zip(layer.parameters(), plain.parameters()):
        close(p.grad, q.grad, 1e-4)
    close(layer.norm.running_mean, plain.norm.running_mean, 1e-5)
    close(layer.norm.running_var, plain.norm.running_var, 1e-5)
    assert layer.norm.num_batches_tracked == plain.norm.num_batches_tracked


@architectures
@pytest.mark.parametrize("train", [False, True])
def test_chunks_change_nothing(architecture, train, tiny_chunks):
    model = tiny(architecture, train)
    plain = Reference(deepcopy(model))
    assert_same(model, plain, clouds(5), values=1e-10, gradients=1e-9)


@architectures
@pytest.mark.parametrize("train", [False, True])
def test_values_without_a_gradient_are_those_with_one(architecture, train):
    model, points = medium(architecture, torch.float64, train), clouds(4, 200) / 2
    with torch.no_grad():
        alone = model(points)
    close(alone, model(points).detach(), 1e-12)


@architectures
def test_second_derivatives_equal_the_plain_hessian(architecture, tiny_chunks):
    model, points = tiny(architecture), clouds()
    plain = Reference(deepcopy(model))
    parameters = dict(plain.named_parameters())
    sizes = [p.numel() for p in parameters.values()]

    def loss(flat):
        parts = [f.view_as(p) for f, p in zip(flat.split(sizes), parameters.values(), strict=True)]
        out = functional_call(plain, dict(zip(parameters, parts)), (points,))
        return torch.nn.functional.cross_entropy(out, labels())

    flat = torch.cat([p.detach().flatten() for p in parameters.values()])
    direction = torch.randn(len(flat), dtype=torch.float64)
    exact = torch.autograd.functional.hvp(loss, flat, direction)[1]
    close(differentiate(model, points, direction)[1], exact, 1e-9)


@architectures
def test_composes_with_function_transforms(architecture):
    model, points = tiny(architecture), clouds()
    name = next(iter(model.state_dict()))
    weight = model.state_dict()[name].clone()

    def loss(weight):
        out = functional_call(model, {name: weight}, (points,))
        return torch.nn.functional.cross_entropy(out, labels())

    exact = hessian(loss)(weight).reshape(weight.numel(), -1)
    weight.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(weight), weight, create_graph=True)
    identity = torch.eye(weight.numel(), dtype=torch.float64).view(-1, *weight.shape)
    (rows,) = torch.autograd.grad(gradient, weight, identity, is_grads_batched=True)
    close(rows.reshape_as(exact), exact, 1e-9)

    stack = torch.stack([weight.detach(), weight.detach() * 1.1])
    close(vmap(loss)(stack), torch.stack([loss(w) for w in stack]), 1e-10)


def graph_of(clouds_, points, k):
    return Graph(knn(clouds(clouds_, points), k, include_self=False))


def test_sums_over_neighbors_and_their_transpose():
    graph, x = graph_of(2, 5, 2), torch.randn(10, 2, dtype=torch.float64)
    adjacency = torch.zeros(10, 10, dtype=torch.float64)
    adjacency.scatter_(1, graph.sources, 1.0)
    close(neighbor_sum(x, graph), adjacency @ x, 1e-12)
    close(neighbor_sum(x, graph, transposed=True), adjacency.T @ x, 1e-12)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: neighbor_sum(x, graph), x)
    assert torch.autograd.gradgradcheck(lambda x: neighbor_sum(x, graph).pow(3), x)


def test_maxima_over_neighbors(tiny_chunks):
    graph, x = graph_of(2, 5, 2), torch.randn(10, 2, dtype=torch.float64)
    assert torch.equal(neighbor_max(x, graph), x[graph.sources].max(1).values)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: neighbor_max(x, graph), x)
    assert torch.autograd.gradgradcheck(lambda x: neighbor_max(x, graph).pow(3), x)


def test_a_tied_maximum_sends_its_gradient_to_one_neighbor():
    graph, x = graph_of(2, 6, 3), torch.ones(12, 2, dtype=torch.float64, requires_grad=True)
    neighbor_max(x, graph).sum().backward()
    assert x.grad.sum() == 24


@pytest.mark.parametrize("coordinate_update", [False, True])
def test_messages_have_exact_first_and_second_derivatives(coordinate_update, tiny_chunks):
    torch.manual_seed(0)
    graph, width = graph_of(2, 4, 2), 2
    shapes = [(8, width), (8, width), (8, 3), (width,), (width, width), (width,)]
    shapes += [(width, width), (width,), (1, width)] if coordinate_update else []
    tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    for ours, plain in zip(
        message_sums(graph, *tensors), plain_messages(graph.sources, *tensors), strict=True
    ):
        close(ours, plain, 1e-12)
    assert torch.autograd.gradcheck(lambda *t: message_sums(graph, *t), tensors)
    assert torch.autograd.gradgradcheck(lambda *t: message_sums(graph, *t), tensors)


def test_no_gradient_is_computed_for_fixed_coordinates():
    model, points = tiny("egnn", train=True), clouds().requires_grad_()
    loss_of(model, points).backward()
    assert points.grad.abs().max() > 0
    fixed = tiny("egnn", train=True)
    loss_of(fixed, clouds()).backward()
    for p, q in zip(model.parameters(), fixed.parameters()):
        close(p.grad, q.grad, 1e-12)


SPECIAL = (float("nan"), float("inf"), -float("inf"))


def same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maxima_of_nan_and_infinities_are_those_of_torch(dtype):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, 5, 7, generator=generator, dtype=dtype)
    place = torch.randint(0, 4, values.shape, generator=generator)
    for i, special in enumerate(SPECIAL):
        values[place == i] = special
    for rows in (values, values[place[:, 0, 0] == 3], torch.full_like(values, -float("inf"))):
        expected = rows.max(1)
        found = first_maximum(rows, torch.empty_like(rows))
        same(rows.gather(1, found.unsqueeze(1)).squeeze(1), expected.values)
        assert torch.equal(
            found[expected.values.isnan()], expected.indices[expected.values.isnan()]
        )
        scratch = rows.clone()
        assert torch.equal(first_maximum(scratch, scratch=scratch), found)
        same(blocks.max_points(rows), expected.values)
        same(blocks.max_points(rows.clone().requires_grad_()).detach(), expected.values)
    graph, x = graph_of(2, 5, 3), torch.randn(10, 3, generator=generator, dtype=dtype)
    x[[0, 3, 7], [0, 1, 2]] = torch.tensor(SPECIAL, dtype=dtype)
    for values in (x, x.clone().requires_grad_()):
        same(neighbor_max(values, graph).detach(), x[graph.sources].max(1).values)


@pytest.mark.parametrize("special", SPECIAL)
def test_layers_pass_nan_and_infinities_on_as_their_plain_forms(special, tiny_chunks):
    torch.manual_seed(0)
    for layer in (
        blocks.PointLayer(3, 8),
        pointnet.PooledLayer(3, 8),
        blocks.PointLayer(3, 8, 0.2),
    ):
        layer.eval().double()
        x = torch.randn(4, 6, 3, dtype=torch.float64)
        x[1, 2, 0] = special
        plain = layer.norm.__class__.__base__.forward(
            layer.norm, layer.linear(x).flatten(0, 1)
        ).view(4, 6, -1)
        plain = torch.where(plain > 0, plain, layer.slope * plain) if layer.slope else plain.relu()
        pooled = isinstance(layer, pointnet.PooledLayer)
        expected = plain.max(1).values if pooled else plain
        same(layer(x).detach(), expected.detach())
        with torch.no_grad():
            same(layer(x), expected)
    graph = graph_of(2, 4, 2)
    shapes = [(8, 2), (8, 2), (8, 3), (2,), (2, 2), (2,), (2, 2), (2,), (1, 2)]
    tensors = [torch.randn(s, dtype=torch.float64) for s in shapes]
    tensors[1][3, 1] = tensors[2][6, 0] = special
    for ours, plain in zip(message_sums(graph, *tensors), plain_messages(graph.sources, *tensors)):
        same(ours, plain)
