"""Scores have the value, the unit and the direction that they claim."""

import math

import pytest
import torch

from equiscape.objectives import Classification, MultiLabel, Regression


def test_accuracy_is_the_percentage_of_right_labels():
    output = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [0.0, 1.0, 3.0], [5.0, 0.0, 0.0]])
    objective = Classification()
    assert objective.score(output, torch.tensor([0, 2, 1, 0])) == 75.0
    assert (objective.metric.direction, objective.metric.unit) == ("max", "%")
    assert math.isnan(objective.score(output * math.nan, torch.tensor([0, 2, 1, 0])))


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_regression_scores_in_the_unit_of_its_target(shape):
    target = torch.tensor([1.0, 4.0, 7.0, 20.0])
    objective = Regression("mse", mean=8.0, std=5.0, unit="meV")
    assert (objective.metric.direction, objective.metric.unit) == ("min", "meV")
    constant = torch.zeros(4).view(shape)  # the mean of the training targets
    assert objective.score(constant, target) == pytest.approx((7 + 4 + 1 + 12) / 4)
    one_off = ((target - 8) / 5 + torch.tensor([0, 0, 0, 0.5])).view(shape)
    assert objective.score(one_off, target) == pytest.approx(0.5 * 5 / 4)
    assert objective.loss(one_off, target).item() == pytest.approx(0.5**2 / 4)
    absolute = Regression("l1", mean=8.0, std=5.0)
    assert absolute.loss(one_off, target).item() == pytest.approx(0.5 / 4)


def test_average_precision_is_the_mean_over_labels_that_occur():
    target = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
    output = torch.tensor([[4.0, 1, 9], [3.0, 2, 0], [2.0, 3, 0], [1.0, 4, 0]])
    # label 0: hits at ranks 1 and 3, precisions 1 and 2/3; label 1: a hit at rank 3, precision 1/3;
    # label 2 never occurs
    expected = ((1 + 2 / 3) / 2 + 1 / 3) / 2
    objective = MultiLabel()
    assert objective.score(output, target) == pytest.approx(expected)
    assert objective.metric.direction == "max"
    assert math.isnan(objective.score(output * math.nan, target))
    loss = -(target * output.sigmoid().log() + (1 - target) * (-output).sigmoid().log()).mean()
    assert objective.loss(output, target).item() == pytest.approx(loss.item(), rel=1e-6)
