"""Snapshots and their analysis on permutation representations, trained together and alone."""

import io

import pandas as pd
import pytest
import torch
from permutation_case import teacher_task

from equiscape.analyses import constrained_landscape, dynamics
from equiscape.analyses.subject import Checkpoint, Subject
from equiscape.training.cell import train_cell
from equiscape.training.together import train_together

OPTIMIZERS = {
    "adam": {"name": "adam", "class": "adamw"},
    "momentum": {"name": "momentum", "class": "sgd", "settings": {"momentum": 0.9}},
    "plain": {"name": "plain", "class": "sgd"},
    "muon": {"name": "muon", "class": "muon", "settings": {"min_side": 1}},
}
EPOCHS = [0, 1, 6]
TRAINING = {
    "epochs": 6, "batch_size": 10**6, "evaluate_every": 3, "recorders": [], "keep": "last",
    "snapshots": EPOCHS,
}  # fmt: skip
SETTINGS = dynamics.Settings(
    samples=None, batch_size=1000, dtype="float64", eigenvalues=2, tolerance=1e-10,
    max_iterations=100, probes=0,
)  # fmt: skip


@pytest.fixture(scope="module", params=OPTIMIZERS)
def cells(request, tmp_path_factory):
    """A task and the snapshots of two seeds, by the way of training."""
    folder = tmp_path_factory.mktemp("cells")
    task = teacher_task(folder, {"hidden": ["natural + trivial"]}, passes=3)
    chosen = OPTIMIZERS[request.param], "1e-2", 0
    together = train_together(task, *chosen, [1, 2], TRAINING, keep_weights=True)
    alone = [train_cell(task, *chosen, seed, TRAINING, keep_weights=True) for seed in (1, 2)]
    return task, request.param, folder, {"together": together, "alone": alone}


def subject(cells, way, seed=2):
    task, optimizer, folder, results = cells
    found = []
    for epoch, content in results[way][seed - 1].snapshots.items():
        path = folder / way / f"final/case_{optimizer}/seed{seed}/snapshots/epoch{epoch}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        found.append(Checkpoint.at(task, path))
    return Subject(task, tuple(found))


def close(one, two, name=""):
    """Whether two nested states are the same but for rounding (float32 in Newton-Schulz)."""
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-7, msg=name)
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), name
        for key in one:
            close(one[key], two[key], f"{name}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), name
        for i, pair in enumerate(zip(one, two)):
            close(*pair, f"{name}.{i}")
    elif isinstance(one, float):
        assert one == pytest.approx(two, rel=1e-9), name
    else:
        assert one == two, name


def test_snapshots_of_cells_trained_together_are_those_of_each_alone(cells):
    *_, results = cells
    for one, two in zip(results["alone"], results["together"]):
        assert list(one.snapshots) == list(two.snapshots) == EPOCHS
        for epoch in EPOCHS:
            states = [
                torch.load(io.BytesIO(found.snapshots[epoch]), weights_only=True)
                for found in (one, two)
            ]
            close(*states, f"epoch {epoch}")


def test_dynamics_finds_the_same_and_what_the_whole_hessian_says(cells):
    task, optimizer, *_ = cells
    found = {way: dynamics.measure(subject(cells, way), SETTINGS) for way in ("alone", "together")}
    one, two = (found[way].frame for way in ("alone", "together"))
    keys = ["epoch", "quantity", "layer"]
    pd.testing.assert_frame_equal(one[keys], two[keys])
    curved = {}
    for point in subject(cells, "together").checkpoints:
        row = constrained_landscape.describe(task, point.model(), constrained_landscape.Settings())
        curved[point.epoch] = max(row["highest_inside"], row["highest_across"]), row["loss"]
    for epoch in EPOCHS:
        mine = two[two["epoch"] == epoch].set_index(["quantity", "layer"])
        assert mine.loc[("eigenvalue_1", "all"), "value"] == pytest.approx(curved[epoch][0])
        assert mine["loss"].to_numpy() == pytest.approx(curved[epoch][1], rel=1e-12)
    last = two[two["epoch"] == EPOCHS[-1]].set_index(["quantity", "layer"])["value"]
    assert last["distance_final", "all"] == 0
    if optimizer == "adam":  # the edge in its own geometry, from the state that was handed over
        assert last["preconditioned", "all"] > 0
    if optimizer == "muon":
        assert last["spectral", "all"] > 0
    same = one["quantity"].isin(["eigenvalue_1", "gradient_norm", "step_gain", "edge", "spectral"])
    assert one[same]["value"].to_numpy() == pytest.approx(
        two[same]["value"].to_numpy(), rel=1e-3, abs=1e-9
    )
