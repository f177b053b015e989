"""No sample in two splits, whole labels, small classes, and sources as people have them."""

import h5py
import numpy as np
import pytest
from small_graphs import write_zinc

from equiscape.data import modelnet_layout, zinc
from equiscape.data.duplicates import joined, without_copies
from equiscape.data.pointcloud import prepare
from equiscape.data.splits import hold_out
from equiscape.errors import ConfigError, DataError
from equiscape.files.products import record_of
from equiscape.io import read_json

ENTRY = {"validation": 0.25, "seed": 0}


@pytest.fixture
def folder(tmp_path):
    """16 training and 6 test clouds of two classes."""
    made = tmp_path / "source"
    points = np.random.default_rng(0).random((22, 5, 3)).astype(np.float32)
    labels = np.arange(22) % 2
    sides = {"train": (points[:16], labels[:16]), "test": (points[16:], labels[16:])}
    modelnet_layout.write(made, ["ball", "box"], sides)
    return made


def change(path, name, array):
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = array


def splits(path):
    with h5py.File(path) as file:
        return {s: file[f"split/{s}"][()] for s in ("train", "validation", "test")}


def test_a_file_listed_twice_or_on_both_sides_is_refused(folder, tmp_path):
    lists = folder / "train_files.txt"
    lists.write_text("a\\ply_data_train0.h5\r\nb/ply_data_train0.h5\n")
    with pytest.raises(DataError, match=r"lists ply_data_train0\.h5 twice"):
        prepare(ENTRY, folder, tmp_path / "x.h5")
    lists.write_text("C:\\data\\ply_data_train0.h5\r\n")
    prepare(ENTRY, folder, tmp_path / "x.h5")
    (folder / "test_files.txt").write_text("ply_data_train0.h5\n")
    with pytest.raises(DataError, match="among its training and its test files"):
        prepare(ENTRY, folder, tmp_path / "x.h5")


def test_copies_across_splits_are_refused_grouped_or_kept(folder, tmp_path):
    with h5py.File(folder / "ply_data_train0.h5", "r+") as file:
        data = file["data"][()]
        data[4] = data[2]
        file["data"][...] = data
    with h5py.File(folder / "ply_data_test0.h5", "r+") as file:
        test = file["data"][()]
        test[1] = data[7]
        file["data"][...] = test
    with pytest.raises(DataError, match=r"cloud 7 of ply_data_train0\.h5 .* cloud 1 of ply_data_t"):
        prepare(ENTRY, folder, tmp_path / "x.h5")
    prepare({**ENTRY, "duplicates": "keep"}, folder, tmp_path / "x.h5")
    counts = read_json(record_of(tmp_path / "x.h5"), "product")["duplicates"]
    assert counts["copies"] == 2
    assert counts["across_splits"] >= 1
    for seed in range(4):
        entry = {**ENTRY, "duplicates": "group", "seed": seed}
        prepare(entry, folder, tmp_path / "x.h5")
        found = splits(tmp_path / "x.h5")
        assert 7 not in [*found["train"], *found["validation"]], "its copy is tested on"
        assert ({2, 4} <= set(found["train"])) or ({2, 4} <= set(found["validation"]))
    counts = read_json(record_of(tmp_path / "x.h5"), "product")["duplicates"]
    assert counts == {"copies": 1, "across_splits": 0, "other_label": 0, "left_out": 1}


def test_groups_and_copies_join():
    groups, copies = np.array([0, 0, 1, 2, 3]), np.array([5, 6, 6, 7, 8])
    together = joined(groups, copies)
    assert len({*together[:3]}) == 1
    assert len({*together}) == 3
    assert joined(None, np.arange(3)) is None
    whole = {"train": np.array([0, 1]), "validation": np.array([2]), "test": np.array([3, 4])}
    left = without_copies(whole, np.array([0, 1, 1, 2, 3]))
    assert {k: v.tolist() for k, v in left.items()} == {
        "train": [0],
        "validation": [2],
        "test": [3, 4],
    }
    with pytest.raises(ConfigError, match="nothing of the validation split"):
        without_copies(whole, np.array([0, 9, 2, 2, 3]))


