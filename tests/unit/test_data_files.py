"""Meshes and clouds as people have them, against areas and counts that are known."""

import csv
import io

import h5py
import numpy as np
import pytest

from equiscape.data.files import mesh, prepare, sampled, surface, walked
from equiscape.errors import ConfigError, DataError
from equiscape.files.archives import open_source
from equiscape.files.arrays import Malformed

TETRAHEDRON = "4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"
OBJ = "v 0 0 0\nv 2 0 0\nv 2 1 0\nv 0 1 0\nf 1 2 3\nf 1 3 4\n"
STL = (
    "solid s\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\n"
    "endloop\nendfacet\nendsolid s\n"
)
PLY = (
    "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
    "property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
    "0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
)
PCD = (  # of fields, points and form
    "VERSION .7\nFIELDS {}\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nPOINTS {}\nDATA {}\n"
)
RNG = np.random.default_rng


def cloud(seed, number=12):
    return RNG(seed).normal(size=(number, 3))


def text(points):
    return "".join("{} {} {}\n".format(*point) for point in points)


@pytest.fixture
def folder(tmp_path):
    """Two classes with 8 training and 4 test clouds each, in three formats, and a mesh."""
    made = tmp_path / "shapes"
    for c, name in enumerate(("ball", "box")):
        for side, count in (("train", 8), ("test", 4)):
            (made / name / side).mkdir(parents=True)
            for i in range(count):
                points = cloud(100 * c + 10 * count + i) + 5
                if i % 3:
                    (made / name / side / f"{i}.xyz").write_text("# x y z\n" + text(points))
                else:
                    np.save(made / name / side / f"{i}.npy", points)
    (made / "box/train/mesh.off").write_text("OFF" + TETRAHEDRON)
    (made / "notes.md").write_text("not a shape")
    return made


ENTRY = {"samples": 10, "validation": 0.25, "seed": 1}


def read(path):
    with h5py.File(path) as file:
        return {name: file[name][()] for name in ("points", "labels", "group", "split/test")}


def test_a_folder_of_classes_and_splits(folder, tmp_path):
    prepare(ENTRY, folder, tmp_path / "x.h5")
    found = read(tmp_path / "x.h5")
    assert found["points"].shape == (25, 10, 3)
    assert np.bincount(found["labels"][found["split/test"]]).tolist() == [4, 4]
    np.testing.assert_allclose(np.linalg.norm(found["points"], axis=-1).max(1), 1, atol=1e-6)
    for name in ("train", "test"):  # the other order of folders is the same data
        for label in ("ball", "box"):
            target = tmp_path / "turned" / name / label
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / label / name).rename(target)
    prepare(ENTRY, tmp_path / "turned", tmp_path / "y.h5")
    again = read(tmp_path / "y.h5")
    assert {p.tobytes() for p in again["points"]} == {p.tobytes() for p in found["points"]}


def test_another_file_leaves_the_others_as_they_are(folder, tmp_path):
    prepare(ENTRY, folder, tmp_path / "x.h5")
    (folder / "ball/train/new.xyz").write_text(text(cloud(999)))
    prepare(ENTRY, folder, tmp_path / "y.h5")
    before, after = (read(tmp_path / f"{n}.h5")["points"] for n in "xy")
    assert {p.tobytes() for p in before} < {p.tobytes() for p in after}


