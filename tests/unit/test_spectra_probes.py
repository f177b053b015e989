"""Linear probes against scikit-learn and by hand; margins by hand."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from equiscape.objectives import Classification, MultiLabel, Regression
from equiscape.spectra.probes import PENALTIES, fit_probe, margins, wanted_outputs


def data(n=60, features=5, outputs=2, noise=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64) * 3 + 1
    w = torch.randn(features, outputs, generator=generator, dtype=torch.float64)
    return x, x @ w + noise * torch.randn(n, outputs, generator=generator, dtype=torch.float64)


def sklearn_ridge(x, y, penalty):
    z = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    alpha = penalty * np.mean(np.linalg.svd(z - z.mean(0), compute_uv=False) ** 2)
    return Ridge(alpha=alpha).fit(z, y.numpy()), z


def test_the_probe_is_the_ridge_regression_of_its_penalty():
    x, y = data()
    probe = fit_probe(x, y)
    model, z = sklearn_ridge(x, y, probe.penalty)
    np.testing.assert_allclose(probe(x).numpy(), model.predict(z), rtol=1e-9)


@pytest.mark.parametrize("noise", [0.01, 30.0])
def test_the_penalty_is_the_one_of_least_generalized_cross_validation(noise):
    x, y = data(n=25, features=12, noise=noise)
    z = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    errors = []
    for penalty in PENALTIES:
        model, _ = sklearn_ridge(x, y, penalty)
        hat = z @ np.linalg.solve(z.T @ z + model.alpha * np.eye(12), z.T)
        left = ((y.numpy() - model.predict(z)) ** 2).sum()
        errors.append(left / (25 - 1 - np.trace(hat)) ** 2)
    assert fit_probe(x, y).penalty == PENALTIES[int(np.argmin(errors))]


def test_separable_classes_are_separated():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    x = torch.randn(90, 6, generator=generator) + 12 * torch.eye(3, 6)[labels]
    wanted = wanted_outputs(Classification(), labels, 3)
    probe = fit_probe(x[:60], wanted[:60])
    assert Classification().score(probe(x[60:]), labels[60:]) == 100.0
    assert Classification().score(fit_probe(x[:60], wanted[:60].flip(0))(x[60:]), labels[60:]) < 60


def test_constant_and_few_features_give_the_mean_and_no_fault():
    y = torch.tensor([[1.0], [2.0], [6.0]])
    probe = fit_probe(torch.full((3, 4), 7.0), y)
    np.testing.assert_allclose(probe(torch.randn(2, 4)), 3.0, rtol=1e-12)
    wide = fit_probe(torch.randn(3, 50), y)
    assert torch.isfinite(wide(torch.randn(5, 50))).all()


def test_what_is_fitted_is_what_the_network_should_give():
    assert wanted_outputs(Classification(), torch.tensor([1]), 3).tolist() == [[0, 1, 0]]
    regression = Regression("mse", mean=2.0, std=4.0)
    assert wanted_outputs(regression, torch.tensor([6.0]), 1).tolist() == [[1.0]]
    assert regression.score(torch.tensor([[1.0]]), torch.tensor([6.0])) == 0
    labels = torch.tensor([[1.0, 0.0, float("nan")]])
    assert wanted_outputs(MultiLabel(), labels, 3).tolist() == [[1.0, -1.0, 0.0]]


def test_margins_by_hand():
    output = torch.tensor([[1.0, 3.0, 0.0], [2.0, 2.5, -1.0]])
    found = margins(Classification(), output, torch.tensor([1, 0]))
    assert found.tolist() == [2.0, -0.5]
    labels = torch.tensor([[1.0, 0.0, float("nan")], [0.0, 1.0, 1.0]])
    assert margins(MultiLabel(), output, labels).tolist() == [1.0, -3.0, -2.0, 2.5, -1.0]
    assert margins(Regression("l1"), output[:, :1], torch.ones(2)) is None
