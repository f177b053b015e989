"""Molecules and graphs through every rule: no special case between the data and the figures."""

import json

import h5py
import pandas as pd
import pytest
from small_graphs import write_zinc
from workspace import TINY, Workspace

TASKS = {
    "gotennet-dipole": {
        "architecture": "gotennet",
        "dataset": "molecules",
        "target": "dipole",
        "model": {"hidden": 8, "layers": 1, "heads": 2, "radial": 4, "dropout": 0},
    },
    "gine-chains": {
        "architecture": "gine",
        "dataset": "chains",
        "model": {"hidden": 8, "layers": 1, "walk_channels": 2, "head": [4], "dropout": 0},
    },
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("molecules")
    (folder / "chains").mkdir()
    write_zinc(folder / "chains", ("train", "val", "test"), size=24)
    config = {
        **TINY,
        "datasets": {
            "molecules": {
                "kind": "molecules-generated",
                "molecules": 60,
                "max_atoms": 5,
                "cutoff": 5.0,
                "validation": 0.2,
                "seed": 0,
            },
            "chains": {"kind": "zinc", "source": "chains", "walk_steps": 4, "seed": 0},
        },
        "tasks": TASKS,
        "training": {**TINY["training"], "label_smoothing": 0, "augmentation": None},
    }
    workspace = Workspace(folder, config)
    workspace.run()
    return workspace


@pytest.mark.slow
def test_every_analysis_of_every_task_is_there(study):
    for task in TASKS:
        for optimizer in TINY["optimizers"]:
            pair = f"{task}_{optimizer}"
            hessian = json.loads((study / f"results/hessian/{pair}.json").read_text())
            assert hessian["eigenvalues"]
            with h5py.File(study / f"results/slice/{pair}.h5") as plane:
                assert plane["loss"].shape == (3, 3)
                assert plane.attrs["center_loss"] == plane.attrs["checkpoint_loss"]
            ranks = pd.read_csv(study / f"results/rank/{pair}.csv")
            assert set(ranks["kind"]) == {"weight", "representation"}


@pytest.mark.slow
def test_lower_is_better_in_selection_representative_and_table(study):
    for task in TASKS:
        selection = json.loads((study / f"results/selection/{task}_adam.json").read_text())
        scores = {line["lr"]: line["validation_score"] for line in selection["grid"]}
        assert len(scores) == 2
        assert selection["lr"] == min(scores, key=scores.get)
    table = pd.read_csv(study / "results/tables/molecules.csv")
    assert set(table["task"]) == set(TASKS)


@pytest.mark.slow
def test_the_molecules_have_a_notebook_and_a_figure(study):
    assert "<img" in (study / "results/notebooks/molecules.html").read_text()
    assert (study / "results/figures/molecules.png").stat().st_size > 10_000
