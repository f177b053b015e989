"""Matched stable ranks and truncation against closed forms."""

import pytest
import torch
from test_optim_muon import matrix_with_spectrum

from equiscape.spectra.matching import match_stable_rank, truncate

VALUES = torch.tensor([2.0, 1.2, 0.9, 0.5, 0.1], dtype=torch.float64)


def ranks(matrix):
    s = torch.linalg.svdvals(matrix)
    return (s.square().sum() / s[0] ** 2).item(), s


@pytest.mark.parametrize("target", [1.0, 1.2, 1.6, 2.5, 3.7, 4.6, 5.0])
@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_the_stable_rank_is_the_target_and_the_norm_stays(target, shape):
    matrix, _ = matrix_with_spectrum(VALUES, *shape)
    result = match_stable_rank(matrix, target)
    rank, s = ranks(result)
    assert rank == pytest.approx(target, rel=1e-12)
    assert s[0].item() == pytest.approx(2.0, rel=1e-12)
    # s_i <- min(s_1, c s_i): one factor for all that are not at s_1
    below = s[:5] < 2.0 - 1e-9
    factors = (s[:5] / VALUES)[below]
    if target > 1:
        torch.testing.assert_close(factors, factors[:1].expand_as(factors), rtol=1e-9, atol=0)


def test_without_clipping_the_factor_has_a_closed_form():
    matrix, _ = matrix_with_spectrum(VALUES, 7, 7)
    now, s = ranks(matrix)
    factor = ((1.3 - 1) / (now - 1)) ** 0.5
    _, found = ranks(match_stable_rank(matrix, 1.3))
    torch.testing.assert_close(found[1:5], factor * s[1:5], rtol=1e-12, atol=0)


def test_it_is_the_nearest_matrix():
    matrix, _ = matrix_with_spectrum(VALUES, 7, 7)
    best = (match_stable_rank(matrix, 1.4) - matrix).norm()
    generator = torch.Generator().manual_seed(0)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(20):
            other = matrix + size * torch.randn(7, 7, generator=generator, dtype=torch.float64)
            other = match_stable_rank(other, 1.4)
            other = other * (2.0 / torch.linalg.matrix_norm(other, 2))
            assert ranks(other)[0] == pytest.approx(1.4)
            assert (other - matrix).norm() >= best - 1e-12


def test_matching_its_own_rank_changes_nothing():
    matrix, _ = matrix_with_spectrum(VALUES, 8, 5)
    now, _ = ranks(matrix)
    torch.testing.assert_close(match_stable_rank(matrix, now), matrix, rtol=0, atol=1e-14)


def test_limits():
    matrix, polar = matrix_with_spectrum(VALUES[:3], 8, 6)
    torch.testing.assert_close(match_stable_rank(matrix, 9.0), 2 * polar, rtol=0, atol=1e-8)
    assert (match_stable_rank(torch.zeros(3, 4), 2.0) == 0).all()
    with pytest.raises(ValueError, match=r"0\.5"):
        match_stable_rank(matrix, 0.5)


def test_truncation_keeps_the_largest_values():
    matrix, _ = matrix_with_spectrum(VALUES, 7, 9)
    for kept in range(6):
        result = truncate(matrix, kept)
        error = VALUES[kept:].square().sum().sqrt()
        assert (result - matrix).norm().item() == pytest.approx(error.item(), abs=1e-12)
        assert torch.linalg.matrix_rank(result) == kept
