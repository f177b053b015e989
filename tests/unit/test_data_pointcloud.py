"""Preparing and loading data sets in ModelNet40's layout, whole and damaged."""

import shutil
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import torch

from equiscape.data import modelnet_layout, pointcloud
from equiscape.data.pointcloud import load, prepare, unit_sphere
from equiscape.data.splits import hold_out
from equiscape.errors import ConfigError, DataError
from equiscape.files import products
from equiscape.io import sha256

NAMES = ["ball", "box", "cone"]
ENTRY = {"validation": 0.25, "seed": 3}


def clouds(n, seed):
    """Points whose first coordinate tells which cloud they belong to."""
    points = np.random.default_rng(seed).random((n, 8, 3)).astype(np.float32)
    points[:, :, 0] = np.arange(n)[:, None] + 1000 * seed
    return points, np.arange(n) % len(NAMES)


@pytest.fixture
def folder(tmp_path):
    """24 training and 9 test clouds of 3 classes, 8 points each, in two training files."""
    made = tmp_path / "source"
    modelnet_layout.write(made, NAMES, {"train": clouds(24, 0), "test": clouds(9, 1)})
    with h5py.File(made / "ply_data_train0.h5", "r") as file:
        data, label = file["data"][()], file["label"][()]
    for i, part in enumerate((slice(0, 10), slice(10, 24))):
        with h5py.File(made / f"ply_data_train{i}.h5", "w") as file:
            file["data"], file["label"] = data[part], label[part]
    (made / "train_files.txt").write_text("data/x/ply_data_train0.h5\ndata/x/ply_data_train1.h5\n")
    return made


def rewrite(path, **arrays):
    """Replace arrays of an HDF5 file."""
    with h5py.File(path, "a") as file:
        for name, array in arrays.items():
            if name in file:
                del file[name]
            if array is not None:
                file[name] = array


