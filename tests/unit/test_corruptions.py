"""The corruptions against their stated sizes, closed forms and each other."""

import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator
from scipy.spatial.distance import pdist

from equiscape.data import corruptions as module
from equiscape.data.corruptions import (
    CORRUPTIONS,
    LATTICE,
    SEVERITIES,
    Draws,
    corrupt,
    directions,
    unit_box,
)
from equiscape.errors import ConfigError

N = 1024
SEEDS = range(3)
SIZES = {  # points of a corrupted cloud at severities 1 to 5, of 1,024 clean ones
    "background": [N + 22, N + 25, N + 29, N + 34, N + 51],
    "upsampling": [N + 204, N + 256, N + 341, N + 512, 2 * N],
    "cutout": [N - 60, N - 90, N - 150, N - 210, N - 300],
    "density": [N - 75, N - 150, N - 225, N - 300, N - 375],
}
BOXED = [
    *("uniform", "background", "impulse", "upsampling", "rotation", "shear"),
    *("distortion", "distortion_rbf", "distortion_rbf_inv"),
]


@pytest.fixture(scope="module")
def clouds():
    """Three clouds of 2,048 points in the unit sphere."""
    points = np.random.default_rng(0).standard_normal((3, 2 * N, 3)) * [1, 0.6, 0.3]
    radius = np.linalg.norm(points, axis=-1).max(axis=1)[:, None, None]
    return (points / radius).astype(np.float32)


def made(clouds, name, severity, seeds=SEEDS):
    return corrupt(clouds if name == "density_inc" else clouds[:, :N], name, severity, seeds)


def members(points, of):
    """Which points of a cloud stand, bit for bit, in another."""
    return np.array([tuple(p) in of for p in points.tolist()])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_sizes(clouds, name):
    found = [made(clouds, name, severity) for severity in SEVERITIES]
    assert [points.shape[1] for points in found] == SIZES.get(name, [N] * 5)
    assert all(points.dtype == np.float32 and np.isfinite(points).all() for points in found)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_seeded_by_cloud(clouds, name):
    """A cloud comes out the same alone, in other company, and again."""
    together = made(clouds, name, 3)
    turned = made(clouds[::-1], name, 3, seeds=[2, 1, 0])[::-1]
    alone = made(clouds[1:2], name, 3, seeds=[1])
    np.testing.assert_allclose(turned, together, atol=1e-6)
    np.testing.assert_allclose(alone[0], together[1], atol=1e-6)
    assert not np.allclose(made(clouds, name, 3, seeds=[5, 6, 7]), together)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_clouds_of_unequal_size(clouds, name):
    """Each comes out as it would alone: nothing is padded."""
    ragged = [clouds[0], clouds[1, :500], clouds[2]]
    together = corrupt(ragged, name, 2, SEEDS)
    for cloud, points, seed in zip(ragged, together, SEEDS):
        alone = corrupt(cloud[None], name, 2, [seed])[0]
        assert points.shape == alone.shape
        np.testing.assert_allclose(points, alone, atol=1e-6)


@pytest.mark.parametrize("name", BOXED)
def test_unit_box(clouds, name):
    points = made(clouds, name, 5)
    low, high = points.min(axis=1), points.max(axis=1)
    np.testing.assert_allclose(low + high, 0, atol=1e-5)
    np.testing.assert_allclose((high - low).max(axis=1), 2, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "uniform",
        "gaussian",
        "rotation",
        "shear",
        "distortion",
        "distortion_rbf",
        "distortion_rbf_inv",
    ],
)
def test_severity_grows_the_displacement(clouds, name):
    boxed = unit_box(np.repeat(clouds[:, :N], 12, axis=0))
    means = []
    for severity in SEVERITIES:
        moved = unit_box(corrupt(boxed, name, severity, range(36))) - boxed
        means.append(np.linalg.norm(moved, axis=-1).mean())
    assert (np.diff(means) > 0).all()


@pytest.mark.parametrize("name", ["background", "impulse", "upsampling", "cutout", "density"])
def test_severity_grows_the_number_of_points_touched(clouds, name, monkeypatch):
    monkeypatch.setattr(module, "unit_box", lambda points: points)
    clean = set(map(tuple, clouds[0, :N].tolist()))
    touched = []
    for severity in SEVERITIES:
        points = made(clouds, name, severity)[0]
        kept = members(points, clean).sum()
        touched.append((len(points) - kept) + (N - kept))
    assert (np.diff(touched) > 0).all()


