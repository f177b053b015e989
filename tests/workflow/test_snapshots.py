"""Snapshots are declared outputs of the final cells of the tasks that keep them."""

import json

import pandas as pd
from workspace import TINY

from equiscape import checkpoint

FOLDER = "results/final/pointnet_muon/seed1"


def test_final_cells_keep_the_snapshots_of_their_task(workspace):
    workspace.config["tasks"]["pointnet"]["training"] = {"snapshots": [2, 0]}
    wanted = [f"{FOLDER}/snapshots/epoch{epoch}.pt" for epoch in (0, 2)]
    planned = workspace.planned("final")
    cells = len(TINY["optimizers"]) * len(TINY["final"]["seeds"])
    assert (planned["train_final_cell"], planned["train_final_cell_2"]) == (cells, cells)

    few = {"samples": 16, "eigenvalues": 1, "probes": 0, "max_iterations": 6, "probe_samples": 8}
    workspace.config["analyses"] = {"dynamics": few}
    target = "results/dynamics/pointnet_muon.csv"
    workspace.run(*wanted, target)
    sums = json.loads((workspace / f"{FOLDER}/metrics.json").read_text())["sha256"]
    assert set(sums) == {
        "checkpoint.pt",
        "predictions.npz",
        "snapshots/epoch0.pt",
        "snapshots/epoch2.pt",
    }
    for path, epoch in zip(wanted, (0, 2)):
        loaded = checkpoint.load(workspace / path)
        assert (loaded.state["epoch"], loaded.state["status"]) == (epoch, "finished")
        assert loaded.state["optimizer_state"]["param_groups"]
    assert sorted(p.name for p in (workspace / FOLDER).iterdir()) == [
        *("checkpoint.pt", "history.csv", "metrics.json", "predictions.npz", "snapshots")
    ]
    # the analysis of snapshots: those of the representative, or of every seed
    measured = pd.read_csv(workspace / "results/dynamics/pointnet_muon.csv")
    chosen = json.loads((workspace / "results/representative/pointnet_muon.json").read_text())
    assert set(measured["seed"]) == {chosen["seed"]}
    assert set(measured["epoch"]) == {0, 2}
    beside = json.loads((workspace / "results/dynamics/pointnet_muon.json").read_text())
    assert [c["epoch"] for c in beside["checkpoints"]] == [0, 2]
    assert beside["costs"]["products"] > 0
    workspace.config["analyses"] = {"dynamics": {**few, "seeds": "all"}}
    seeds = len(TINY["final"]["seeds"])
    assert workspace.planned(target) == {"dynamics_seed": seeds, "dynamics": 1}
    workspace.config["analyses"] = {}

    # one more epoch trains the cell again, one less or another order nothing
    workspace.config["tasks"]["pointnet"]["training"] = {"snapshots": [2, 0, 1]}
    assert workspace.planned(f"{FOLDER}/snapshots/epoch1.pt") == {"train_final_cell_2": 1}
    for fewer in ([0, 2], [2], []):
        workspace.config["tasks"]["pointnet"]["training"] = {"snapshots": fewer}
        output = workspace.run(f"{FOLDER}/checkpoint.pt", options=["--dry-run"])
        assert "Nothing to be done" in output
