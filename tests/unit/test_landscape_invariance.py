"""Sharpness of folded networks under every symmetry that the networks declare."""

import pytest
import torch
from test_landscape_architectures import SMALL, Clouds

from equiscape import models
from equiscape.landscape.folding import folded, norm_producers
from equiscape.landscape.gauss_newton import GaussNewton
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.sharpness import fisher_rao, log_hessian
from equiscape.symmetries import Continuous
from equiscape.task import Task

NOT_DIAGONAL = ("constant columns", "basis change")  # what folding leaves


def network(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build(name, {"num_outputs": 3}, SMALL[name]).double().eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def moved(task, model, families):
    """The same function after a random element of each continuous symmetry of the families."""
    generator = torch.Generator().manual_seed(5)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for symmetry in model.symmetries():
        chosen = isinstance(symmetry, Continuous) and symmetry.holds(training=False)
        if chosen and families(symmetry.family):
            with torch.no_grad():
                state = symmetry.act(state, symmetry.draw(generator, 0.5))
    other = models.build(task.architecture, {"num_outputs": 3}, SMALL[task.architecture])
    other.double().eval().load_state_dict(state)
    return other


def loss_of(task, model, frozen=()):
    return TrainingLoss(
        task, model, samples=None, batch_size=6, seed=0, dtype="float64", frozen=frozen
    )


def measured(task, model, fold):
    """T H T v, K v and theta^T G theta, of a fixed random v."""
    frozen = ()
    if fold:
        model, frozen = folded(task, model, next(loss_of(task, model).batches()))
    objective = loss_of(task, model, frozen)
    _, gradient = objective.value_and_gradient()
    theta = objective.vector()
    v = torch.randn(1, objective.size, generator=torch.Generator().manual_seed(1)).double()
    return (
        objective.operator.scaled(theta.abs())(v),
        log_hessian(objective.operator, theta, gradient)(v),
        torch.tensor(fisher_rao(GaussNewton(objective).operator, theta)),
    )


@pytest.fixture(params=SMALL)
def case(request):
    return Task("clouds", {"architecture": request.param}, Clouds(), torch.device("cpu")), network(
        request.param
    )


def difference(first, second):
    return [((a - b).norm() / a.norm()).item() for a, b in zip(first, second, strict=True)]


def test_folded_measures_do_not_see_any_declared_symmetry(case):
    task, model = case
    other = moved(task, model, lambda family: family not in NOT_DIAGONAL)
    found = difference(measured(task, model, True), measured(task, other, True))
    assert max(found) < 1e-10, found


def test_without_folding_they_do(case):
    task, model = case
    seen = "stream shift" if task.architecture == "egnn" else "norm gauge"
    other = moved(task, model, lambda family: family == seen)
    adaptive, log, _ = difference(measured(task, model, False), measured(task, other, False))
    assert adaptive > 1e-3
    assert log > 1e-3


def test_what_folding_leaves_is_seen_by_the_adaptive_kinds_and_not_by_fisher_rao():
    task = Task("clouds", {"architecture": "egnn"}, Clouds(), torch.device("cpu"))
    model = network("egnn")
    other = moved(task, model, lambda family: family == "constant columns")
    adaptive, _, fisher = difference(measured(task, model, True), measured(task, other, True))
    assert adaptive > 1e-3
    assert fisher < 1e-10


def test_every_norm_finds_its_matrix(case):
    task, model = case
    norms = [n for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm1d)]
    found = norm_producers(task, model, next(loss_of(task, model).batches()))
    assert list(found) == norms
    for symmetry in model.symmetries():
        if symmetry.family == "norm gauge":
            weight, gamma, _ = symmetry.parameters
            assert found[gamma.removesuffix(".weight")] == weight.removesuffix(".weight")
