"""Steps on a quadratic loss, where the quadratic model is the loss."""

import math

import numpy as np
import pytest
import torch
from test_landscape_objective import dense
from tiny_task import Linear, tiny_network, tiny_task

from equiscape.landscape.lanczos import lanczos
from equiscape.landscape.objective import TrainingLoss
from equiscape.landscape.step import angle, measure_step, preconditioned, share_in
from equiscape.objectives import Regression
from equiscape.optim.frozen import Frozen


def quadratic(**more):
    torch.manual_seed(1)
    model, task = Linear(), tiny_task(objective=Regression("mse"))
    task.dataset.y = task.dataset.y.double()
    return TrainingLoss(task, model, samples=None, batch_size=5, seed=0, dtype="float64", **more)


def test_gain_and_penalty_are_the_true_change_of_a_quadratic():
    objective = quadratic()
    loss, gradient = objective.value_and_gradient()
    step = torch.randn(5, dtype=torch.float64)
    found = measure_step(objective, loss, gradient, step)
    h = dense(objective)
    assert found.gain == pytest.approx((gradient @ step).item(), rel=1e-12)
    assert found.penalty == pytest.approx((step @ h @ step).item() / 2, rel=1e-12)
    assert found.change == pytest.approx(found.penalty - found.gain, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_the_quadratic_rises_exactly_beyond_rho_of_one(factor):
    objective = quadratic()
    loss, gradient = objective.value_and_gradient()
    h = dense(objective)
    critical = 2 * (gradient @ gradient) / (gradient @ h @ gradient)
    found = measure_step(objective, loss, gradient, factor * critical * gradient)
    assert found.rho == pytest.approx(factor, rel=1e-10)
    assert (found.change > 0) == (factor > 1)
    uphill = measure_step(objective, loss, gradient, -gradient)
    assert math.isnan(uphill.rho)


def test_the_loss_elsewhere_changes_nothing_here():
    objective = quadratic()
    loss, _ = objective.value_and_gradient()
    h = dense(objective)
    assert objective.value_at(objective.vector()) == pytest.approx(loss, rel=1e-14)
    assert objective.value_at(objective.vector() + 1) != pytest.approx(loss, rel=1e-3)
    torch.testing.assert_close(dense(objective), h, rtol=0, atol=0)


def test_label_smoothing_is_that_of_training():
    task, model = tiny_task(), tiny_network()
    smooth = TrainingLoss(
        task, model, samples=None, batch_size=13, seed=0, dtype="float64", label_smoothing=0.3
    )
    batch = next(smooth.batches())
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(
            smooth.model(*batch.inputs), batch.target, label_smoothing=0.3
        )
    assert smooth.value_and_gradient()[0] == pytest.approx(expected.item(), rel=1e-12)
    assert smooth.value_at(smooth.vector()) == pytest.approx(expected.item(), rel=1e-12)


def test_angles_of_known_vectors():
    a = torch.tensor([1.0, 0, 0])
    assert angle(a, 3 * a) == 0
    assert angle(a, torch.tensor([0, 2.0, 0])) == pytest.approx(90, abs=1e-12)
    assert angle(a, -a) == pytest.approx(180)
    assert angle(a, torch.tensor([1.0, 1e-9, 0])) == pytest.approx(math.degrees(1e-9), rel=1e-6)
    assert math.isnan(angle(a, torch.zeros(3)))


def test_the_share_in_a_span():
    rows = torch.eye(4)[:2]
    assert share_in(rows, torch.tensor([3.0, 0, 4.0, 0])) == pytest.approx(9 / 25)
    assert share_in(rows, torch.tensor([3.0, 1, 0, 0])) == 1
    assert share_in(rows, torch.tensor([0.0, 0, 1, 0])) == 0
    assert math.isnan(share_in(rows, torch.zeros(4)))


def maps(scales, limits, penalties=(0.0, 0.0)):
    names = ("body.weight", "body.bias")
    return {
        name: Frozen(lambda v, c=scale: c * v, limit, penalty)
        for name, scale, limit, penalty in zip(names, scales, limits, penalties)
    }


def test_the_preconditioned_operator_is_the_dense_one():
    objective = quadratic()
    h = dense(objective)
    r = torch.tensor([0.5] * 4 + [2.0], dtype=torch.float64)
    limit = torch.tensor([7.0] * 4 + [3.0], dtype=torch.float64)
    c = torch.tensor([0.1] * 4 + [0.3], dtype=torch.float64)
    operator, thresholds = preconditioned(objective, maps((0.5, 2.0), (7.0, 3.0), (0.1, 0.3)))
    root = r / limit.sqrt()
    expected = root[:, None] * (h + torch.diag(c)) * root
    torch.testing.assert_close(operator(torch.eye(5).double()), expected)
    assert thresholds == [3.0, 7.0]


def test_what_has_no_map_stands_still():
    objective = quadratic()
    h, chosen = dense(objective), maps((1.0, 1.0), (2.0, 2.0))
    operator, _ = preconditioned(objective, {"body.weight": chosen["body.weight"]})
    found = lanczos(operator, leading=1, trailing=0, tolerance=1e-9)
    expected = torch.linalg.eigvalsh(h[:4, :4])[-1].item() / 2
    np.testing.assert_allclose(found.leading.values, [expected], rtol=1e-9)