def test_noise_has_its_stated_size(clouds, monkeypatch):
    monkeypatch.setattr(module, "unit_box", lambda points: points)
    for severity in SEVERITIES:
        noise = made(clouds, "uniform", severity) - clouds[:, :N]
        bound = 0.01 * severity
        assert np.abs(noise).max() <= bound + 1e-6
        assert noise.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    inner = clouds * np.float32(0.5)  # far from the box, where nothing is clipped
    for severity, std in zip(SEVERITIES, (0.01, 0.015, 0.02, 0.025, 0.03)):
        noise = made(inner, "gaussian", severity) - inner[:, :N]
        assert noise.std() == pytest.approx(std, rel=0.02)
    assert np.abs(made(clouds * 1.5, "gaussian", 5)).max() == 1


def test_impulse_moves_a_few_points_by_a_tenth(clouds, monkeypatch):
    monkeypatch.setattr(module, "unit_box", lambda points: points)
    for severity, divisor in zip(SEVERITIES, (30, 25, 20, 15, 10)):
        moved = made(clouds, "impulse", severity) - clouds[:, :N]
        hit = np.abs(moved).max(axis=-1) > 0
        assert (hit.sum(axis=1) == N // divisor).all()
        np.testing.assert_allclose(np.abs(moved[hit]), 0.1, atol=1e-6)


def test_rotation_keeps_all_distances(clouds, monkeypatch):
    monkeypatch.setattr(module, "unit_box", lambda points: points)
    for severity in SEVERITIES:
        turned = made(clouds[:, :200], "rotation", severity)
        for before, after in zip(clouds[:, :200], turned):
            np.testing.assert_allclose(pdist(after), pdist(before), atol=1e-5)


def draws(number):
    return Draws([np.random.default_rng(seed) for seed in range(number)])


def test_rotation_is_rx_ry_rz_within_its_angles():
    for severity, center in zip(SEVERITIES, (2.5, 5, 7.5, 10, 15)):
        turns = module.small_rotations(severity, draws(200)).astype(float)
        np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-5)
        # Rx Ry Rz = [[cy cz, -cy sz, sy], [.., .., -sx cy], [.., .., cx cy]]
        angles = np.rad2deg(
            [
                np.arctan2(-turns[:, 1, 2], turns[:, 2, 2]),
                np.arcsin(turns[:, 0, 2]),
                np.arctan2(-turns[:, 0, 1], turns[:, 0, 0]),
            ]
        )
        assert np.abs(angles).min() >= center - 2.5 - 1e-3
        assert np.abs(angles).max() <= center + 2.5 + 1e-3
        assert 0.4 < (angles > 0).mean() < 0.6


def test_shear_has_its_form(clouds, monkeypatch):
    monkeypatch.setattr(module, "unit_box", lambda points: points)
    for severity in SEVERITIES:
        matrices = module.shears(severity, draws(100))
        np.testing.assert_array_equal(np.diagonal(matrices, axis1=1, axis2=2), 1)
        np.testing.assert_array_equal(matrices[:, [0, 2], 1], 0)
        entries = np.abs(matrices[:, [0, 1, 1, 2], [2, 0, 2, 0]])
        assert entries.min() >= 0.05 * severity - 0.05 - 1e-6
        assert entries.max() <= 0.05 * severity + 0.05 + 1e-6
    one = module.shears(3, draws(3))
    expected = np.einsum("npi,nij->npj", clouds, one)  # row vectors, as the benchmark has them
    sheared = module.shear(clouds, 3, draws(3))
    np.testing.assert_allclose(sheared, expected, atol=1e-6)
    np.testing.assert_allclose(sheared[..., 1], clouds[..., 1], atol=1e-6)


