"""Scores have the value, the unit and the direction that they claim."""

import math
from pathlib import Path

import pytest
import torch
import yaml

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


def test_mean_class_accuracy_weighs_every_class_alike():
    target = torch.tensor([0, 0, 0, 0, 1, 1, 3])
    said = torch.tensor([0, 0, 0, 1, 1, 0, 0])
    output = torch.nn.functional.one_hot(said, 4).float()
    objective = Classification()
    classes = objective.by_class(output, target)
    assert classes[:2] == [75.0, 50.0]
    assert math.isnan(classes[2])  # no sample has this class
    assert classes[3] == 0.0
    metrics = objective.metrics(output, target)
    assert metrics["accuracy"] == pytest.approx(400 / 7)
    assert metrics["mean class accuracy"] == pytest.approx(125 / 3)
    expected = [[3, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert objective.confusion(output, target).tolist() == expected
    assert all(math.isnan(v) for v in objective.metrics(output * math.nan, target).values())


def test_a_regression_reports_both_errors_in_the_targets_unit():
    target = torch.tensor([1.0, 4.0, 7.0])
    objective = Regression("l1", mean=4.0, std=2.0, unit="D")
    output = torch.tensor([[0.0], [0.0], [0.0]])
    metrics = objective.metrics(output, target)
    assert metrics == pytest.approx({"MAE": 2.0, "RMSE": math.sqrt(6)})
    assert objective.predict(output).tolist() == [4.0, 4.0, 4.0]


def average_precision(truth, scores):
    """The definition: the mean precision at the rank of each positive (no ties)."""
    ranked = truth[scores.argsort(descending=True)]
    precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
    return precision[ranked == 1].mean().item()


def test_multilabel_scores_follow_ogbs_rule_for_labels_and_samples_that_are_left_out():
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(40, 6, generator=generator) < 0.3).float()
    target[:, 1], target[:, 4] = 1, 0  # no label of one kind only counts
    target[torch.rand(40, 6, generator=generator) < 0.1] = math.nan
    output = torch.randn(40, 6, generator=generator)
    found, areas = [], []
    for label, scores in zip(target.T, output.T):
        known = ~label.isnan()
        label, scores = label[known], scores[known]
        if 0 < label.sum() < len(label):
            found.append(average_precision(label, scores))
            above = scores[label == 1].unsqueeze(1) > scores[label == 0]
            areas.append(above.double().mean().item())
    assert len(found) == 4
    metrics = MultiLabel().metrics(output, target)
    assert metrics["AP"] == pytest.approx(sum(found) / 4)
    assert metrics["ROC AUC"] == pytest.approx(sum(areas) / 4)
    by_label = MultiLabel().by_class(output, target)
    assert [math.isnan(value) for value in by_label] == [False, True, False, False, True, False]


@pytest.mark.parametrize("value", [0, 1])
def test_multilabel_without_a_label_of_both_kinds_is_no_number_and_says_so(value, caplog):
    target = torch.full((5, 3), value)
    assert math.isnan(MultiLabel().score(torch.randn(5, 3), target))
    assert "no label has samples of both kinds" in caplog.text


def test_the_papers_label_smoothing_is_dgcnns():
    config = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())
    smoothing = config["training"]["label_smoothing"]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 40, generator=generator, dtype=torch.float64)
    labels = torch.randint(40, (9,), generator=generator)
    # Wang et al. 2019: 1 - eps on the label, eps / (C - 1) on each of the others, eps = 0.2
    law = torch.full((9, 40), 0.2 / 39, dtype=torch.float64)
    law[torch.arange(9), labels] = 0.8
    expected = -(law * logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(Classification().loss(logits, labels, smoothing), expected)


def test_chance_is_the_best_constant_prediction():
    """Against the losses of many constants."""
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    objective = Classification()
    chance = objective.chance_loss(labels)
    shares = torch.tensor([3.0, 1.0, 2.0]) / 6
    assert chance == pytest.approx(objective.loss(shares.log().expand(6, 3), labels).item())
    assert objective.chance_loss(torch.arange(12)) == pytest.approx(math.log(12))
    generator = torch.Generator().manual_seed(0)
    others = torch.randn(200, 3, generator=generator)
    assert all(objective.loss(o.expand(6, 3), labels).item() >= chance for o in others)

    target = torch.tensor([1.0, 4.0, 7.0, 20.0, 3.0])
    for name in ("mse", "l1"):
        regression = Regression(name, mean=8.0, std=5.0)
        grid = torch.linspace(-3, 3, 601)
        best = min(regression.loss(c.expand(5), target).item() for c in grid)
        assert regression.chance_loss(target) == pytest.approx(best, abs=1e-4)

    several = torch.tensor([[1, 0], [1, 0], [0, 0], [0, 0]])
    expected = (math.log(2) + 0) / 2
    assert MultiLabel().chance_loss(several) == pytest.approx(expected)
