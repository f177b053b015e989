"""Normals of clouds: read, drawn, turned with the surface, seen by the networks that take them."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import trimesh
import yaml

from equiscape.configuration import start
from equiscape.data import files, modelnet_layout, pointcloud
from equiscape.data.augment_clouds import augment_points
from equiscape.data.corruptions import CORRUPTIONS, corrupt
from equiscape.data.files import sampled
from equiscape.errors import ConfigError, DataError
from equiscape.files.arrays import Malformed
from equiscape.models import build
from equiscape.ops.neighbors import knn
from equiscape.task import Task

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
PLY = (
    "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
    "property float z\nproperty float nx\nproperty float ny\nproperty float nz\nend_header\n"
)
PCD = (
    "FIELDS normal_y normal_x x y z normal_z\nSIZE 4 4 4 4 4 4\nTYPE F F F F F F\n"
    "COUNT 1 1 1 1 1 1\nPOINTS 3\nDATA ascii\n"
)


def sphere(number, seed=0, clouds=None):
    """Points of the unit sphere, each with itself as its normal."""
    x = np.random.default_rng(seed).normal(size=(*((clouds,) if clouds else ()), number, 3))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return np.concatenate([x, x], axis=-1).astype(np.float32)


def ball():
    return trimesh.creation.icosphere(subdivisions=4).export(file_type="stl")


def test_normals_of_a_sphere_are_its_points_to_the_tolerance_of_its_mesh():
    points = sampled(ball(), ".stl", 4000, np.random.default_rng(0), normals=True)
    assert points.shape == (4000, 6)
    np.testing.assert_allclose(np.linalg.norm(points[:, 3:], axis=1), 1, atol=1e-6)
    angles = (points[:, :3] * points[:, 3:]).sum(1) / np.linalg.norm(points[:, :3], axis=1)
    assert np.degrees(np.arccos(np.clip(angles, -1, 1))).max() < 3  # edges span 4 degrees
    plain = sampled(ball(), ".stl", 4000, np.random.default_rng(0))
    np.testing.assert_array_equal(plain, points[:, :3])  # the same points


def rows(points):
    return "".join(" ".join(map(str, row)) + "\n" for row in points)


def npy(points):
    import io

    buffer = io.BytesIO()
    np.save(buffer, points)
    return buffer.getvalue()


def binary(points):
    head = PLY.replace("ascii", "binary_little_endian").encode()
    return head + points.astype("<f4").tobytes()


@pytest.mark.parametrize("suffix", [".xyz", ".npy", ".ply", "binary.ply", ".pcd"])
def test_clouds_keep_the_normals_that_their_files_have(suffix):
    points = sphere(3)
    points[:, :3] += 2
    data = {
        ".xyz": lambda: rows(points).encode(),
        ".npy": lambda: npy(points),
        ".ply": lambda: (PLY + rows(points)).encode(),
        "binary.ply": lambda: binary(points),
        ".pcd": lambda: (PCD + rows(points[:, [4, 3, 0, 1, 2, 5]])).encode(),
    }[suffix]()
    found = sampled(data, suffix[-4:], 3, np.random.default_rng(0), normals=True)
    np.testing.assert_allclose(found, points, atol=1e-6)


@pytest.mark.parametrize(
    ("suffix", "data", "says"),
    [
        (".xyz", "0 0 0\n1 0 0\n", "has 3 numbers, not 6"),
        (".xyz", "0 0 0 255 0 0\n1 0 0 0 255 9\n", "a normal has the length 255 instead of 1"),
        (".xyz", "0 0 0 0 0 0\n1 0 0 0 1 0\n", "a normal has the length 0 instead of 1"),
        (".npy", npy(np.zeros((4, 3))), "no normals"),
        (
            ".pcd",
            "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 1\nDATA ascii\n0 0 0\n",
            "no normals",
        ),
        (".ply", PLY.replace("nx", "red") + rows(sphere(3)), "no normals"),
    ],
)
def test_files_without_normals_are_damaged_where_they_are_asked_for(suffix, data, says):
    data = data.encode() if isinstance(data, str) else data
    with pytest.raises(Malformed, match=says):
        sampled(data, suffix, 2, np.random.default_rng(0), normals=True)


@pytest.fixture
def prepared(tmp_path):
    """Six balls and six other clouds of 20 points with normals, loaded."""
    for c, name in enumerate(("ball", "other")):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(6):
            points = sphere(20, 10 * c + i) * ([1, 1, 1 + c, 1, 1, 1])
            (tmp_path / f"in/{name}/{i}.xyz").write_text(rows(points))
    entry = {"samples": 16, "normals": True, "validation": 0.3, "test": 0.3, "points": 12}
    files.prepare(entry, tmp_path / "in", tmp_path / "x.h5")
    return pointcloud.load(tmp_path / "x.h5", "cpu", {**entry, "sample_points": True})


def test_a_data_set_with_normals_dictates_them_and_redraws_them_with_their_points(prepared):
    assert prepared.model_arguments() == {"num_outputs": 2, "normals": True}
    batch = prepared.gather("train", torch.arange(4))
    assert batch.inputs[0].shape == (4, 12, 6)
    np.testing.assert_allclose(batch.inputs[0][..., 3:].norm(dim=-1), 1, atol=1e-6)
    drawn = prepared.augment(batch, {}, torch.Generator().manual_seed(1)).inputs[0]
    every = {row.numpy().tobytes() for row in batch.every_point.flatten(0, 1)}
    assert {row.numpy().tobytes() for row in drawn.flatten(0, 1)} <= every


def test_the_layout_of_modelnet40_has_normals_beside_its_points(tmp_path):
    clouds = sphere(8, clouds=24)
    labels = np.arange(24) % 3
    sides = {"train": (clouds[:18, :, :3], labels[:18]), "test": (clouds[18:, :, :3], labels[18:])}
    modelnet_layout.write(tmp_path / "in", ["a", "b", "c"], sides)
    entry = {"validation": 0.25, "normals": True}
    with pytest.raises(DataError, match=r"ply_data_train0.h5 .* has no normals .*normals: false"):
        pointcloud.prepare(entry, tmp_path / "in", tmp_path / "x.h5")
    for side, part in (("train", clouds[:18]), ("test", clouds[18:])):
        with h5py.File(tmp_path / f"in/ply_data_{side}0.h5", "a") as file:
            file["normal"] = part[..., 3:]
    pointcloud.prepare(entry, tmp_path / "in", tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        np.testing.assert_allclose(file["points"][()], clouds, atol=1e-6)
    with h5py.File(tmp_path / "in/ply_data_test0.h5", "a") as file:
        file["normal"][0, 0] = 0
    with pytest.raises(DataError, match=r"ply_data_test0.h5 .* length 0 instead of 1"):
        pointcloud.prepare(entry, tmp_path / "in", tmp_path / "x.h5")


def augmented(points, **settings):
    return augment_points(torch.from_numpy(points), settings, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("rotate", ["y", "z", "so3"])
def test_a_rotation_turns_points_and_normals_alike(rotate):
    points = sphere(50, clouds=4)
    turned = augmented(points, rotate=rotate)
    torch.testing.assert_close(turned[..., 3:], turned[..., :3])
    assert (turned - torch.from_numpy(points)).abs().max() > 0.5
    torch.testing.assert_close(augmented(points[..., :3], rotate=rotate), turned[..., :3])


def test_an_axis_scaled_tilts_the_normals_as_the_surface():
    """Of the ellipsoid ``sum (x / a)^2 = 1`` the normal is ``x / a^2``."""
    points = sphere(50, clouds=4)
    scaled = augmented(points, scale=[0.5, 2.0])
    factors = scaled[..., :3] / torch.from_numpy(points)[..., :3]
    expected = torch.nn.functional.normalize(scaled[..., :3] / factors**2, dim=-1)
    torch.testing.assert_close(scaled[..., 3:], expected, rtol=1e-4, atol=1e-5)


def test_what_only_moves_points_leaves_their_normals():
    points = sphere(50, clouds=4)
    moved = augmented(points, shift=0.3, jitter={"std": 0.01, "clip": 0.05})
    np.testing.assert_array_equal(moved[..., 3:], points[..., 3:])
    dropped = augmented(points, dropout=0.9)
    torch.testing.assert_close(dropped[..., 3:], dropped[..., :3])
    assert (dropped[:, 1:] == dropped[:, :1]).all(-1).any()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_move_the_points_as_without_normals(name):
    points = sphere(60, clouds=3)
    with_normals = corrupt(points, name, 3, range(3))
    assert with_normals.shape[-1] == 6
    np.testing.assert_array_equal(
        with_normals[..., :3], corrupt(points[..., :3], name, 3, range(3))
    )
    np.testing.assert_allclose(np.linalg.norm(with_normals[..., 3:], axis=-1), 1, atol=1e-5)
    if name in ("cutout", "density", "density_inc"):  # points as they were
        np.testing.assert_array_equal(with_normals[..., 3:], with_normals[..., :3])
    if name in ("uniform", "gaussian", "impulse"):
        np.testing.assert_array_equal(with_normals[..., 3:], points[..., 3:])
    if name in ("background", "upsampling"):
        np.testing.assert_array_equal(with_normals[:, :60, 3:], points[..., 3:])


@pytest.mark.parametrize(
    "name", ["rotation", "shear", "distortion", "distortion_rbf", "distortion_rbf_inv"]
)
def test_maps_of_space_keep_normals_orthogonal_to_the_surface(name):
    """Of a small triangle the two edges are tangents: their cross product is the normal."""
    rng, step = np.random.default_rng(1), 3e-3
    frames = np.linalg.qr(rng.normal(size=(40, 3, 3)))[0]
    frames[:, 2] = np.cross(frames[:, 0], frames[:, 1])
    at = rng.uniform(-0.5, 0.5, (40, 3))
    corners = np.stack([at, at + step * frames[:, 0], at + step * frames[:, 1]], axis=1)
    normals = np.repeat(frames[:, 2:], 3, axis=1)
    box = [[sign * np.ones(3)] * 3 for sign in (-1, 1)]  # so that the box is no smaller than space
    points = np.concatenate([corners, box]).reshape(1, -1, 3)
    normals = np.concatenate([normals, np.full((2, 3, 3), 3**-0.5)]).reshape(1, -1, 3)
    made = corrupt(np.concatenate([points, normals], -1).astype(np.float32), name, 2, [5])[0]
    a, b, c = np.moveaxis(made[:-6].reshape(-1, 3, 6).astype(float), 1, 0)
    expected = np.cross(b[:, :3] - a[:, :3], c[:, :3] - a[:, :3])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    cosine = (expected * a[:, 3:]).sum(1)
    assert cosine.min() > 0.9999
    assert np.abs(made[:-6, 3:] - normals[0, :-6]).max() > 0.02  # they do turn


@pytest.mark.parametrize("name", ["pointnet", "dgcnn"])
def test_networks_see_normals_and_equal_those_without_where_their_weights_are_zero(name):
    small = {"channels": [8, 8], **({"k": 4, "embedding": 16} if name == "dgcnn" else {})}
    torch.manual_seed(0)
    plain = build(name, {"num_outputs": 3}, small).double()
    seeing = build(name, {"num_outputs": 3, "normals": True}, small).double()
    first = plain.non_hidden[0] + ".linear.weight"
    state = plain.state_dict()
    halves = state[first].chunk(2, dim=1) if name == "dgcnn" else (state[first],)
    padded = [torch.cat([half, torch.zeros_like(half)], dim=1) for half in halves]
    seeing.load_state_dict({**state, first: torch.cat(padded, dim=1)})
    points = torch.from_numpy(sphere(24, clouds=4)).double()
    points[..., :3] += 0.3 * torch.randn(4, 24, 3, generator=torch.Generator().manual_seed(1))
    for model in (plain, seeing):
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    torch.testing.assert_close(seeing(points), plain(points[..., :3]))
    with torch.no_grad():
        seeing.get_parameter(first).normal_()
    changed = points.clone()
    changed[..., 3:] *= -1
    assert (seeing(points) - seeing(changed)).abs().max() > 1e-3


def test_the_first_neighbors_are_those_in_space(prepared):
    for points in prepared.points.values():
        torch.nn.init.normal_(points[..., 3:], generator=torch.Generator().manual_seed(0))
    entry = {"architecture": "dgcnn", "model": {"channels": [8], "k": 4, "embedding": 8}}
    task = Task("t", entry, prepared, torch.device("cpu"))
    model = task.build(0).eval()
    batch = task.batch("test", torch.arange(2))
    points = batch.inputs[0]
    near = knn(points[..., :3], 4, include_self=True)
    assert torch.equal(task.with_neighbors(model, batch).inputs[1], near)
    assert not torch.equal(knn(points, 4, include_self=True), near)
    torch.testing.assert_close(task.output(model, batch), model(points))


def study(architecture="pointnet", **changes):
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    shapes = {"kind": "pointcloud", "source": str(ROOT), "normals": True, **changes.pop("data", {})}
    task = {"architecture": architecture, "dataset": "shapes", **changes}
    return {**config, "datasets": {"shapes": shapes}, "tasks": {"t": task}, "analyses": {}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"architecture": "egnn"},
            r"architecture: normals of shapes mean nothing to egnn.*datasets",
        ),
        ({"model": {"normals": True}}, "model: 'normals' is unknown"),
        (
            {"data": {"corruptions": {"source": "https://a.org/c.zip"}}},
            "the published clouds have no normals",
        ),
    ],
)
def test_what_does_not_go_with_normals_is_refused_by_one_sentence(changes, says):
    with pytest.raises(ConfigError, match=says):
        start.study(study(**changes), SCHEMA, root=ROOT)


def test_networks_that_take_normals_are_accepted():
    for name in ("pointnet", "dgcnn"):
        start.study(study(name), SCHEMA, root=ROOT)
    start.study(study("egnn", data={"normals": False}), SCHEMA, root=ROOT)
