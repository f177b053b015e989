"""Sharpness that a reparametrization cannot change, and that which it does change."""

import numpy as np
import pytest
import torch
from test_landscape_lanczos import generator
from test_landscape_objective import dense
from tiny_task import TinyNetwork, tiny_network, tiny_task
from torch import nn
from torch.func import functional_call, hessian, jacrev

from equiscape.landscape.folding import folded, norm_producers
from equiscape.landscape.gauss_newton import GaussNewton
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.operators import SymmetricOperator
from equiscape.landscape.sharpness import (
    directional,
    fisher_rao,
    log_hessian,
    relative_flatness,
    restricted,
    row_norms,
)


class Rectified(nn.Module):
    """5-7-3, ReLU, no bias: every scaling of a neuron is a symmetry."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 7, bias=False)
        self.head = nn.Linear(7, 3, bias=False)

    def forward(self, x):
        return self.head(torch.relu(self.first(x)))


TASK = tiny_task(n=20, features=5)


def objective_of(model, task=TASK, **arguments):
    return TrainingLoss(
        task, model, samples=None, batch_size=9, seed=0, dtype="float64", **arguments
    )


def rescaled_pair():
    torch.manual_seed(3)
    model, other = Rectified().double(), Rectified().double()
    scale = torch.exp(torch.randn(7, generator=generator(1), dtype=torch.float64))
    with torch.no_grad():
        other.first.weight.copy_(model.first.weight * scale[:, None])
        other.head.weight.copy_(model.head.weight / scale)
    return model, other


def matrix_of(operator):
    return operator(torch.eye(operator.size, dtype=operator.dtype))


def measures(model):
    """Every measure from dense matrices of our operators, and kappa from the dense Hessian."""
    objective = objective_of(model)
    _, gradient = objective.value_and_gradient()
    theta = objective.vector()
    h = dense(objective)
    adaptive = matrix_of(objective.operator.scaled(theta.abs()))
    log = matrix_of(log_hessian(objective.operator, theta, gradient))
    rows = matrix_of(objective.operator.scaled(row_norms(objective)))
    first, second = h[:35, :35].view(7, 5, 7, 5), h[35:, 35:].view(3, 7, 3, 7)
    w1, w2 = model.first.weight.detach(), model.head.weight.detach()
    return {
        "hessian": torch.linalg.eigvalsh(h)[-1],
        "adaptive": torch.linalg.eigvalsh(adaptive)[-1],
        "adaptive trace": adaptive.trace(),
        "log-hessian": torch.linalg.eigvalsh(log)[-1],
        "log-hessian trace": log.trace(),
        "filter-wise": torch.linalg.eigvalsh(rows)[-1],
        "fisher-rao": torch.tensor(fisher_rao(GaussNewton(objective).operator, theta)),
        "kappa 1": torch.einsum("aj,bj,aibi->", w1, w1, first),
        "kappa 2": torch.einsum("aj,bj,aibi->", w2, w2, second),
        "null": (torch.linalg.eigvalsh(log).abs() < 1e-12).sum(),
    }


INVARIANT = ("adaptive", "adaptive trace", "log-hessian", "log-hessian trace", "fisher-rao")


def test_what_claims_invariance_has_it_and_what_does_not_changes():
    before, after = (measures(model) for model in rescaled_pair())
    for name in (*INVARIANT, "kappa 1"):
        assert after[name].item() == pytest.approx(before[name].item(), rel=1e-10), name
    for name in ("hessian", "filter-wise", "kappa 2"):
        assert abs(np.log(after[name].item() / before[name].item())) > 0.3, name
    assert before["null"] == after["null"] == 7


def test_fisher_rao_of_a_network_of_degree_two():
    """J theta = 2 z there, so it is 4 mean z^T (diag p - p p^T) z."""
    model, _ = rescaled_pair()
    objective = objective_of(model)
    ours = fisher_rao(GaussNewton(objective).operator, objective.vector())
    z = model(TASK.dataset.x.double()).detach()
    p = z.softmax(1)
    truth = 4 * ((p * z**2).sum(1) - (p * z).sum(1) ** 2).mean()
    assert ours == pytest.approx(truth.item(), rel=1e-12)


def test_relative_flatness_by_probes_is_the_trace_formula():
    model, _ = rescaled_pair()
    truth = measures(model)
    found = relative_flatness(objective_of(model), 800, generator())
    assert list(found) == ["first.weight", "head.weight"]
    for name, key in (("first.weight", "kappa 1"), ("head.weight", "kappa 2")):
        error = found[name].value - truth[key].item()
        assert abs(error) < 4 * found[name].standard_error
        assert found[name].standard_error < 0.1 * abs(truth[key].item())


def test_relative_flatness_of_least_squares():
    """``2 |w|^2 mean |x|^2`` for one output and the mean squared error."""

    class Square:
        def loss(self, output, target, label_smoothing=0.0):
            return (output.flatten() - target.to(output)).square().mean()

    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.only = nn.Linear(5, 1, bias=False)

        def forward(self, x):
            return self.only(x)

    task = tiny_task(n=20, features=5, objective=Square())
    model = Line().double()
    found = relative_flatness(objective_of(model, task), 400, generator())["only.weight"]
    x = task.dataset.x.double()
    truth = 2 * model.only.weight.square().sum() * x.square().sum(1).mean()
    assert found.value == pytest.approx(truth.item(), abs=4 * found.standard_error)


@pytest.mark.parametrize("memory", [0, None], ids=["rebuilt", "kept"])
def test_gauss_newton_is_its_definition(memory):
    task, model = tiny_task(), tiny_network().double().eval()
    objective = objective_of(model, task, graph_memory=memory)
    ours = matrix_of(GaussNewton(objective).operator)
    parameters = {k: v.detach() for k, v in model.named_parameters()}
    x, y = task.dataset.x.double(), task.dataset.y

    def outputs(theta):
        moved = dict(zip(parameters, objective.split_vector(theta), strict=True))
        return functional_call(model, moved, (x,)).flatten()

    def loss(z):
        return task.dataset.objective.loss(z.view(len(x), 3), y)

    theta = objective.vector()
    jacobian, curvature = jacrev(outputs)(theta), hessian(loss)(outputs(theta))
    torch.testing.assert_close(ours, jacobian.T @ curvature @ jacobian, rtol=1e-9, atol=1e-12)
    rest = matrix_of(GaussNewton(objective).rest())
    torch.testing.assert_close(rest, dense(objective) - ours, rtol=1e-9, atol=1e-12)


def test_gauss_newton_of_a_loss_that_is_linear_in_the_output_is_zero():
    class Sum:
        def loss(self, output, target, label_smoothing=0.0):
            return output.mean()

    objective = objective_of(tiny_network(), tiny_task(objective=Sum()))
    assert not matrix_of(GaussNewton(objective).operator).any()


def gauged(model, seed=2):
    """The same function in eval mode, its batch norm's gauge moved at random."""
    other = tiny_network().double().eval()
    other.load_state_dict(model.state_dict())
    factor = torch.exp(0.7 * torch.randn(5, generator=generator(seed), dtype=torch.float64))
    shift = torch.randn(5, generator=generator(seed + 1), dtype=torch.float64)
    norm, first = other.norm, other.first
    with torch.no_grad():
        sigma = (norm.running_var + norm.eps).sqrt()
        mean = norm.running_mean
        # gamma (w x + b - mu) / sigma + beta: w, b times f, gamma over f, beta takes what is left
        old = norm.weight * (first.bias - mean) / sigma + norm.bias
        first.weight *= factor[:, None]
        first.bias.mul_(factor).add_(shift)
        norm.weight /= factor
        norm.bias.copy_(old - norm.weight * (first.bias - mean) / sigma)
    return other


