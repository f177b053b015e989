"""The tiny study's cells train as they did before the training code was rewritten.

``golden_training.json`` was written by revision 7d38f3b, to whose numbers this one is equal bit for
bit on one machine; the tolerance is for other processors and for networks that sum in other orders.
PointNet's losses are those of the first revision that takes batch statistics about each cloud's
center, which differ from 7d38f3b's by up to 2e-5; its scores are the same.
"""

import json
from pathlib import Path

import pytest
import torch
import yaml

from equiscape.data import procedural
from equiscape.study import merge
from equiscape.task import load_task
from equiscape.training.cell import train_cell

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden_training.json").read_text())
TINY = yaml.safe_load((HERE.parent / "workflow/tiny.yaml").read_text())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp("golden") / "shapes.h5"
    procedural.prepare(TINY["datasets"]["shapes"], None, path)
    return path


@pytest.mark.parametrize("cell", sorted(GOLDEN))
def test_losses_and_scores_of_every_epoch(prepared, cell):
    name, optimizer = cell.split("_")
    task = TINY["tasks"][name]
    entry = {**task, "training": merge(TINY["training"], task.get("training"))}
    dataset = TINY["datasets"]["shapes"]
    loaded = load_task(name, entry, "shapes", dataset, prepared, torch.device("cpu"))
    chosen = {"name": optimizer, **TINY["optimizers"][optimizer]}
    del chosen["grid"]
    history = train_cell(loaded, chosen, "1e-3", "1e-2", 1, entry["training"]).history
    for column, values in GOLDEN[cell].items():
        exact = {"rel": 1e-12} if column in ("lr", "validation_score", "test_score") else {}
        assert history[column].tolist() == pytest.approx(values, **(exact or {"rel": 1e-4})), column
