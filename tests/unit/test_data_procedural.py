"""The generated shapes: their solids' geometry, their randomness and their layout."""

import h5py
import numpy as np
import pytest

from equiscape.data import procedural, solids
from equiscape.data.procedural import CLASSES, generate, load, make_cloud, prepare
from equiscape.errors import ConfigError


def area_and_volume(solid):
    """Of a closed mesh, the volume by the divergence theorem where its faces point outwards."""
    area, volume = 0.0, 0.0
    for p in solid:
        a, b, c, d = p[:-1, :-1], p[1:, :-1], p[1:, 1:], p[:-1, 1:]
        for x, y, z in ((a, b, c), (a, c, d)):
            normal = np.cross(y - x, z - x)
            area += np.linalg.norm(normal, axis=-1).sum() / 2
            volume += np.abs((normal * x).sum(-1)).sum() / 6
    return area, volume


def test_areas_and_volumes():
    """Against closed forms, as far as facets allow; every solid is star-shaped from the origin."""
    area, volume = area_and_volume(solids.superquadric((1, 1, 1), 1, 1, steps=60))
    assert area == pytest.approx(4 * np.pi, rel=5e-3)
    assert volume == pytest.approx(4 / 3 * np.pi, rel=1e-2)
    area, volume = area_and_volume(solids.box((1, 2, 3)))
    assert area == pytest.approx(22)
    assert volume == pytest.approx(6)
    area, _ = area_and_volume(solids.frustum(1, 0.5, 2))
    assert area == pytest.approx(np.pi * (1 + 0.25 + 1.5 * np.hypot(0.5, 2)), rel=2e-2)
    area, _ = area_and_volume(solids.tube(solids.arc(1, 360, steps=200), 0.2))
    assert area == pytest.approx(4 * np.pi**2 * 0.2, rel=3e-2)


def test_points_lie_on_the_surface_uniformly():
    rng = np.random.default_rng(0)
    points = solids.sample_surface(solids.box((2, 2, 2)), 12_000, 0, rng)
    np.testing.assert_allclose(np.abs(points).max(1), 1)
    octants = (points > 0) @ [1, 2, 4]
    np.testing.assert_allclose(np.bincount(octants), 1500, rtol=0.1)
    uneven = solids.sample_surface(solids.box((2, 2, 2)), 12_000, 1.5, rng)
    assert np.linalg.norm(uneven.mean(0)) > 5 * np.linalg.norm(points.mean(0))


def test_a_bend_keeps_the_length_of_the_axis():
    z = np.linspace(-1, 1, 200)[None]
    rod = np.stack([0 * z, 0 * z, z], -1)
    (bent,) = solids.deform([rod], bend=1.2, twist=0, taper=0)
    steps = np.linalg.norm(np.diff(bent[0], axis=0), axis=1)
    assert steps.sum() == pytest.approx(2, rel=1e-4)
    first, last = np.diff(bent[0], axis=0)[[0, -1]]
    turn = np.arccos(first @ last / np.linalg.norm(first) / np.linalg.norm(last))
    assert turn == pytest.approx(1.2, rel=2e-2)


def test_a_twist_turns_the_ends_against_each_other():
    (square,) = solids.deform([np.array([[[1, 0, -1.0]], [[1, 0, 1]], [[-1, 0, 0]]])], 0, 0.8, 0)
    bottom, top = np.arctan2(square[:2, 0, 1], square[:2, 0, 0])
    assert top - bottom == pytest.approx(0.8)


@pytest.mark.parametrize("shape", CLASSES, ids=lambda shape: shape.__name__)
def test_clouds_are_centered_in_the_unit_sphere_and_differ(shape):
    first, second = (make_cloud(shape, 200, 0.02, np.random.default_rng(s)) for s in (0, 1))
    for points in (first, second):
        np.testing.assert_allclose(points.mean(0), 0, atol=1e-12)
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)
        assert np.linalg.matrix_rank(points, tol=0.1) == 3
    assert not np.allclose(first, second)


def test_seeded_object_by_object():
    points, labels = generate(3, 4, 16, 0.02, seed=5, side=0)
    again, _ = generate(3, 4, 16, 0.02, seed=5, side=0)
    np.testing.assert_array_equal(points, again)
    more, _ = generate(4, 6, 16, 0.02, seed=5, side=0)
    some = {cloud.tobytes() for cloud in points}
    assert some < {cloud.tobytes() for cloud in more}, "more objects leave the first as they were"
    for other in (generate(3, 4, 16, 0.02, 6, 0)[0], generate(3, 4, 16, 0.02, 5, 1)[0]):
        assert not some & {cloud.tobytes() for cloud in other}
    assert sorted(np.bincount(labels)) == [4, 4, 4]


def test_prepared_in_the_common_format(tmp_path):
    entry = {"classes": 12, "train_per_class": 5, "test_per_class": 2, "points": 32, "seed": 1}
    prepare(entry, None, tmp_path / "shapes.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shapes.h5", "shapes.json"]
    dataset = load(tmp_path / "shapes.h5", "cpu", entry)
    assert [dataset.size(s) for s in ("train", "validation", "test")] == [48, 12, 24]
    assert dataset.points["train"].shape == (48, 32, 3)
    assert dataset.class_names == [shape.__name__ for shape in CLASSES[:12]]
    with h5py.File(tmp_path / "shapes.h5") as file:
        assert file["points"].shape == (84, 64, 3), "twice the points, for drawing others"


@pytest.mark.parametrize("classes", [1, len(procedural.CLASSES) + 1])
def test_number_of_classes(tmp_path, classes):
    with pytest.raises(ConfigError, match=rf"datasets\.shapes\.classes: {classes} is not between"):
        prepare({"classes": classes}, None, tmp_path / "shapes.h5")


def test_a_neighbor_by_distances_is_better_than_chance_and_far_from_perfect():
    """Classes overlap, but distances alone, all that an invariant network sees, tell them apart."""

    def radii(points):
        return np.sort(np.linalg.norm(points, axis=-1), axis=1)

    train, labels = generate(12, 20, 128, 0.02, 0, 0)
    test, truth = generate(12, 10, 128, 0.02, 0, 1)
    distance = np.linalg.norm(radii(test)[:, None] - radii(train)[None], axis=-1)
    accuracy = (labels[distance.argmin(1)] == truth).mean()
    assert 0.25 < accuracy < 0.75