def test_a_table_with_splits_and_groups(folder, tmp_path):
    files = sorted(folder.rglob("*.xyz")) + sorted(folder.rglob("*.npy"))
    with open(folder / "t.csv", "w", newline="", encoding="utf-8-sig") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "group"])
        for i, path in enumerate(files):
            name = str(path.relative_to(folder)).replace("/", "\\")
            rows.writerow([name, path.parts[-3], f"g{i // 2}"])
    prepare({**ENTRY, "test": 0.25}, folder / "t.csv", tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        groups = [set(file["group"][()][file[f"split/{s}"][()]]) for s in ("train", "validation")]
        assert not groups[0] & groups[1]
        assert len(file["labels"]) == len(files)


def test_a_copy_in_both_splits_is_refused(folder, tmp_path):
    data = (folder / "ball/train/1.xyz").read_bytes()
    (folder / "ball/test/other.xyz").write_bytes(data)
    with pytest.raises(DataError, match="is a copy of"):
        prepare(ENTRY, folder, tmp_path / "x.h5")
    prepare({**ENTRY, "duplicates": "group"}, folder, tmp_path / "x.h5")


def test_damaged_files_are_named_and_skipped_only_by_a_key(folder, tmp_path, caplog):
    (folder / "ball/train/bad.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 9\n")
    with pytest.raises(DataError, match=r"ball/train/bad\.off .*skip_damaged"):
        prepare(ENTRY, folder, tmp_path / "x.h5")
    prepare({**ENTRY, "skip_damaged": True}, folder, tmp_path / "x.h5")
    assert "left out: ball/train/bad.off" in caplog.text
    assert len(read(tmp_path / "x.h5")["labels"]) == 25


@pytest.mark.parametrize(
    ("suffix", "data", "area"),
    [
        (".off", "OFF\n" + TETRAHEDRON, 1.5 + np.sqrt(3) / 2),
        (".off", "OFF" + TETRAHEDRON, 1.5 + np.sqrt(3) / 2),
        (".obj", OBJ, 2.0),
        (".stl", STL, 0.5),
        (".ply", PLY, 0.5),
    ],
)
def test_meshes_have_the_area_that_they_have(suffix, data, area):
    vertices, faces, _ = mesh(data.encode(), suffix)
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.testing.assert_allclose(np.linalg.norm(across, axis=1).sum() / 2, area, rtol=1e-6)


def test_samples_are_uniform_over_the_area():
    """A triangle of twice the area gets twice the points; within one, the mean is its centroid."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [2, 0, 5], [0, 1, 5]], float)
    points = surface(vertices, np.array([[0, 1, 2], [3, 4, 5]]), 60_000, RNG(0))[:, :3]
    upper = points[points[:, 2] == 5]
    assert abs(len(upper) / len(points) - 2 / 3) < 0.01
    np.testing.assert_allclose(upper.mean(0), [2 / 3, 1 / 3, 5], atol=0.01)


@pytest.mark.parametrize(
    ("data", "suffix", "says"),
    [
        (b"1 2\n", ".xyz", "2 numbers, not 3"),
        (b"a b c\n", ".xyz", "not a row of numbers"),
        (b"", ".xyz", "no points"),
        (b"nan 0 0\n", ".txt", "not finite"),
        (b"DATA ascii\n", ".pcd", "fields x, y and z"),
        (b"x y z\n", ".pcd", "no line DATA"),
        (PCD.format("f x z", 1, "ascii").encode() + b"0 0 0\n", ".pcd", "fields x, y and z"),
        (PCD.format("f z y x", 2, "ascii").encode() + b"0 0 0 1\n", ".pcd", "1 points instead"),
        (PCD.format("f z y x", 2, "binary").encode() + bytes(31), ".pcd", "31 bytes instead of 32"),
        (PCD.format("f z y x", 2, "binary_compressed").encode(), ".pcd", "DATA binary or DATA"),
        (b"OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n", ".off", "no area"),
    ],
)
def test_what_is_no_cloud_says_why(data, suffix, says):
    with pytest.raises(Malformed, match=says):
        sampled(data, suffix, 4, RNG(0))


def test_pcd_in_text_and_binary_by_the_names_of_its_fields():
    rows = np.array([[9, 1, 0, 0], [8, 0, 1, 0.5]], "<f4")
    plain = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    for data in (
        PCD.format("intensity z y x", 2, "ascii").encode() + plain.encode(),
        PCD.format("intensity z y x", 2, "binary").encode() + rows.tobytes(),
    ):
        points = sampled(data, ".pcd", 2, RNG(0))
        np.testing.assert_array_equal(points, [[0, 0, 1], [0.5, 1, 0]])


def test_pcd_with_fields_of_several_sizes_and_values():
    head = "FIELDS label x y z _\nSIZE 1 8 8 8 2\nTYPE U F F F I\nCOUNT 1 1 1 1 3\nPOINTS 2\n"
    row = np.dtype([("l", "u1"), ("p", "<f8", 3), ("_", "<i2", 3)])
    table = np.array([(7, (1, 2, 3), (0, 0, 0)), (8, (4, 5, 6), (1, 1, 1))], row)
    points = sampled((head + "DATA binary\n").encode() + table.tobytes(), ".pcd", 2, RNG(0))
    np.testing.assert_array_equal(points, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_points_without_faces_and_columns_of_normals(form):
    points = cloud(3, 5).astype("<f4")
    head = PLY[: PLY.index("element face")].replace("ascii", form).replace("vertex 3", "vertex 5")
    body = points.tobytes() if form != "ascii" else text(points).encode()
    found = sampled((head + "end_header\n").encode() + body, ".ply", 5, RNG(0))
    np.testing.assert_allclose(found, points, rtol=1e-6)
    columns = np.concatenate([points, cloud(4, 5)], axis=1)
    lines = "".join(" ".join(map(repr, row)) + "\n" for row in columns.tolist())
    np.testing.assert_allclose(sampled(lines.encode(), ".txt", 5, RNG(0)), points, rtol=1e-6)
    with io.BytesIO() as file:
        np.save(file, columns)
        found = sampled(file.getvalue(), ".npy", 5, RNG(0))
    np.testing.assert_allclose(found, points, rtol=1e-6)


def test_real_meshes_in_an_archive(real_data, tmp_path):
    """The 40 geometric shapes: one mesh a class and side, so that nothing can be held out."""
    archive = real_data / "geometric-shapes/raw.zip"
    with open_source(archive) as source:
        items = walked(source)
        assert len(items) == 80
        assert {item.side for item in items} == {"train", "test"}
        for item in items:
            points = sampled(source.read(item.path), ".off", 32, RNG(0))
            assert np.isfinite(points).all()
    with pytest.raises(ConfigError, match="validation"):
        prepare({"samples": 32, "duplicates": "keep"}, archive, tmp_path / "x.h5")
