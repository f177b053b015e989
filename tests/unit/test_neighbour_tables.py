"""Neighbours of clouds that never change are searched once for each, and nothing else changes."""

import pytest
import torch

from equiscape.data.pointcloud import PointClouds
from equiscape.models import neighbours
from equiscape.models.neighbours import NeighbourTables, knn, reuse_neighbours
from equiscape.task import Task
from equiscape.training.cell import train_cell

SIZES = {"train": 20, "validation": 6, "test": 7}


@pytest.fixture
def searched(monkeypatch):
    """The number of clouds of every search."""
    found, search = [], neighbours._search

    def counted(x, *rest):
        found.append(len(x))
        return search(x, *rest)

    monkeypatch.setattr(neighbours, "_search", counted)
    return found


def random_clouds(count, seed=0):
    return torch.randn(count, 12, 3, generator=torch.Generator().manual_seed(seed))


def test_rows_in_any_order_are_searched_once(searched):
    clouds, tables = random_clouds(9), NeighbourTables(9)
    expected = knn(clouds, 4, False)
    searched.clear()
    for rows in ([3, 1, 4], [1, 5, 3], [8, 7, 6, 5, 4, 3, 2, 1, 0]):
        rows = torch.tensor(rows)
        x = clouds[rows]
        with tables.serving(x, rows, rows):
            assert torch.equal(knn(x, 4, False), expected[rows])
    assert searched == [3, 1, 5]
    with tables.serving(x, rows, rows):
        assert knn(x, 3, True).shape == (9, 12, 3)  # another graph is another table
        knn(x.clone(), 4, False)  # another tensor is not these clouds
    assert searched == [3, 1, 5, 9, 9]
    assert not neighbours._answers


def test_a_table_above_the_limit_is_not_kept(searched):
    clouds, rows = random_clouds(5), torch.arange(5)
    tables = NeighbourTables(5, limit=5 * 12 * 4 * 2 - 1)
    with tables.serving(clouds, rows, rows):
        assert torch.equal(knn(clouds, 4, False), knn(clouds, 4, False))
    assert searched == [5, 5]


def test_reuse_lasts_for_the_block(searched):
    one, two = random_clouds(3), random_clouds(2, seed=1)
    with reuse_neighbours([one, two]):
        for _ in range(2):
            knn(one, 4, False)
            knn(two, 4, False)
    assert searched == [3, 2]
    knn(one, 4, False)
    assert searched == [3, 2, 3]


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
    monkeypatch.setattr(NeighbourTables, "answer", lambda *rows: neighbours._search)
    again = cell({"scale": None})
    assert sum(searched) == 3 * sum(SIZES.values())
    one, two = once.checkpoint["model"], again.checkpoint["model"]
    assert all(torch.equal(one[name], two[name]) for name in one)
    columns = ["train_loss", "validation_loss", "test_loss"]
    assert (once.history[columns] == again.history[columns]).all(axis=None)


def test_moved_clouds_are_searched_anew(searched):
    cell({"jitter": {"std": 0.1, "clip": 0.2}})
    assert sum(searched) == 3 * SIZES["train"] + SIZES["validation"] + SIZES["test"]
