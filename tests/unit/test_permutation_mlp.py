"""The network, its plane, and the facts about the two that theory gives exactly."""

import numpy as np
import pytest
import torch
from permutation_case import (
    GROUPS,
    arrays,
    forward,
    natural_parameters,
    network,
    teacher_task,
    trapped,
)

from equiscape.data import teacher
from equiscape.errors import ConfigError
from equiscape.groups import (
    intertwiner_dimension,
    parse_group,
    parse_representation,
)
from equiscape.groups.plane import Plane
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.plane import plane_curvature
from equiscape.optim import build_optimizer
from equiscape.training.plane import PlaneKeeper

HIDDEN = [["regular"], ["natural + 2 trivial"], ["2 natural", "regular + trivial"]]


def matrices(representation):
    return [torch.as_tensor(representation.matrix(g)) for g in range(representation.group.order)]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("outputs", ["trivial", "natural"])
def test_a_held_network_commutes_with_the_group(group, hidden, outputs):
    model = network(group, outputs=outputs, hidden=hidden, output_bias=True)
    layers = [matrices(representation) for representation in model.layer_representations]
    for linear, before, after in zip(model.layers, layers, layers[1:]):
        for rho, sigma in zip(before, after):
            assert (sigma @ linear.weight - linear.weight @ rho).abs().max() <= 1e-14
            assert (sigma @ linear.bias - linear.bias).abs().max() <= 1e-14
    x = torch.randn(5, model.layer_representations[0].width, dtype=torch.float64)
    for rho, sigma in zip(layers[0], layers[-1]):
        torch.testing.assert_close(model(x @ rho.mT), model(x) @ sigma.mT, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["constrained", "free"])
def test_the_plane_has_the_dimension_of_the_double_cosets(mode):
    model = network("D4", hidden=["natural + regular"], mode=mode)
    one, two, three = model.layer_representations
    trivial = parse_representation(model.group, "trivial")
    expected = (
        intertwiner_dimension(one, two)
        + intertwiner_dimension(two, trivial)
        + intertwiner_dimension(two, three)
    )
    basis = model.plane.basis()
    assert model.plane.dimension == basis.shape[1] == expected
    torch.testing.assert_close(
        basis.mT @ basis, torch.eye(expected, dtype=torch.float64), rtol=0, atol=1e-15
    )
    # the projection is the orthogonal one, and a free network is off the plane
    vector = torch.cat([p.detach().flatten() for p in model.parameters()])
    projected = model.plane.project(dict(model.named_parameters()))
    flat = torch.cat([p.detach().flatten() for p in projected.values()])
    torch.testing.assert_close(flat, basis @ (basis.mT @ vector), rtol=1e-13, atol=1e-14)
    distance = model.plane.distance(dict(model.named_parameters())).item()
    assert distance == pytest.approx(((vector - flat).norm() / vector.norm()).item(), abs=1e-15)
    assert (distance > 0.3) == (mode == "free")