def packed(folder, path):
    """The folder as an archive, inside a folder of its own as ModelNet40's."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in folder.iterdir():
                archive.write(file, f"modelnet40_ply_hdf5_2048/{file.name}")
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, "modelnet40_ply_hdf5_2048")
    return path


def contents(path):
    with h5py.File(path, "r") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        return {name: file[name][()] for name in names}, dict(file.attrs)


def test_prepared_file(folder, tmp_path):
    prepare(ENTRY, folder, tmp_path / "shapes.h5")
    arrays, attributes = contents(tmp_path / "shapes.h5")
    train, test = clouds(24, 0), clouds(9, 1)
    np.testing.assert_array_equal(arrays["points"], np.concatenate([train[0], test[0]]))
    np.testing.assert_array_equal(arrays["labels"], np.concatenate([train[1], test[1]]))
    assert arrays["points"].dtype == np.float32
    assert arrays["labels"].dtype == np.int64
    assert [name.decode() for name in arrays["class_names"]] == NAMES
    np.testing.assert_array_equal(arrays["split/test"], np.arange(24, 33))
    split = np.concatenate([arrays["split/train"], arrays["split/validation"]])
    np.testing.assert_array_equal(np.sort(split), np.arange(24))
    validation = arrays["labels"][arrays["split/validation"]]
    np.testing.assert_array_equal(np.bincount(validation), [2, 2, 2])
    assert attributes["format"] == "equiscape-pointcloud-1"
    assert attributes["preparation_version"] == pointcloud.VERSION
    assert len(attributes["source_sha256"]) == 64
    assert [path.name for path in tmp_path.glob("*.h5*")] == ["shapes.h5"]


@pytest.mark.parametrize("kind", ["data.zip", "data.tar.gz"])
def test_archives_give_what_the_folder_gives(folder, tmp_path, kind):
    archive = packed(folder, tmp_path / kind)
    entry = {**ENTRY, "sha256": sha256(archive), "expect": {"train": 24, "test": 9, "classes": 3}}
    prepare(entry, archive, tmp_path / "archive.h5")
    prepare(ENTRY, folder, tmp_path / "folder.h5")
    (a, of_archive), (b, _) = contents(tmp_path / "archive.h5"), contents(tmp_path / "folder.h5")
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert of_archive["source_sha256"] == sha256(archive)


def test_the_same_source_gives_the_same_bytes(folder, tmp_path):
    for name in ("a/x.h5", "b/x.h5"):
        prepare(ENTRY, folder, tmp_path / name)
    assert sha256(tmp_path / "a/x.h5") == sha256(tmp_path / "b/x.h5")
    prepare({**ENTRY, "seed": 4}, folder, tmp_path / "c.h5")
    assert not np.array_equal(
        contents(tmp_path / "a/x.h5")[0]["split/train"],
        contents(tmp_path / "c.h5")[0]["split/train"],
    )


def test_source_checksum_follows_the_bytes(folder, tmp_path):
    sums = []
    for _ in range(2):
        prepare(ENTRY, folder, tmp_path / "x.h5")
        sums.append(contents(tmp_path / "x.h5")[1]["source_sha256"])
        (folder / "notes.txt").write_text("not read, so not counted")
    rewrite(folder / "ply_data_test0.h5", label=np.zeros((9, 1), np.uint8))
    prepare(ENTRY, folder, tmp_path / "x.h5")
    sums.append(contents(tmp_path / "x.h5")[1]["source_sha256"])
    assert sums[0] == sums[1] != sums[2]


def bad_label(folder):
    rewrite(folder / "ply_data_train1.h5", label=np.full((14, 1), 3))


def infinite(folder):
    points = clouds(9, 1)[0]
    points[4, 2, 1] = np.inf
    rewrite(folder / "ply_data_test0.h5", data=points)


def short_labels(folder):
    rewrite(folder / "ply_data_train0.h5", label=np.zeros((9, 1)))


def flat(folder):
    rewrite(folder / "ply_data_train0.h5", data=np.zeros((10, 8)))


def fewer_points(folder):
    rewrite(folder / "ply_data_test0.h5", data=np.zeros((9, 7, 3)))


def without_labels(folder):
    rewrite(folder / "ply_data_train0.h5", label=None)


def truncated(folder):
    path = folder / "ply_data_train1.h5"
    path.write_bytes(path.read_bytes()[:-200])


def listed_but_missing(folder):
    (folder / "ply_data_train1.h5").unlink()


def no_test_files(folder):
    (folder / "test_files.txt").unlink()
    (folder / "ply_data_test0.h5").unlink()


def no_names(folder):
    (folder / "shape_names.txt").unlink()


def repeated_names(folder):
    (folder / "shape_names.txt").write_text("ball\nbox\nball\n")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (bad_label, r"ply_data_train1\.h5 .* label 3, .* 3 classes"),
        (infinite, r"ply_data_test0\.h5 .* 1 clouds .* not finite"),
        (short_labels, r"ply_data_train0\.h5 .* 10 clouds but 9 entries of label"),
        (flat, r"ply_data_train0\.h5 .* shape \[10, 8\]"),
        (fewer_points, r"ply_data_test0\.h5 .* 7 points a cloud"),
        (without_labels, r"ply_data_train0\.h5 .* is damaged"),
        (truncated, r"ply_data_train1\.h5 .* is damaged"),
        (listed_but_missing, r"ply_data_train1\.h5 is missing"),
        (no_test_files, r"no ply_data_test\*\.h5"),
        (no_names, r"shape_names\.txt is missing"),
        (repeated_names, r"shape_names\.txt .* twice"),
    ],
)
def test_damaged_files_are_refused_by_name(folder, tmp_path, damage, says):
    damage(folder)
    with pytest.raises(DataError, match=says) as error:
        prepare(ENTRY, folder, tmp_path / "x.h5")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        ({"train": 25}, "holds 24 train clouds instead of 25"),
        ({"test": 8}, "holds 9 test clouds instead of 8"),
        ({"classes": 40}, "holds 3 classes instead of 40"),
    ],
)
def test_a_short_source_is_refused(folder, tmp_path, expect, says):
    with pytest.raises(DataError, match=says):
        prepare({**ENTRY, "expect": expect}, folder, tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_damaged_archives_are_refused_by_name(folder, tmp_path):
    archive = packed(folder, tmp_path / "data.zip")
    whole = archive.read_bytes()
    with pytest.raises(DataError, match=r"data\.zip has SHA-256"):
        prepare({**ENTRY, "sha256": "0" * 64}, archive, tmp_path / "x.h5")
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"data\.zip .*cut short"):
        prepare(ENTRY, archive, tmp_path / "x.h5")
    with zipfile.ZipFile(packed(folder, archive)) as opened:
        info = opened.getinfo("modelnet40_ply_hdf5_2048/ply_data_test0.h5")
    middle = info.header_offset + 200 + info.compress_size // 2
    archive.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(DataError, match=r"(ply_data_\w+\.h5|data\.zip).* damaged"):
        prepare(ENTRY, archive, tmp_path / "x.h5")
    archive.write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match="HTML page"):
        prepare(ENTRY, archive, tmp_path / "x.h5")
    with pytest.raises(DataError, match="does not exist"):
        prepare(ENTRY, tmp_path / "nowhere", tmp_path / "x.h5")


def test_groups_never_straddle_the_split(folder, tmp_path):
    groups = np.repeat(np.arange(8), 3)  # 8 groups of 3, across classes and files
    rewrite(folder / "ply_data_train0.h5", group=groups[:10])
    rewrite(folder / "ply_data_train1.h5", group=groups[10:])
    rewrite(folder / "ply_data_test0.h5", group=np.zeros(9, int))
    for seed in range(5):
        prepare({**ENTRY, "seed": seed}, folder, tmp_path / "x.h5")
        arrays, _ = contents(tmp_path / "x.h5")
        kept = [set(arrays["group"][arrays[f"split/{s}"]]) for s in pointcloud.SPLITS]
        assert not kept[0] & kept[1]
        assert not (kept[0] | kept[1]) & kept[2], "test files count their groups anew"
        assert len(arrays["split/validation"]) == 6


def test_group_split_is_stratified():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 60)
    groups = np.arange(600) // generator.integers(1, 4, 600).cumsum().clip(1, 3)
    for share in (0.1, 0.15, 0.3):
        train, validation = hold_out(labels, groups, share, seed=0)
        assert not set(groups[train]) & set(groups[validation])
        np.testing.assert_array_equal(np.sort([*train, *validation]), np.arange(600))
        counts = np.bincount(labels[validation], minlength=10)
        np.testing.assert_allclose(counts, 60 * share, atol=3)


def test_a_share_that_cannot_be_held_out():
    with pytest.raises(ConfigError, match=r"validation: 0\.1 of 4 samples"):
        hold_out(np.arange(4), None, 0.1, seed=0)


def test_load(folder, tmp_path):
    prepare(ENTRY, folder, tmp_path / "x.h5")
    dataset = load(tmp_path / "x.h5", "cpu", {"points": 5})
    assert dataset.model_arguments() == {"num_outputs": 3}
    assert [dataset.size(split) for split in pointcloud.SPLITS] == [18, 6, 9]
    everything, _ = contents(tmp_path / "x.h5")
    for split in pointcloud.SPLITS:
        plan = dataset.plan(split, 4, torch.Generator().manual_seed(0))
        seen = torch.cat(plan)
        assert sorted(seen.tolist()) == list(range(dataset.size(split)))
        indices = everything[f"split/{split}"]
        for chosen in plan:
            batch = dataset.gather(split, chosen)
            rows = indices[chosen.numpy()]
            np.testing.assert_array_equal(batch.inputs[0], everything["points"][rows, :5])
            np.testing.assert_array_equal(batch.target, everything["labels"][rows])
            assert batch.size == len(chosen)
    assert dataset.objective.metric.name == "accuracy"


def test_load_refuses(folder, tmp_path):
    prepare(ENTRY, folder, tmp_path / "x.h5")
    with pytest.raises(ConfigError, match=r"points: 9 .* has 8"):
        load(tmp_path / "x.h5", "cpu", {"points": 9})
    with pytest.raises(DataError, match=r"y\.h5 does not exist"):
        load(tmp_path / "y.h5", "cpu", {})
    shutil.copy(folder / "ply_data_test0.h5", tmp_path / "y.h5")
    products.sign(tmp_path / "y.h5")
    with pytest.raises(DataError, match=r"y\.h5 is of format None"):
        load(tmp_path / "y.h5", "cpu", {})
    (tmp_path / "y.h5").write_bytes((tmp_path / "x.h5").read_bytes()[:300])
    with pytest.raises(DataError, match=r"y\.h5 is damaged"):
        load(tmp_path / "y.h5", "cpu", {})


def test_sampled_points_are_the_clouds_own(folder, tmp_path):
    prepare(ENTRY, folder, tmp_path / "x.h5")
    dataset = load(tmp_path / "x.h5", "cpu", {"points": 5, "sample_points": True})
    full = load(tmp_path / "x.h5", "cpu", {})
    indices = torch.arange(18)
    batch = dataset.gather("train", indices)
    every = full.gather("train", indices).inputs[0]
    assert batch.inputs[0].shape == (18, 5, 3)
    drawn = dataset.augment(batch, {}, torch.Generator().manual_seed(0)).inputs[0]
    again = dataset.augment(batch, {}, torch.Generator().manual_seed(0)).inputs[0]
    torch.testing.assert_close(drawn, again, rtol=0, atol=0)
    assert not torch.equal(drawn, batch.inputs[0])
    same = (drawn[:, :, None] == every[:, None]).all(-1)  # [cloud, drawn, of the cloud]
    assert (same.sum(2) == 1).all()
    assert same.any(1).sum(1).tolist() == [5] * 18, "without replacement"
    assert dataset.gather("test", torch.arange(3)).every_point is None


def test_unit_sphere():
    points = np.random.default_rng(0).normal(3, 2, (4, 50, 3)).astype(np.float32)
    found = unit_sphere(points)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1).max(1), 1, atol=1e-6)
    np.testing.assert_array_equal(unit_sphere(np.ones((1, 5, 3), np.float32)), 0)


def test_normalized_while_prepared(folder, tmp_path):
    prepare({**ENTRY, "normalize": True}, folder, tmp_path / "x.h5")
    points = contents(tmp_path / "x.h5")[0]["points"]
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1).max(1), 1, atol=1e-6)


@pytest.mark.slow
def test_real_shapes(real_data, tmp_path):
    entry = {"expect": {"train": 1775, "test": 447, "classes": 56}, "validation": 0.1}
    prepare(entry, real_data / "shapes56", tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        groups = {s: set(file["group"][()][file[f"split/{s}"][()]]) for s in pointcloud.SPLITS}
        assert not groups["train"] & groups["validation"]
        counts = np.bincount(file["labels"][()][file["split/validation"][()]], minlength=56)
        assert counts.min() >= 1
    dataset = load(tmp_path / "x.h5", "cpu", {"points": 64})
    assert dataset.size("train") + dataset.size("validation") == 1775
