"""The plane: its directions, its center to the last bit, its file."""

import h5py
import numpy as np
import pytest
import torch
from tiny_task import tiny_network, tiny_task

from equiscape.analyses.result import Result, write
from equiscape.analyses.slice import Settings
from equiscape.errors import ConfigError, DataError
from equiscape.landscape.slices import (
    cosine,
    cuts,
    filter_normalized,
    measure_slice,
    read_slice,
)
from equiscape.registry import call

SETTINGS = {"samples": None, "batch_size": 5, "resolution": 5, "range": 0.8, "seed": 2}


@pytest.fixture(scope="module")
def plane():
    return measure_slice(tiny_task(), tiny_network(), **SETTINGS)


def test_the_center_is_the_checkpoint_to_the_last_bit(plane):
    truth = tiny_task().score(
        tiny_network(), [tiny_task().batch("train", i) for i in torch.arange(13).split(5)]
    )
    assert plane.axis_x[2] == plane.axis_y[2] == 0.0
    assert plane.loss[2, 2] == plane.attributes["checkpoint_loss"] == truth["loss"]
    assert plane.score[2, 2] == plane.attributes["checkpoint_score"] == truth["score"]
    assert plane.attributes["center_loss"] == truth["loss"]


def test_every_point_is_the_loss_of_the_network_moved_there(plane):
    """Rows of ``loss`` run along y, columns along x."""
    model = tiny_network().eval()
    x, y = filter_normalized(model, 4), filter_normalized(model, 5)
    assert (plane.attributes["seed_x"], plane.attributes["seed_y"]) == (4, 5)
    with torch.no_grad():
        for p, dx, dy in zip(model.parameters(), x, y, strict=True):
            p += plane.axis_x[3] * dx + plane.axis_y[0] * dy
    truth = tiny_task().evaluate(model, "train")
    assert plane.loss[0, 3] == pytest.approx(truth["loss"], rel=1e-6)
    assert plane.score[0, 3] == pytest.approx(truth["score"])


def test_bands_are_lines_along_further_directions():
    """The first pair is the plane's own; every line passes through the checkpoint."""
    result = measure_slice(tiny_task(), tiny_network(), **SETTINGS, bands=3)
    assert result.band_loss.shape == result.band_score.shape == (6, 5)
    assert np.array_equal(result.band_loss[0], result.loss[2])
    assert np.array_equal(result.band_loss[1], result.loss[:, 2])
    assert (result.band_loss[:, 2] == result.attributes["checkpoint_loss"]).all()
    assert len({tuple(line) for line in result.band_loss}) == 6
    direction = filter_normalized(tiny_network(), result.attributes["band_seeds"][0])
    model = tiny_network().eval()
    with torch.no_grad():
        for p, d in zip(model.parameters(), direction, strict=True):
            p += result.axis_x[4] * d
    truth = tiny_task().evaluate(model, "train")
    assert result.band_loss[2, 4] == pytest.approx(truth["loss"], rel=1e-6)


def test_points_in_one_pass_give_the_same_plane(plane):
    together = measure_slice(tiny_task(), tiny_network(), **SETTINGS, batch_points=7)
    np.testing.assert_allclose(together.loss, plane.loss, rtol=1e-6)
    np.testing.assert_allclose(together.score, plane.score)


def test_chance_is_stated_beside_the_plane(plane):
    labels = torch.cat([tiny_task().batch("train", i).target for i in torch.arange(13).split(5)])
    chance = tiny_task().dataset.objective.chance_loss(labels)
    assert plane.attributes["chance_loss"] == pytest.approx(chance)


def test_axes_are_symmetric_and_exact(plane):
    np.testing.assert_allclose(plane.axis_x, [-0.8, -0.4, 0, 0.4, 0.8])
    assert np.array_equal(plane.axis_x, -plane.axis_x[::-1])


def test_directions_are_filter_normalized():
    model = tiny_network()
    direction = filter_normalized(model, 0)
    for (name, parameter), d in zip(model.named_parameters(), direction, strict=True):
        assert d.shape == parameter.shape
        if parameter.dim() == 2:
            torch.testing.assert_close(d.norm(dim=1), parameter.detach().norm(dim=1))
        else:
            assert not d.any(), name


def test_directions_scale_with_the_network():
    """Twice the weights, twice the direction: the plane sees relative change."""
    model, doubled = tiny_network(), tiny_network()
    with torch.no_grad():
        for parameter in doubled.parameters():
            parameter *= 2
    for d, twice in zip(filter_normalized(model, 1), filter_normalized(doubled, 1), strict=True):
        torch.testing.assert_close(2 * d, twice)


def test_one_seed_is_one_direction_and_others_are_nearly_orthogonal():
    model = tiny_network(hidden=400)
    first, again, other = (filter_normalized(model, seed) for seed in (0, 0, 1))
    assert cosine(first, again) == pytest.approx(1.0)
    assert abs(cosine(first, other)) < 0.1


def test_the_cosine_is_stored(plane):
    model = tiny_network()
    expected = cosine(filter_normalized(model, 4), filter_normalized(model, 5))
    assert plane.attributes["cosine"] == pytest.approx(expected, rel=1e-12)


def test_the_model_is_restored():
    model = tiny_network().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    measure_slice(tiny_task(), model, **SETTINGS)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_losses_that_are_not_finite_are_kept():
    model = tiny_network()
    plane = measure_slice(tiny_task(), model, **{**SETTINGS, "range": 1e38})
    assert not np.isfinite(plane.loss).all()
    assert np.isfinite(plane.loss[2, 2])


def test_cuts_are_the_middle_row_and_column(plane):
    table = cuts(plane)
    assert list(table.columns) == ["direction", "distance", "loss", "score"]
    x = table[table.direction == "x"]
    y = table[table.direction == "y"]
    assert np.array_equal(x.loss, plane.loss[2])
    assert np.array_equal(y.loss, plane.loss[:, 2])
    assert np.array_equal(x.distance, plane.axis_x)


def test_the_file_gives_back_the_plane(plane, tmp_path):
    path = tmp_path / "plane.h5"
    head = {"task": "tiny", "optimizer": "muon"}
    write(path, Result(plane.arrays(), attributes=plane.attributes), head)
    back = read_slice(path)
    for name in ("axis_x", "axis_y", "loss", "score"):
        assert np.array_equal(getattr(back, name), getattr(plane, name))
    assert back.attributes == {**plane.attributes, "optimizer": "muon"}
    with h5py.File(path) as file:
        assert np.array_equal(file["error"][()], 100 - plane.score)
        assert file.attrs["center_loss"] == file["loss"][2, 2]


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "plane.h5"
    path.write_text("not HDF5")
    with pytest.raises(DataError, match=r"plane\.h5"):
        read_slice(path)
    with pytest.raises(DataError, match=r"absent\.h5"):
        read_slice(tmp_path / "absent.h5")


@pytest.mark.parametrize(("key", "value"), [("resolution", 4), ("range", 0.0), ("rnage", 1.0)])
def test_bad_settings_name_their_key(key, value):
    with pytest.raises(ConfigError, match=f"slice.*{key}"):
        call(Settings, "analyses.slice", {**SETTINGS, key: value})
