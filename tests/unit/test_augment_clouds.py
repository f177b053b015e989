"""Augmentation: ranges, isometries, uniform rotations, independence, determinism."""

import math

import pytest
import torch

from equiscape.data.augment_clouds import augment_points, axis_rotations, uniform_rotations
from equiscape.errors import ConfigError


def clouds(n=64, points=40):
    return torch.randn(n, points, 3, generator=torch.Generator().manual_seed(0))


def augmented(settings, points=None, seed=1):
    points = clouds() if points is None else points
    return augment_points(points, settings, torch.Generator().manual_seed(seed))


def test_nothing_asked_for_changes_nothing():
    assert torch.equal(augmented({}), clouds())
    settings = {"scale": None, "shift": None, "jitter": None, "rotate": "none", "dropout": None}
    assert torch.equal(augmented(settings), clouds())


def test_scale_is_one_factor_for_each_axis_of_each_cloud():
    factors = augmented({"scale": [2 / 3, 3 / 2]}) / clouds()
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), rtol=1e-4, atol=1e-4)
    factors = factors[:, 0]
    assert factors.min() >= 2 / 3 - 1e-5
    assert factors.max() <= 3 / 2 + 1e-5
    assert len(factors.flatten().unique()) == 64 * 3
    # 192 draws of U(2/3, 3/2): the mean's standard deviation is .0174
    assert factors.mean().item() == pytest.approx(13 / 12, abs=0.06)


def test_shift_moves_whole_clouds():
    moves = augmented({"shift": 0.2}) - clouds()
    torch.testing.assert_close(moves, moves[:, :1].expand_as(moves), rtol=0, atol=1e-5)
    assert moves.abs().max() <= 0.2 + 1e-5
    assert moves.abs().max() > 0.18


def test_jitter_is_clipped_noise():
    noise = augmented({"jitter": {"std": 0.02, "clip": 0.03}}, clouds(64, 500)) - clouds(64, 500)
    assert noise.abs().max() <= 0.03 + 1e-5
    # standard deviation of a normal clipped at 1.5 sigma
    z = torch.randn(10**6, generator=torch.Generator().manual_seed(2)).clamp(-1.5, 1.5)
    assert noise.std().item() == pytest.approx(0.02 * z.std().item(), rel=0.01)


@pytest.mark.parametrize("rotate", ["z", "so3"])
def test_rotations_keep_distances_and_handedness(rotate):
    before, after = clouds().double(), augmented({"rotate": rotate}, clouds().double())
    torch.testing.assert_close(torch.cdist(after, after), torch.cdist(before, before))
    triple = torch.linalg.det(before[:, :3])
    torch.testing.assert_close(torch.linalg.det(after[:, :3]), triple)
    if rotate == "z":
        torch.testing.assert_close(after[..., 2], before[..., 2])
    assert not torch.allclose(after, before, atol=0.1)


def test_rotations_are_uniform():
    u = torch.rand(200_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rotations = uniform_rotations(u)
    # under the Haar measure E[R] = 0, E[R_ij^2] = 1/3 and E[trace^2] = 1
    assert rotations.mean(0).abs().max() < 0.01
    torch.testing.assert_close(
        rotations.square().mean(0), torch.full((3, 3), 1 / 3).double(), rtol=0, atol=0.005
    )
    trace = rotations.diagonal(dim1=1, dim2=2).sum(1)
    assert trace.square().mean().item() == pytest.approx(1, abs=0.02)
    quarter = axis_rotations(torch.tensor([math.pi / 2], dtype=torch.float64), "z")[0]
    torch.testing.assert_close(
        quarter @ torch.tensor([1.0, 0, 0]).double(), torch.tensor([0, 1.0, 0]).double()
    )


def test_dropped_points_fall_on_the_first():
    after = augmented({"dropout": 0.8}, clouds(200, 300))
    same = (after == clouds(200, 300)).all(-1)
    first = (after == after[:, :1]).all(-1)
    assert (same | first).all()
    share = (~same).double().mean(1)
    assert share.max() <= 0.9
    assert share.mean().item() == pytest.approx(0.4, abs=0.06)


def test_the_generator_alone_decides():
    settings = {"scale": [0.5, 2], "shift": 1.0, "jitter": {"std": 1, "clip": 2}, "rotate": "so3"}
    assert torch.equal(augmented(settings), augmented(settings))
    assert not torch.equal(augmented(settings), augmented(settings, seed=2))


@pytest.mark.parametrize("settings", [{"shifts": 1}, {"rotate": "w"}])
def test_a_bad_setting_is_named(settings):
    with pytest.raises(ConfigError, match=r"training\.augmentation"):
        augmented(settings)