def test_folding_takes_the_gauge_of_batch_norm_out_and_adaptive_sharpness_alone_does_not():
    task, model = tiny_task(), tiny_network().double().eval()
    other, x = gauged(model), tiny_task().dataset.x.double()
    torch.testing.assert_close(other(x), model(x), rtol=1e-10, atol=1e-12)
    batch = next(objective_of(model, task).batches())
    raw, clean = [], []
    for network in (model, other):
        objective = objective_of(network, task)
        scaled = objective.operator.scaled(objective.vector().abs())
        raw.append(torch.linalg.eigvalsh(matrix_of(scaled))[-1].item())
        network_folded, frozen = folded(task, network, batch)
        assert frozen == ["first.bias", "norm.weight"]
        objective = objective_of(network_folded, task, frozen=frozen)
        assert not set(frozen) & set(objective.names)
        scaled = objective.operator.scaled(objective.vector().abs())
        clean.append(torch.linalg.eigvalsh(matrix_of(scaled))[-1].item())
    assert clean[1] == pytest.approx(clean[0], rel=1e-10)
    assert abs(np.log(raw[1] / raw[0])) > 0.02


def test_folding_leaves_the_function_and_the_model():
    task, model = tiny_task(), tiny_network().double()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batch = next(objective_of(model, task).batches())
    network, _ = folded(task, model, batch)
    x = batch.inputs[0]
    difference = network(x) - model.eval()(x)
    # equal up to what is the same for all classes
    torch.testing.assert_close(difference, difference[:, :1].expand(-1, 3), rtol=0, atol=1e-12)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_producers_are_found_by_the_tensor_that_reaches_the_norm():
    class Detour(TinyNetwork):
        def forward(self, x):
            return super().forward(x)

    model = Detour().double().eval()
    batch = next(objective_of(model, tiny_task()).batches())
    assert norm_producers(tiny_task(), model, batch) == {"norm": "first"}

    class OfData(Detour):
        def forward(self, x):
            return self.head(torch.cat([self.norm(torch.cat([x, x[:, :1]], 1))], 1))

    assert norm_producers(tiny_task(), OfData().double().eval(), batch) == {}