def test_labels_are_whole_numbers_and_names_have_no_mark(folder, tmp_path):
    names = folder / "shape_names.txt"
    names.write_text("ball\nbox\n", encoding="utf-8-sig")
    change(folder / "ply_data_test0.h5", "label", np.arange(6.0) % 2)
    prepare(ENTRY, folder, tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["class_names"][()].tolist() == [b"ball", b"box"]
    change(folder / "ply_data_test0.h5", "label", np.array([0, 1, 0, 1.7, 0, 1]))
    with pytest.raises(DataError, match=r"ply_data_test0\.h5 .* whole number.*1\.7 at 3"):
        prepare(ENTRY, folder, tmp_path / "x.h5")
    names.write_bytes("b\xe4ll\nbox\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        prepare(ENTRY, folder, tmp_path / "x.h5")


def test_a_folder_one_level_too_high_and_a_folder_of_meshes(folder, tmp_path):
    (tmp_path / "above").mkdir()
    folder.rename(tmp_path / "above/source")
    prepare(ENTRY, tmp_path / "above", tmp_path / "x.h5")
    meshes = tmp_path / "meshes/ball/train"
    meshes.mkdir(parents=True)
    for i in range(300):
        (meshes / f"a-long-name-of-a-mesh-{i}.off").touch()
    with pytest.raises(DataError, match="kind: files") as error:
        prepare(ENTRY, tmp_path / "meshes", tmp_path / "y.h5")
    assert len(str(error.value)) < 300


def test_small_classes_are_named_and_a_minimum_is_kept(caplog):
    labels = np.array([0] * 200 + [1] * 198 + [2] * 2 + [3])
    train, validation = hold_out(labels, None, 0.1, 0, names=["a", "b", "rare", "single"])
    assert "rare" in caplog.text
    assert "single" in caplog.text
    assert 3 in labels[train]
    labels = labels[:-1]
    train, validation = hold_out(labels, None, 0.1, 0, minimum=1)
    assert np.bincount(labels[validation])[2] == 1
    np.testing.assert_array_equal(np.sort([*train, *validation]), np.arange(400))
    with pytest.raises(ConfigError, match="validation_minimum: of the 2 training samples of class"):
        hold_out(labels, None, 0.1, 0, minimum=2)


@pytest.mark.parametrize(
    ("name", "change_to", "says"),
    [
        ("y", lambda a: a[:-1], "y of shape"),
        ("y", lambda a: np.where(np.arange(len(a)) == 2, np.inf, a), "not finite in row 2"),
        ("atom_type", lambda a: a + 300, r"atom types are not from 0 to 27"),
        ("atom_type", lambda a: a + 0.5, "whole numbers"),
        ("bond_type", lambda a: np.where(np.arange(len(a)) == 0, 99, a), "bond types are not"),
        ("node_ptr", lambda a: a[:-1], "node_ptr"),
        ("edge_ptr", lambda a: a[::-1].copy(), "edge_ptr"),
        ("edge_index", lambda a: np.where(a == a.max(), a + 40, a), "edge .* in molecule"),
        ("edge_index", lambda a: a[:, :-1], "edges of shape"),
        ("edge_index", lambda a: a - 1, "edge .* in molecule 0"),
    ],
)
def test_a_molecular_source_that_does_not_fit_names_file_and_molecule(
    tmp_path, name, change_to, says
):
    write_zinc(tmp_path, ("val", "test"))
    path = tmp_path / "zinc12k_official_test.npz"
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays[name] = change_to(arrays[name])
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=rf"zinc12k_official_test\.npz .*{says}"):
        zinc.prepare({}, tmp_path, tmp_path / "x.h5")
