"""The spectral density against spectra that are known."""

import numpy as np
import pytest
import torch
from test_landscape_lanczos import generator, hessian_like, operator_of

from equiscape.landscape.density import spectral_density
from equiscape.landscape.lanczos import lanczos
from equiscape.landscape.operators import SymmetricOperator


def test_moments_below_twice_the_steps_are_exact_for_each_probe():
    operator, matrix = operator_of(np.linspace(-1, 2, 40))
    density = spectral_density(operator, 3, 5, generator=generator(1))
    u = torch.randn(3, 40, generator=generator(1)).double()
    u /= u.norm(dim=1, keepdim=True)
    power = u.clone()
    for degree in range(10):
        moments = (density.weights * density.nodes**degree).sum(1)
        np.testing.assert_allclose(moments, (power * u).sum(1), rtol=1e-11, atol=1e-13)
        power = power @ matrix
    assert operator.products == 15


def test_all_steps_give_all_eigenvalues():
    values = np.array([-3.0, -1.0, -0.5, 0.2, 0.7, 4.0])
    density = spectral_density(operator_of(values)[0], 2, 10, generator=generator())
    np.testing.assert_allclose(density.nodes, [values, values], atol=1e-12)
    np.testing.assert_allclose(density.weights.sum(1), 1)


@pytest.mark.parametrize("known", [0, 12], ids=["plain", "deflated"])
def test_the_share_below_a_point_and_its_error_are_calibrated(known):
    values = np.sort(hessian_like(200))[::-1]
    operator, _ = operator_of(values)
    pairs = lanczos(operator, leading=12, tolerance=1e-10, generator=generator()).leading
    points = np.array([-0.3, -0.05, 0.06, 0.5])
    truth = (values[:, None] <= points).mean(0)
    scores = []
    for seed in range(60):
        density = spectral_density(
            operator,
            8,
            60,
            generator=generator(seed),
            exact=pairs.values[:known],
            vectors=pairs.vectors[:known],
        )
        share, error = density.cumulative(points)
        scores.append((share - truth)[1:3] / error[1:3])
        if known:  # between bulk and outliers nothing is left to chance
            assert share[3] == pytest.approx(truth[3], abs=1e-12)
    scores = np.array(scores)
    # Student's t with 7 degrees of freedom: standard deviation sqrt(7/5) = 1.18.
    assert scores.std() == pytest.approx(1.18, abs=0.3)
    assert np.abs(scores.mean(0)).max() < 0.45


def test_the_smoothed_density_is_the_smoothed_spectrum():
    values = np.linspace(-1, 1, 50)
    operator, _ = operator_of(values)
    density = spectral_density(operator, 100, 50, generator=generator(), block=50)
    points = np.linspace(-1.5, 1.5, 31)
    ours, error = density.smooth(points, 0.2)
    kernel = np.exp(-(((values[:, None] - points) / 0.2) ** 2) / 2) / (0.2 * np.sqrt(2 * np.pi))
    truth = kernel.mean(0)
    assert (np.abs(ours - truth) <= 4 * error + 1e-12).all()
    assert error.max() < 0.04
    assert np.trapezoid(*density.smooth(np.linspace(-2, 2, 401), 0.2)[:1], dx=0.01) == (
        pytest.approx(1, abs=1e-6)
    )


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e30])
def test_any_scale(scale):
    values = np.array([-1.0, 0.5, 3.0])
    matrix = operator_of(values)[1].float() * scale
    operator = SymmetricOperator(3, lambda v: v @ matrix, torch.float32)
    nodes = spectral_density(operator, 2, 3, generator=generator()).nodes
    np.testing.assert_allclose(nodes / scale, [values, values], atol=1e-5)


def test_a_multiple_of_the_identity_is_one_peak():
    density = spectral_density(SymmetricOperator(20, lambda v: 3 * v), 2, 6, generator=generator())
    share, _ = density.cumulative(np.array([2.999, 3.001]))
    np.testing.assert_allclose(share, [0, 1], atol=1e-12)