def test_directional_sharpness_within_and_across():
    objective = objective_of(tiny_network(), tiny_task())
    direction = torch.randn(objective.size, generator=generator()).double()
    found = directional(objective, direction)
    h, size = dense(objective), direction @ direction
    assert found.whole == pytest.approx((direction @ h @ direction / size).item(), rel=1e-10)
    layers = [name.rpartition(".")[0] for name in objective.names]
    blocks = torch.cat(
        [
            torch.full((p.numel(),), float(layers.index(layer)))
            for p, layer in zip(objective.parameters, layers, strict=True)
        ]
    )
    within = h * (blocks[:, None] == blocks)
    assert found.within == pytest.approx((direction @ within @ direction / size).item(), rel=1e-10)
    assert found.across == pytest.approx(found.whole - found.within)
    before = objective.operator.products
    alone = directional(objective, direction, within=False)
    assert alone.whole == pytest.approx(found.whole)
    assert np.isnan(alone.within)
    assert objective.operator.products == before + 1


def test_a_restricted_operator_is_the_block():
    objective = objective_of(tiny_network(), tiny_task())
    operator, shapes, places = restricted(objective, ["first.weight", "head.weight"])
    assert shapes == [(5, 4), (3, 5)]
    block = dense(objective)[places][:, places]
    torch.testing.assert_close(matrix_of(operator), block, rtol=1e-10, atol=1e-13)


def test_log_hessian_is_the_hessian_in_logarithms():
    h = torch.tensor([[2.0, 0.3], [0.3, 1.0]]).double()
    theta, target = torch.tensor([0.7, -1.2]).double(), torch.tensor([0.1, 0.2]).double()

    def loss(logs):
        moved = theta.sign() * logs.exp() - target
        return moved @ h @ moved / 2

    operator = SymmetricOperator(2, lambda v: v @ h)
    ours = matrix_of(log_hessian(operator, theta, h @ (theta - target)))
    torch.testing.assert_close(ours, hessian(loss)(theta.abs().log()))