def test_the_plane_serves_several_networks_at_once():
    model = network("S3", hidden=["2 natural"], mode="free")
    stack = {n: torch.stack([p, 2 * p, p + 1]).detach() for n, p in model.named_parameters()}
    for name, value in model.plane.project(stack).items():
        for row, own in zip(value, stack[name]):
            assert torch.equal(row, model.plane.project_one(name, own))
    assert model.plane.distance(stack).shape == (3,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": "regular"}, "list"),
        ({"hidden": []}, "list"),
        ({"hidden": ["naturel"]}, "did you mean 'natural'"),
        ({"activation": "gelu"}, "activation"),
        ({"mode": "open"}, "mode"),
        ({"noise": -1.0}, "noise"),
        ({"release": 1.5}, "release"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        network(**settings)


# F1: the gradient lies in the plane, and the Hessian does not leave it


@pytest.mark.parametrize("activation", ["tanh", "silu"])
def test_gradient_and_hessian_respect_the_plane(tmp_path, activation):
    model = {"hidden": ["natural + trivial"], "activation": activation}
    task = teacher_task(tmp_path, model, group="S3", hidden=["regular"], outputs="natural")
    network = task.build(3)
    loss = TrainingLoss(task, network, samples=None, batch_size=10**6, seed=0, dtype="float64")
    gradient = loss.value_and_gradient()[1]
    hessian = loss.operator(torch.eye(loss.size, dtype=torch.float64))
    curvature = plane_curvature(network.plane, loss.names, gradient, hessian)
    assert curvature.gradient_inside > 1e-3
    assert curvature.gradient_across < 1e-14
    assert curvature.coupling < 1e-14
    # both blocks together have the whole spectrum
    both = torch.cat([curvature.inside, curvature.across]).sort().values
    torch.testing.assert_close(both, torch.linalg.eigvalsh(hessian), rtol=1e-9, atol=1e-12)


def test_on_part_of_an_orbit_the_gradient_leaves_the_plane(tmp_path):
    """So that the test above could fail."""
    task = teacher_task(tmp_path, {"hidden": ["natural"]}, closed=False)
    network = task.build(3)
    task.loss(network, next(task.batches("train"))).backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert network.plane.distance(gradients) > 1e-2


# F2: hidden units in another order: another plane, the same function


def test_another_order_of_units_is_another_plane_of_the_same_functions():
    rng = np.random.default_rng(0)
    model = network("S3", hidden=["natural + sign"])
    x = rng.normal(size=(7, 3))
    original = arrays(model)
    order = np.array([3, 0, 4, 1, 2])
    moved = {
        "layers.0.weight": original["layers.0.weight"][order],
        "layers.0.bias": original["layers.0.bias"][order],
        "layers.1.weight": original["layers.1.weight"][:, order],
    }
    np.testing.assert_allclose(
        teacher.apply(moved, x, 2, "tanh"), teacher.apply(original, x, 2, "tanh"), atol=1e-14
    )
    tensors = {name: torch.as_tensor(value) for name, value in moved.items()}
    assert model.plane.distance(tensors) > 0.1  # not this plane ...
    # ... but that of P rho P^-1: labels moved with the rows
    labels = model.plane.labels
    conjugate = Plane(
        {
            "layers.0.weight": labels["layers.0.weight"][order],
            "layers.0.bias": labels["layers.0.bias"][order],
            "layers.1.weight": labels["layers.1.weight"][:, order],
        }
    )
    assert conjugate.distance(tensors) < 1e-15


# F3, F4: the natural representation of S_n, f(x) = c 1^T tanh(W x + d 1)


@pytest.mark.parametrize("n", [3, 4])
def test_no_derivative_changes_the_sign_of_alpha(n):
    x = torch.randn(9, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = torch.tensor([0.0, 0.7, 1.0, 0.3], dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda t: forward(natural_parameters(t, n), x)[:, 0])(theta)
    assert jacobian[:, 0].abs().max() < 1e-15
    assert jacobian[:, 1:].abs().max() > 0.1
    flipped = torch.tensor([-1.0, 0.7, 1.0, 0.3], dtype=torch.float64)
    upright = flipped.abs()
    difference = forward(natural_parameters(flipped, n), x) - forward(
        natural_parameters(upright, n), x
    )
    assert difference.abs().max() > 0.05  # for two points they would be one function


@pytest.fixture(scope="module")
def trap():
    return trapped()


def curvature_at(plane, loss, parameters):
    names = list(plane.labels)
    shapes = [parameters[name].shape for name in names]
    sizes = [shape.numel() for shape in shapes]

    def flat_loss(vector):
        parts = [p.view(s) for p, s in zip(vector.split(sizes), shapes)]
        return loss(dict(zip(names, parts)))

    vector = torch.cat([parameters[name].flatten() for name in names])
    gradient, hessian = torch.func.grad(flat_loss)(vector), torch.func.hessian(flat_loss)(vector)
    return plane_curvature(plane, names, gradient, hessian), vector, flat_loss


def test_the_trap_is_a_minimum_of_the_plane_and_a_saddle_of_the_perceptron(trap):
    found, plane, loss = trap.found, trap.plane, trap.loss
    assert found.x[0] == pytest.approx(-0.519, abs=1e-3)
    assert found.fun == pytest.approx(0.1206, abs=1e-4)
    curvature, vector, flat_loss = curvature_at(
        plane, loss, natural_parameters(torch.tensor(found.x), 4)
    )
    assert plane.dimension == len(curvature.inside) == 4
    assert curvature.gradient_inside < 1e-7
    assert curvature.gradient_across < 1e-14
    assert curvature.coupling < 1e-14
    np.testing.assert_allclose(curvature.inside, [0.0068, 0.091, 1.32, 1.90], rtol=0.02)
    assert curvature.kind() == "saddle across"
    # eigenvalues come with the multiplicities of irreps of S4: 3, 2 or 1
    negative = curvature.across[curvature.across < -1e-6]
    expected = [-0.0487] * 3 + [-0.0230] * 2 + [-0.0052] * 3
    np.testing.assert_allclose(negative, expected, rtol=0.02)
    assert flat_loss(vector + 0.05 * curvature.escape) < found.fun


# a saddle in closed form: linear units, target (a I + b J) x, hidden representation 2 trivial


def linear_saddle(n=3, a=0.8, b=0.3):
    """The best network of two trivial units: the second one idle, the first fits the mean."""
    group = parse_group(f"S{n}")
    texts = ("natural", "2 trivial", "natural")
    plane = Plane.of_layers([parse_representation(group, t) for t in texts], [False, False])
    target = a * torch.eye(n, dtype=torch.float64) + b
    root = (a + n * b) ** 0.5
    first = torch.zeros(2, n, dtype=torch.float64)
    first[0] = root / n**0.5
    parameters = {"layers.0.weight": first, "layers.1.weight": first.mT.clone()}

    def loss(p):  # the mean squared error for inputs of unit covariance
        return (p["layers.1.weight"] @ p["layers.0.weight"] - target).square().sum() / n

    return plane, loss, parameters


def test_a_saddle_that_is_known_in_closed_form():
    n, a = 3, 0.8
    plane, loss, parameters = linear_saddle(n, a)
    curvature, vector, flat_loss = curvature_at(plane, loss, parameters)
    assert flat_loss(vector).item() == pytest.approx((n - 1) * a**2 / n, rel=1e-14)
    assert curvature.gradient_inside < 1e-14
    assert curvature.gradient_across < 1e-14
    assert curvature.inside[0] > -1e-14  # no negative curvature within
    lowest = curvature.across[curvature.across < -1e-6]
    torch.testing.assert_close(lowest, torch.full((n - 1,), -2 * a / n).double())
    assert curvature.kind() == "saddle across"
    for sign in (1, -1):
        assert flat_loss(vector + sign * 0.1 * curvature.escape) < flat_loss(vector) - 1e-4


# F5: gradient descent leaves the saddle at the rate of its curvature


def test_steps_to_escape_grow_with_the_logarithm_of_the_noise():
    plane, loss, parameters = linear_saddle()
    curvature, vector, flat_loss = curvature_at(plane, loss, parameters)
    lr, start = 0.1, flat_loss(vector)
    gradient = torch.func.grad(flat_loss)
    steps = []
    for noise in (1e-4, 1e-6, 1e-8):
        point, count = vector + noise * curvature.escape, 0
        while flat_loss(point) > 0.9 * start:
            point, count = point - lr * gradient(point), count + 1
        steps.append(count)
    predicted = np.log(100) / np.log1p(lr * -curvature.across[0].item())
    assert np.abs(np.diff(steps) - predicted).max() <= 1.0


# F6: the optimizers stay on the plane but for rounding, and the projection removes that


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_every_optimizer_steps_within_the_plane(tmp_path, name):
    task = teacher_task(tmp_path, {"hidden": ["2 natural"]}, hidden=["regular"])
    model = task.build(1)
    settings = {"min_side": 1, "ns_dtype": "float32"} if name == "muon" else {}
    optimizer, _ = build_optimizer(model, {"class": name, "settings": settings}, 1e-2, 0)
    keeper = PlaneKeeper(model, [1], 100, torch.device("cpu"))
    batch = next(task.batches("train"))
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    start = {n: p.clone() for n, p in parameters.items()}
    for step in range(3):
        model.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
        if step == 0:  # Newton-Schulz is in float32
            limit = 1e-6 if name == "muon" else 1e-15
            assert keeper.distance(parameters).item() < limit
        keeper.after_update(parameters, step + 1, optimizer)
        assert keeper.distance(parameters).item() < 1e-16
    assert all((parameters[n] - start[n]).abs().max() > 1e-4 for n in start)


# how training holds, releases, disturbs and pulls back


def keeper_of(**settings):
    model = network("S3", hidden=["2 natural"], **settings)
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    keeper = PlaneKeeper(model, [5], 10, torch.device("cpu"))
    optimizer, _ = build_optimizer(model, {"class": "adamw"}, 1e-3, 0)
    return keeper, parameters, optimizer


def disturb(parameters):
    generator = torch.Generator().manual_seed(3)
    for value in parameters.values():
        value += 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype)


def test_a_relaxed_network_is_held_then_disturbed_then_let_go():
    keeper, parameters, optimizer = keeper_of(mode="relaxed", release=0.5, noise=0.1)
    keeper.start(parameters)
    for step in range(1, 11):
        disturb(parameters)
        optimizer.state["something"] = {}
        keeper.after_update(parameters, step, optimizer)
        distance = keeper.distance(parameters).item()
        if step < 5:
            assert distance < 1e-16
        elif step == 5:  # relative noise .1, of which the part across the plane
            assert 0.05 < distance < 0.11
            assert not optimizer.state
        else:
            assert distance > 0.05
            assert optimizer.state


def test_noise_and_penalty_from_the_first_step():
    keeper, parameters, _ = keeper_of(mode="relaxed", release=0.5, noise=0.1, penalty=2.0)
    before = {n: p.clone() for n, p in parameters.items()}
    keeper.start(parameters)
    away = {n: parameters[n] - keeper.plane.project_one(n, parameters[n]) for n in before}
    for step, weight in ((0, 2.0), (2, 1.2), (5, 0.0), (9, 0.0)):
        gradients = {n: torch.ones_like(p) for n, p in parameters.items()}
        keeper.after_backward(parameters, gradients, step)
        for n, gradient in gradients.items():
            torch.testing.assert_close(gradient, 1 + weight * away[n])


def test_a_free_network_is_left_alone():
    keeper, parameters, optimizer = keeper_of(mode="free")
    before = {n: p.clone() for n, p in parameters.items()}
    keeper.start(parameters)
    keeper.after_update(parameters, 1, optimizer)
    assert all(torch.equal(before[n], parameters[n]) for n in before)
    assert keeper.row(parameters)[0] > 0.3
