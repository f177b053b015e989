"""Newton-Schulz against its polynomial, its float32 errors, and powers of spectra."""

import itertools

import pytest
import torch
from test_optim_muon import matrix_with_spectrum

from equiscape.optim import newton_schulz
from equiscape.optim.newton_schulz import CONVERGENT, each_step, orthogonalize, polar_express
from equiscape.optim.spectrum import powered


@pytest.mark.parametrize("steps", [1, 3, 5, 8])
@pytest.mark.parametrize("restart", [2, 3, 5])
def test_the_way_by_the_gram_matrix_is_the_same_polynomial(steps, restart):
    matrices = torch.randn(3, 10, 25, dtype=torch.float64)
    expected = orthogonalize(matrices, steps, dtype=torch.float64)
    found = orthogonalize(matrices, steps, dtype=torch.float64, by_gram=True, restart=restart)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("lowest", [0, -2, -6, -20])
def test_errors_of_the_float32_forms_on_ill_conditioned_matrices(lowest):
    values = torch.logspace(lowest, 0, 32, dtype=torch.float64)
    matrix = matrix_with_spectrum(values, 32, 70)[0][None]
    exact = orthogonalize(matrix, dtype=torch.float64)

    def error(**arguments):
        return (orthogonalize(matrix.float(), **arguments) - exact).abs().max()

    plain, restarted = error(), error(by_gram=True)
    assert plain < 1e-5
    assert restarted < 1e-5
    once = error(by_gram=True, restart=5)
    assert once < 1e-3
    if lowest <= -6:  # why the Gram matrix is formed anew: the condition number is squared
        assert once > 10 * restarted


def test_strips_change_nothing_but_the_rounding(monkeypatch):
    matrices = torch.randn(5, 40, 70, dtype=torch.float64)
    forms = [{}, {"by_gram": True}]
    expected = [orthogonalize(matrices, dtype=torch.float64, **form) for form in forms]
    monkeypatch.setattr(newton_schulz, "STRIPS_FROM", 16)
    monkeypatch.setattr(newton_schulz, "STRIP", 12)  # the last strip is shorter
    for form, plain in zip(forms, expected):
        found = orthogonalize(matrices, dtype=torch.float64, **form)
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)
        single = orthogonalize(matrices.float(), **form)
        torch.testing.assert_close(single.double(), plain, rtol=0, atol=1e-4)


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="bfloat16 products are emulated here"
)
def test_strips_change_no_bit_of_long_sums_in_bfloat16():
    x = torch.randn(2, newton_schulz.STRIPS_FROM, newton_schulz.LONG).bfloat16()
    assert newton_schulz.by_strips(x)
    assert not newton_schulz.by_strips(x[:, :, :-1])
    whole = torch.bmm(x, x.mT)
    assert torch.equal(newton_schulz.symmetric(x, x.mT, torch.empty_like(whole)), whole)


def test_one_triple_a_step_and_the_last_one_again():
    listed = ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert each_step(listed[0], 2) == [listed[0]] * 2
    assert each_step(listed, 4) == [listed[0], listed[1], listed[1], listed[1]]


def composed(triples, values):
    for a, b, c in triples:
        values = a * values + b * values**3 + c * values**5
    return values


@pytest.mark.parametrize("steps", [1, 3, 5, 6])
def test_polar_express_takes_its_largest_error_four_times(steps):
    triples = polar_express(steps)
    values = composed(triples[:-1], torch.logspace(-3, 0, 200_001, dtype=torch.float64))
    low, high = values.min(), values.max()
    values = torch.linspace(low, high, 200_001, dtype=torch.float64)
    error = composed(triples[-1:], values) - 1
    largest = error.abs().max()
    # Chebyshev: no odd polynomial of degree five is better where the error alternates four times
    turns = [error[0]]
    inner = (error[1:-1] - error[:-2]) * (error[2:] - error[1:-1]) < 0
    turns += [*error[1:-1][inner], error[-1]]
    assert len(turns) == 4
    torch.testing.assert_close(torch.stack(turns).abs(), largest.expand(4), rtol=1e-4, atol=1e-9)
    assert all(a * b < 0 for a, b in itertools.pairwise(turns))


def test_better_polynomials_need_fewer_steps():
    values = torch.logspace(-2.4, 0, 24, dtype=torch.float64)
    matrix, polar = matrix_with_spectrum(values / values.norm(), 24, 30)

    def error(steps, coefficients):
        found = orthogonalize(matrix[None], steps, coefficients, torch.float64)[0]
        return torch.linalg.matrix_norm(found - polar, 2).item()

    assert error(6, polar_express(6)) < 0.01 < error(5, newton_schulz.COEFFICIENTS)
    assert error(30, CONVERGENT) < 1e-12  # the limit is the polar factor
    assert error(6, CONVERGENT) > 0.1


@pytest.mark.parametrize("shape", [(20, 12), (12, 20)])
@pytest.mark.parametrize("power", [1.0, 0.5, 0.0, -0.25])
def test_powers_of_a_spectrum(shape, power):
    values = torch.logspace(-2, 0, 12, dtype=torch.float64)
    matrix, _ = matrix_with_spectrum(values, *shape)
    u, s, vt = torch.linalg.svd(3 * matrix, full_matrices=False)
    expected = u @ torch.diag(s**power) @ vt
    expected = expected * (12**0.5 / expected.norm())
    found = powered(3 * matrix[None], power, 12**0.5)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert found.square().sum().item() == pytest.approx(12, rel=1e-12)


def test_the_spectrum_of_a_gaussian_step_at_each_power():
    # 20 x 12, |D|_F^2 = 12 at every power; the stable rank is least at 1 and largest at 0
    matrix = torch.randn(20, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ranks = []
    for power in (1.0, 0.5, 0.0, -0.25):
        found = powered(matrix[None], power, 12**0.5)[0]
        assert found.square().sum().item() == pytest.approx(12, rel=1e-12)
        ranks.append((12 / torch.linalg.matrix_norm(found, 2) ** 2).item())
    assert ranks[0] < ranks[1] < ranks[2] > ranks[3]
    assert ranks[2] == pytest.approx(12, rel=1e-9)


def test_zeros_and_deficient_matrices_have_no_arbitrary_directions():
    values = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)
    matrix, polar = matrix_with_spectrum(values, 9, 14)
    for power in (0.0, -0.25):
        result = powered(torch.stack([matrix.float(), torch.zeros(9, 14)]), power)
        assert (result[1] == 0).all()
        assert int((torch.linalg.svdvals(result[0]) > 1e-3).sum()) == 3
    found = powered(matrix[None], 0.0)[0]
    torch.testing.assert_close(found, polar, rtol=0, atol=1e-9)
