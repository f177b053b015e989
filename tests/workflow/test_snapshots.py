"""Snapshots are declared outputs of the final cells of the tasks that keep them."""

import json

from workspace import TINY

from equiscape import checkpoint

FOLDER = "results/final/pointnet_muon/seed1"


def test_final_cells_keep_the_snapshots_of_their_task(workspace):
    workspace.config["tasks"]["pointnet"]["training"] = {"snapshots": [2, 0]}
    wanted = [f"{FOLDER}/snapshots/epoch{epoch}.pt" for epoch in (0, 2)]
    planned = workspace.planned("final")
    cells = len(TINY["optimizers"]) * len(TINY["final"]["seeds"])
    assert (planned["train_final_cell"], planned["train_final_cell_2"]) == (cells, cells)

    workspace.run(*wanted)
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
    # one more epoch trains the cell again, one less or another order nothing
    workspace.config["tasks"]["pointnet"]["training"] = {"snapshots": [2, 0, 1]}
    assert workspace.planned(f"{FOLDER}/snapshots/epoch1.pt") == {"train_final_cell_2": 1}
    for fewer in ([0, 2], [2], []):
        workspace.config["tasks"]["pointnet"]["training"] = {"snapshots": fewer}
        output = workspace.run(f"{FOLDER}/checkpoint.pt", options=["--dry-run"])
        assert "Nothing to be done" in output
