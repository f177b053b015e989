"""What every point-cloud network promises: symmetry, size, contract, derivatives."""

import pytest
import torch
from torch import nn

from equiscape.errors import ConfigError
from equiscape.models import build

TINY = {
    "egnn": {"hidden": 6, "layers": 3, "k": 4, "head": [5]},
    "pointnet": {"channels": [4, 6, 8], "head": [5], "dropout": 0.0},
    "dgcnn": {"channels": [4, 6], "k": 4, "embedding": 8, "head": [6, 5], "dropout": 0.0},
}
architectures = pytest.mark.parametrize("architecture", TINY)


def tiny(architecture, train=False, seed=0):
    """A small network in float64 whose norms are away from their trivial initial values."""
    torch.manual_seed(seed)
    model = build(architecture, {"num_outputs": 3}, TINY[architecture]).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight)  # both signs
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
        elif isinstance(module, nn.Linear) and module.out_features == 1:
            nn.init.normal_(module.weight)  # EGNN's coordinate row starts near zero
    return model.train(train)


def clouds(batch=4, points=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, points, 3, generator=generator, dtype=torch.float64)


def labels(batch=4):
    return torch.arange(batch) % 3


def loss_of(model, points):
    return nn.functional.cross_entropy(model(points), labels(len(points)))


@pytest.mark.parametrize(
    ("architecture", "parameters"), [("pointnet", 696_168), ("dgcnn", 1_809_576)]
)
def test_default_sizes_are_the_published_ones(architecture, parameters):
    model = build(architecture, {"num_outputs": 40}, {})
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_egnn_layers_have_the_published_size():
    model = build("egnn", {"num_outputs": 40}, {"hidden": 64})
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in model.layers]
    phi_x = 64 * 64 + 64 + 64
    assert sizes == [29_120, 29_120, 29_120, 29_120 - phi_x]


@architectures
def test_every_learned_matrix_is_the_weight_of_a_linear_layer(architecture):
    model = build(architecture, {"num_outputs": 4}, {})
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    for name, parameter in model.named_parameters():
        assert parameter.dim() == 1 or (parameter.dim() == 2 and id(parameter) in linear), name


@architectures
@pytest.mark.parametrize("train", [False, True])
def test_invariant_under_permutations(architecture, train):
    model, points = tiny(architecture, train), clouds()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(model(points[:, order]), model(points), rtol=1e-9, atol=1e-9)


@architectures
def test_clouds_do_not_see_each_other_in_eval_mode(architecture):
    model, points = tiny(architecture), clouds()
    with torch.no_grad():
        single = torch.cat([model(cloud.unsqueeze(0)) for cloud in points])
        torch.testing.assert_close(model(points), single, rtol=1e-9, atol=1e-9)


@architectures
def test_first_and_last_layers_and_representations(architecture):
    model, points = tiny(architecture), clouds()
    modules = dict(model.named_modules())
    assert set(model.non_hidden) <= set(modules)
    assert modules[model.non_hidden[-1]].out_features == 3

    seen = {}
    for name, module in model.representations().items():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    model(points)
    assert list(seen) == list(model.representations())
    *layers, pooled = [out[0] if isinstance(out, tuple) else out for out in seen.values()]
    assert all(layer.shape[:2] == (4, 12) and layer.dim() == 3 for layer in layers)
    assert pooled.dim() == 2
    torch.testing.assert_close(model.head(pooled), model(points))


@architectures
def test_every_parameter_gets_a_gradient(architecture):
    model = tiny(architecture, train=True)
    loss_of(model, clouds()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def differentiate(model, points, direction):
    """Gradient and Hessian-vector product of the loss, flat."""
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(loss_of(model, points), parameters, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])
    product = torch.autograd.grad(flat @ direction, parameters)
    return flat.detach(), torch.cat([p.flatten() for p in product])


def shift(model, direction, step):
    with torch.no_grad():
        nn.utils.vector_to_parameters(
            nn.utils.parameters_to_vector(model.parameters()) + step * direction,
            model.parameters(),
        )


@architectures
@pytest.mark.parametrize("train", [False, True])
def test_second_derivatives_equal_differences_of_gradients(architecture, train):
    model, points, step = tiny(architecture, train), clouds(), 1e-6
    size = sum(p.numel() for p in model.parameters())
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(size, generator=generator, dtype=torch.float64)
    _, product = differentiate(model, points, direction)
    shift(model, direction, step)
    after, _ = differentiate(model, points, direction)
    shift(model, direction, -2 * step)
    before, _ = differentiate(model, points, direction)
    torch.testing.assert_close(product, (after - before) / (2 * step), rtol=1e-5, atol=1e-6)


@architectures
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_of_the_output_follows_the_weights(architecture, dtype):
    model, points = tiny(architecture, train=True).to(dtype), clouds().to(dtype)
    assert model(points).dtype == dtype


@architectures
def test_trains_under_autocast(architecture):
    model, points = tiny(architecture, train=True).float(), clouds(8).float()
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, points)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    if architecture != "dgcnn":  # whose graph may change with the rounding of its features
        torch.testing.assert_close(loss, loss_of(model, points), rtol=0.1, atol=0.1)


@architectures
def test_duplicate_points_keep_everything_finite(architecture):
    model = tiny(architecture, train=True)
    points = clouds()
    points[0] = 0.0  # a whole cloud in one place
    points[1, 6:] = points[1, :6]
    loss_of(model, points).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("architecture", ["egnn", "dgcnn"])
def test_clouds_smaller_than_k_are_refused(architecture):
    with pytest.raises(ConfigError, match=r"model\.k"):
        tiny(architecture)(clouds(points=3))


@architectures
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widht": 3}, "widht"),
        ({"num_outputs": 7}, "num_outputs"),
        ({"head": [0]}, r"model\.head"),
        ({"head": 12}, r"model\.head"),
        ({"dropout": 1.5}, r"model\.dropout"),
    ],
)
def test_bad_settings_are_named(architecture, settings, message):
    with pytest.raises(ConfigError, match=message):
        build(architecture, {"num_outputs": 3}, settings)


def test_unknown_architecture_is_named():
    with pytest.raises(ConfigError, match="pointnett"):
        build("pointnett", {"num_outputs": 3}, {})
