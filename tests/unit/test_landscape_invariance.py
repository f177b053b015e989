"""Sharpness of folded networks under every symmetry that the networks declare."""

from copy import deepcopy

import pytest
import test_symmetries
import torch

from equiscape.data.base import Batch, Dataset
from equiscape.landscape import folding
from equiscape.landscape.folding import folded, norm_producers
from equiscape.landscape.gauss_newton import GaussNewton
from equiscape.landscape.objective import TrainingLoss, cast
from equiscape.landscape.sharpness import fisher_rao, log_hessian
from equiscape.objectives import Classification, Regression
from equiscape.symmetries import Continuous
from equiscape.task import Task

NOT_DIAGONAL = ("constant columns", "basis change")  # what folding leaves
CASES = ("pointnet", "dgcnn", "egnn", "gotennet", "gotennet-dipole", "gine", "gine-relu-norm")
COUNT = 12
cases = pytest.mark.parametrize("name", CASES)


class Fixed(Dataset):
    """One batch of given inputs with random labels or targets, in float64."""

    name = "fixed"

    def __init__(self, inputs, objective):
        generator = torch.Generator().manual_seed(0)
        self.inputs, self.objective = inputs, objective
        self.target = torch.randint(3, (COUNT,), generator=generator)
        if isinstance(objective, Regression):
            self.target = torch.randn(COUNT, generator=generator).double()

    def size(self, split):
        return COUNT

    def by_size(self, split, indices):
        return indices

    def gather(self, split, indices):
        return Batch(self.inputs, self.target, COUNT)


def case(name):
    model, inputs = test_symmetries.network(name, COUNT)
    objective = Regression("mse") if name.startswith("gotennet") else Classification()
    architecture = test_symmetries.CASES[name][0]
    task = Task(name, {"architecture": architecture}, Fixed(inputs, objective), torch.device("cpu"))
    return task, model


def moved(task, model, families):
    """The same function after a random element of each continuous symmetry of the families."""
    generator = torch.Generator().manual_seed(5)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    softmax = isinstance(task.dataset.objective, Classification)
    for symmetry in model.symmetries():
        chosen = isinstance(symmetry, Continuous) and symmetry.holds(training=False)
        chosen = chosen and symmetry.exact and (softmax or symmetry.invariant == "output")
        if chosen and families(symmetry.family):
            with torch.no_grad():
                state = symmetry.act(state, symmetry.draw(generator, 0.3))
    other = deepcopy(model)
    other.load_state_dict(state)
    return other


def loss_of(task, model, frozen=()):
    return TrainingLoss(
        task, model, samples=None, batch_size=COUNT, seed=0, dtype="float64", frozen=frozen
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


def difference(first, second):
    return [((a - b).norm() / a.norm()).item() for a, b in zip(first, second, strict=True)]


@cases
def test_folded_measures_do_not_see_any_declared_symmetry(name):
    task, model = case(name)
    other = moved(task, model, lambda family: family not in NOT_DIAGONAL)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))
    found = difference(measured(task, model, True), measured(task, other, True))
    assert max(found) < 1e-10, found


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("pointnet", "norm gauge"),
        ("dgcnn", "norm bias"),
        ("egnn", "stream shift"),
        ("gotennet", "norm shift"),
        ("gine", "table sums"),
    ],
)
def test_without_folding_they_do(name, seen):
    task, model = case(name)
    other = moved(task, model, lambda family: family == seen)
    adaptive, log, _ = difference(measured(task, model, False), measured(task, other, False))
    assert adaptive > 1e-3
    assert log > 1e-3


@pytest.mark.parametrize(
    ("name", "left"), [("egnn", NOT_DIAGONAL[0]), ("gotennet", NOT_DIAGONAL[1])]
)
def test_what_folding_leaves_is_seen_by_the_adaptive_kinds_and_not_by_fisher_rao(name, left):
    task, model = case(name)
    other = moved(task, model, lambda family: family == left)
    adaptive, _, fisher = difference(measured(task, model, True), measured(task, other, True))
    assert adaptive > 1e-3
    assert fisher < 1e-10


@cases
def test_every_norm_behind_a_matrix_finds_it(name):
    task, model = case(name)
    found = norm_producers(task, model, next(loss_of(task, model).batches()))
    gauges = [s.parameters for s in model.symmetries() if s.family == "norm gauge"]
    assert found == {
        gamma.removesuffix(".weight"): weight.removesuffix(".weight") for weight, gamma, _ in gauges
    }


def test_folding_is_checked_where_rounding_exchanges_no_neighbors(monkeypatch):
    """In single precision a graph of features may change by rounding, and the output with it."""
    task, model = case("dgcnn")
    seen, logits = [], folding._logits

    def watched(task, model, batch):
        output = logits(task, model, batch)
        seen.append(output)
        return output

    monkeypatch.setattr(folding, "_logits", watched)
    batch = cast(next(loss_of(task, model).batches()), torch.float32)
    network, _ = folded(task, model.float(), batch)
    assert {output.dtype for output in seen} == {torch.float64}
    torch.testing.assert_close(seen[0], seen[-1], rtol=0, atol=1e-10)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
