"""Corrupted test clouds in one file, generated or published, and accuracy on them."""

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from equiscape.analyses.robustness import measure_robustness
from equiscape.data import corrupted, modelnet_layout, pointcloud
from equiscape.data.base import Batch
from equiscape.data.corrupted import PUBLISHED, prepare, read_corrupted
from equiscape.data.corruptions import CORRUPTIONS, corrupt
from equiscape.errors import ConfigError, DataError
from equiscape.files import products
from equiscape.task import Task

GENERATED = {"source": "generated", "severities": [1, 4], "seed": 0}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared data set: 12 training and 10 test clouds of 128 points, 2 classes."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    sides = {
        side: (rng.uniform(-1, 1, (n, 128, 3)).astype(np.float32), np.arange(n) % 2)
        for side, n in (("train", 12), ("test", 10))
    }
    modelnet_layout.write(folder / "source", ["a", "b"], sides)
    pointcloud.prepare({"validation": 0.5}, folder / "source", folder / "shapes.h5")
    return folder / "shapes.h5"


def generate(prepared, output, points=64, **settings):
    prepare({"points": points, "corruptions": {**GENERATED, **settings}}, None, prepared, output)
    return list(read_corrupted(output))


def test_generated(prepared, tmp_path):
    cells = generate(prepared, tmp_path / "c.h5")
    assert [(name, severity) for name, severity, *_ in cells] == [
        (name, severity) for name in CORRUPTIONS for severity in (1, 4)
    ]
    sizes = {name: points.shape for name, severity, points, _ in cells if severity == 4}
    assert sizes["uniform"] == (10, 64, 3)
    assert sizes["upsampling"] == (10, 64 + 32, 3)
    assert sizes["density_inc"] == (10, 64, 3)
    for *_, labels in cells:
        np.testing.assert_array_equal(labels, np.arange(10) % 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.h5", "c.json"]


def test_a_subset_holds_the_same_clouds(prepared, tmp_path):
    everything = generate(prepared, tmp_path / "all.h5", names=["gaussian", "cutout"])
    some = generate(prepared, tmp_path / "some.h5", names=["gaussian", "cutout"], samples=4)
    for (*_, whole, _), (*_, part, labels) in zip(everything, some):
        assert len(part) == len(labels) == 4
        pairs = [(cloud == whole).all(axis=(1, 2)) for cloud in part]
        assert all(same.sum() == 1 for same in pairs)


def test_the_seed_counts(prepared, tmp_path):
    same = [generate(prepared, tmp_path / f"{i}.h5", names=["uniform"])[0][2] for i in range(2)]
    np.testing.assert_array_equal(*same)
    other = generate(prepared, tmp_path / "other.h5", names=["uniform"], seed=1)[0][2]
    assert not np.array_equal(same[0], other)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"names": ["lidar"]}, r"corruptions\.names: 'lidar' is unknown"),
        ({"severities": [0]}, r"corruptions\.severities: 0"),
    ],
)
def test_unknown_settings(prepared, tmp_path, settings, says):
    with pytest.raises(ConfigError, match=says):
        generate(prepared, tmp_path / "c.h5", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_new_generated_corruption_is_read_and_no_archive_must_have_it(
    prepared, tmp_path, monkeypatch
):
    monkeypatch.setitem(CORRUPTIONS, "mirrored", lambda points, severity, draws: -points)
    assert [cell[0] for cell in generate(prepared, tmp_path / "c.h5", names=["mirrored"])][:1] == [
        "mirrored"
    ]
    assert len(PUBLISHED) == 15
    assert "mirrored" not in PUBLISHED


@pytest.fixture
def published(tmp_path):
    """All 75 arrays of 6 clouds, in an archive as the benchmark's."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "modelnet40_c.zip", "w") as archive:
        for name in PUBLISHED:
            for severity in range(1, 6):
                points = rng.uniform(-1, 1, (6, 30 + severity, 3))
                with archive.open(f"modelnet40_c/data_{name}_{severity}.npy", "w") as file:
                    np.save(file, points)
        with archive.open("modelnet40_c/label.npy", "w") as file:
            np.save(file, np.arange(6)[:, None])
    return tmp_path / "modelnet40_c.zip"


def test_published(published, tmp_path):
    entry = {"corruptions": {"source": "https://a/modelnet40_c.zip"}}
    prepare(entry, published, None, tmp_path / "c.h5")
    cells = list(read_corrupted(tmp_path / "c.h5"))
    assert len(cells) == 75
    for name, severity, points, labels in cells:
        assert name in PUBLISHED
        assert points.shape == (6, 30 + severity, 3)
        assert points.dtype == np.float32
        np.testing.assert_array_equal(labels, np.arange(6))
    some = {"corruptions": {"source": "x", "names": ["lidar"], "severities": [2]}}
    prepare(some, published, None, tmp_path / "some.h5")
    assert [cell[:2] for cell in read_corrupted(tmp_path / "some.h5")] == [("lidar", 2)]


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (None, r"data_uniform_1\.npy is missing"),
        (np.zeros((5, 30, 3)), r"data_uniform_1\.npy .* shape \[5, 30, 3\]"),
        (np.full((6, 30, 3), np.nan), r"data_uniform_1\.npy .* not finite"),
        (
            np.array([{"a": 1}] * 6),
            r"data_uniform_1\.npy .* damaged .*instead of plain numbers",
        ),
        (b"\x93NUMPY\x01\x00", r"data_uniform_1\.npy .* damaged"),
    ],
)
def test_damaged_arrays_are_refused_by_name(tmp_path, array, says):
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "label.npy", np.arange(6))
    if isinstance(array, bytes):
        (folder / "data_uniform_1.npy").write_bytes(array)
    elif array is not None:
        np.save(folder / "data_uniform_1.npy", array)
    entry = {"corruptions": {"source": "x", "names": ["uniform"], "severities": [1]}}
    with pytest.raises(DataError, match=says):
        prepare(entry, folder, None, tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()


def test_damaged_file(tmp_path):
    with pytest.raises(DataError, match=r"c\.h5 does not exist"):
        list(read_corrupted(tmp_path / "c.h5"))
    (tmp_path / "c.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(DataError, match=r"c\.h5 has no record c\.json .*--forcerun corrupt"):
        list(read_corrupted(tmp_path / "c.h5"))
    with h5py.File(tmp_path / "c.h5", "w"):
        pass
    products.sign(tmp_path / "c.h5")
    (tmp_path / "c.h5").touch()
    with pytest.raises(DataError, match=rf"format None instead of '{corrupted.FORMAT}'"):
        list(read_corrupted(tmp_path / "c.h5"))
    (tmp_path / "c.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(DataError, match=r"c\.h5 is damaged"):
        list(read_corrupted(tmp_path / "c.h5"))


class Radius(nn.Module):
    """Says class 1 where the mean of |x| exceeds a threshold."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, points):
        over = points.abs().mean((1, 2)) - self.threshold
        return torch.stack([-over, over], 1)


def test_robustness_is_the_accuracy_of_every_cell(prepared, tmp_path):
    generate(prepared, tmp_path / "c.h5")
    dataset = pointcloud.load(prepared, "cpu", {"points": 64})
    entry = {"architecture": "pointnet", "training": {"batch_size": 3}}
    task = Task("toy", entry, dataset, torch.device("cpu"))
    models = {1: Radius(0.0), 2: Radius(0.5)}
    frame = measure_robustness(task, models, tmp_path / "c.h5").frame()
    assert list(frame.columns) == ["seed", "corruption", "severity", "accuracy", "mean"]
    assert len(frame) == len(CORRUPTIONS) * 2 * 2
    assert (frame[frame.seed == 1].accuracy == 50).all(), "always class 1, half of the clouds"

    with h5py.File(prepared) as file:
        seeds = [int(np.random.SeedSequence([0, i]).generate_state(1)[0]) for i in range(12, 22)]
        points = corrupt(file["points"][12:, :64], "shear", 4, seeds)
    batch = Batch((torch.from_numpy(points),), torch.arange(10) % 2, 10)
    truth = task.score(models[2], iter([batch]))["score"]
    found = frame.query("seed == 2 and corruption == 'shear' and severity == 4").accuracy.item()
    assert found == pytest.approx(truth)


def test_robustness_refuses_another_data_set(prepared, published, tmp_path):
    prepare(
        {"corruptions": {"source": "x", "names": ["lidar"]}}, published, None, tmp_path / "c.h5"
    )
    dataset = pointcloud.load(prepared, "cpu", {"points": 64})
    task = Task("toy", {"architecture": "pointnet"}, dataset, torch.device("cpu"))
    with pytest.raises(DataError, match=r"label 5, but the data set of task toy has 2 classes"):
        measure_robustness(task, {1: Radius(0.0)}, Path(tmp_path / "c.h5"))
