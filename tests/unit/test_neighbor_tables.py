"""Neighbors of clouds that never change are searched once for each, and nothing else changes."""

import pytest
import torch

from equiscape.data.base import Batch
from equiscape.data.pointcloud import PointClouds
from equiscape.models import build
from equiscape.ops import neighbors
from equiscape.ops.neighbors import NeighborTables, knn
from equiscape.task import Task
from equiscape.training.cell import train_cell

SIZES = {"train": 20, "validation": 6, "test": 7}


@pytest.fixture
def searched(monkeypatch):
    """The number of clouds of every search."""
    found, distances = [], neighbors.squared_distances

    def counted(x):
        found.append(len(x))
        return distances(x)

    monkeypatch.setattr(neighbors, "squared_distances", counted)
    return found


def random_clouds(count, seed=0):
    return torch.randn(count, 12, 3, generator=torch.Generator().manual_seed(seed))


def test_rows_in_any_order_are_searched_once(searched):
    clouds, tables = random_clouds(9), NeighborTables(9)
    expected = knn(clouds, 4, False)
    searched.clear()
    for rows in ([3, 1, 4], [1, 5, 3], [8, 7, 6, 5, 4, 3, 2, 1, 0]):
        rows = torch.tensor(rows)
        assert torch.equal(tables.find(clouds[rows], rows, rows, 4, False), expected[rows])
    assert searched == [3, 1, 5]
    rows = torch.arange(9)
    assert tables.find(clouds, rows, rows, 3, True).shape == (9, 12, 3)  # a table of its own
    found = tables.find(clouds.double(), rows, rows, 4, False)  # so is another precision
    assert torch.equal(found, knn(clouds.double(), 4, False))
    assert searched == [3, 1, 5, 9, 9, 9]


def test_a_table_above_the_limit_is_not_kept(searched):
    clouds, rows = random_clouds(5), torch.arange(5)
    tables = NeighborTables(5, limit=5 * 12 * 4 * 2 - 1)
    for _ in range(2):
        assert torch.equal(tables.find(clouds, rows, rows, 4, False), knn(clouds, 4, False))
    assert searched == [5] * 4


@pytest.mark.parametrize(("architecture", "uses"), [("egnn", 1), ("dgcnn", 1), ("pointnet", 0)])
def test_a_batch_can_carry_the_neighbors_of_other_clouds(architecture, uses, searched):
    """For several passes over the same batch; the output is the same to the last bit."""
    size = {} if architecture == "pointnet" else {"k": 4}
    model = build(architecture, {"num_outputs": 3}, size).eval()
    task = Task("t", {"architecture": architecture}, None, torch.device("cpu"))
    batch = Batch((random_clouds(3),), torch.zeros(3), 3)
    with torch.no_grad():
        expected = task.output(model, batch)
        searched.clear()
        carried = task.with_neighbors(model, batch)
        assert searched == [3] * uses
        assert task.with_neighbors(model, carried) is carried
        searched.clear()
        assert torch.equal(task.output(model, carried), expected)
    assert len(searched) == (3 if architecture == "dgcnn" else 0)  # in the space of features


def cell(augmentation):
    """Three epochs of a small EGNN on clouds of the data set."""
    points = {split: random_clouds(n, seed=n) for split, n in SIZES.items()}
    labels = {split: torch.arange(n) % 3 for split, n in SIZES.items()}
    entry = {
        "architecture": "egnn",
        "model": {"hidden": 8, "layers": 2, "k": 4, "head": [8]},
        "training": {"epochs": 3, "batch_size": 6, "augmentation": augmentation},
    }
    task = Task("egnn", entry, PointClouds(points, labels, ["a", "b", "c"]), torch.device("cpu"))
    return train_cell(
        task, {"name": "sgd", "class": "sgd"}, "1e-1", "0", 0, task.training, None, True
    )


def test_training_without_geometric_augmentation_searches_each_cloud_once(searched, monkeypatch):
    once = cell(None)
    assert sum(searched) == sum(SIZES.values())
    searched.clear()
    monkeypatch.setattr(NeighborTables, "find", lambda self, x, *rest: knn(x, *rest[2:]))
    again = cell({"scale": None})
    assert sum(searched) == 3 * sum(SIZES.values())
    one, two = once.checkpoint["model"], again.checkpoint["model"]
    assert all(torch.equal(one[name], two[name]) for name in one)
    columns = ["train_loss", "validation_loss", "test_loss"]
    assert (once.history[columns] == again.history[columns]).all(axis=None)


def test_moved_clouds_are_searched_anew(searched):
    cell({"jitter": {"std": 0.1, "clip": 0.2}})
    assert sum(searched) == 3 * SIZES["train"] + SIZES["validation"] + SIZES["test"]