def test_bernstein_polynomials_reproduce_the_corners(monkeypatch):
    """At the box's corners exactly one control point counts; in its inside all do, and sum to 1."""
    monkeypatch.setattr(module, "unit_box", lambda points: points)
    corners = np.array([[-1, -1, -1], [1, 1, 1], [1, -1, 1], [3, 0, 0]], np.float32)[None]
    moved = module.distortion(corners, 2, draws(1)) - corners
    shifts = draws(1).uniform(-0.4, 0.4, len(LATTICE), 3)[0]
    for corner, move in zip(corners[0, :3], moved[0, :3]):
        control = np.flatnonzero((corner == LATTICE).all(axis=1)).item()
        np.testing.assert_allclose(move, shifts[control], atol=1e-6)
    np.testing.assert_array_equal(moved[0, 3], 0)  # outside the box

    monkeypatch.setattr(
        Draws, "uniform", lambda self, low, high, *shape: np.full((1, *shape), high)
    )
    inside = np.random.default_rng(0).uniform(-1, 1, (1, 50, 3)).astype(np.float32)
    np.testing.assert_allclose(module.distortion(inside, 2, draws(1)) - inside, 0.4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kernel"),
    [("distortion_rbf", "multiquadric"), ("distortion_rbf_inv", "inverse_multiquadric")],
)
def test_radial_functions_against_scipy(clouds, monkeypatch, name, kernel):
    monkeypatch.setattr(module, "unit_box", lambda points: points)
    moves = 0.075 * directions(draws(3), len(LATTICE))
    found = CORRUPTIONS[name](clouds[:, :N], 3, draws(3)) - clouds[:, :N]
    for i in range(3):
        # scipy's kernels are sqrt((epsilon r)^2 + 1) and its inverse: the same up to a factor
        truth = RBFInterpolator(LATTICE, moves[i], kernel=kernel, epsilon=2.0, degree=1)
        np.testing.assert_allclose(found[i], truth(clouds[i, :N]), atol=2e-4)


def test_cutout_leaves_holes(clouds):
    """What is gone at severity 1 are the 30 nearest of a center, twice."""
    cloud = clouds[0, :N]
    kept = set(map(tuple, made(clouds, "cutout", 1)[0].tolist()))
    gone = cloud[~members(cloud, kept)]
    assert len(gone) == 60
    sizes = []
    for center in gone:  # some center's 30 nearest neighbors are all gone
        nearest = np.argsort(np.linalg.norm(cloud - center, axis=1))[:30]
        sizes.append((~members(cloud[nearest], kept)).sum())
    assert max(sizes) == 30


def test_density_thins_a_patch_by_three_quarters(clouds):
    cloud = clouds[0, :N]
    kept = set(map(tuple, made(clouds, "density", 1)[0].tolist()))
    lost = [
        (~members(cloud[np.argsort(np.linalg.norm(cloud - center, axis=1))[:100]], kept)).sum()
        for center in cloud
    ]
    assert max(lost) == 75


def test_density_inc_keeps_whole_patches(clouds):
    """The first 100 s points are s disjoint patches of the full cloud, the others from its rest."""
    full = clouds[0]
    everything = set(map(tuple, full.tolist()))
    for severity in SEVERITIES:
        points = made(clouds, "density_inc", severity)[0]
        assert members(points, everything).all()
        patches = points[: 100 * severity]
        assert len({*map(tuple, patches.tolist())}) == 100 * severity
        assert not members(points[100 * severity :], {*map(tuple, patches.tolist())}).any()
        first = set(map(tuple, patches[:100].tolist()))
        assert any(
            members(full[np.argsort(np.linalg.norm(full - center, axis=1))[:100]], first).all()
            for center in patches[:100]
        )


def test_counts_grow_with_the_cloud(clouds):
    assert corrupt(clouds[:, :128], "cutout", 1, SEEDS).shape[1] == 128 - 2 * 4
    assert corrupt(clouds[:, :256], "density_inc", 5, SEEDS).shape[1] == 128


def test_unknown_names_and_severities(clouds):
    with pytest.raises(ConfigError, match=r"corruptions\.names: 'rotate' .*'rotation'"):
        corrupt(clouds, "rotate", 1, SEEDS)
    with pytest.raises(ConfigError, match=r"corruptions\.severities: 6"):
        corrupt(clouds, "rotation", 6, SEEDS)


def test_directions_are_those_of_the_published_generator():
    """Both angles uniform: root mean squares of 1/2, 1/2 and 1/sqrt(2) of the length."""
    draws = Draws([np.random.default_rng(i) for i in range(40)])
    found = directions(draws, 2000)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-5)
    rms = np.sqrt((found**2).mean((0, 1)))
    np.testing.assert_allclose(rms, [0.5, 0.5, np.sqrt(0.5)], atol=0.005)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("number", [2, 3, 8])
def test_tiny_clouds_can_be_corrupted(name, number):
    points = np.random.default_rng(0).uniform(-1, 1, (2, number, 3)).astype(np.float32)
    for severity in (1, 5):
        options = {"number": max(1, number // 2)} if name == "density_inc" else {}
        made = corrupt(points, name, severity, [0, 1], **options)
        assert np.isfinite(made).all()
        assert made.shape[1] >= 1
        if name == "density_inc":
            assert made.shape[1] == options["number"]
