"""Cells that are trained together, beside one that is not, to the analyses over the whole study."""

import json
import re

import pandas as pd
import pytest
import yaml
from workspace import ROOT, Workspace

STUDY = yaml.safe_load((ROOT / "config/permutations.yaml").read_text())
TASKS = ("s3-sign-held", "s3-sign")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    config = {**STUDY, "optimizers": {"muon": STUDY["optimizers"]["muon"]}}
    del config["pathvars"]
    config["resume"] = "resources/resume"
    config["datasets"] = {"s3": {**STUDY["datasets"]["s3"], "samples": 4, "passes": 2}}
    config["tasks"] = {name: dict(STUDY["tasks"][name]) for name in TASKS}
    config["tasks"]["s3-sign"]["training"] = {"snapshots": [0, 4]}
    del config["tasks"]["s3-sign-held"]["training"]
    config["tasks"]["alone"] = {**config["tasks"]["s3-sign"], "training": {"together": False}}
    config["training"] = {**STUDY["training"], "epochs": 4, "evaluate_every": 2}
    config["final"] = {"seeds": [1, 2]}
    config["report"] = {"baseline": "muon"}
    own = ("representation", "constrained-landscape", "representation-connectivity")
    config["analyses"] = {name: STUDY["analyses"][name] for name in own}
    config["analyses"]["rank"] = {"tasks": ["s3-sign"]}
    config["analyses"]["dynamics"] = {**STUDY["analyses"]["dynamics"], "tasks": ["s3-sign"]}
    return Workspace(tmp_path_factory.mktemp("permutations"), config)


@pytest.mark.slow
def test_the_cells_of_the_study_are_few_jobs(tmp_path):
    """docs/permutations.md says how many; on a cluster each is a submission, or part of one."""
    whole = {key: value for key, value in STUDY.items() if key != "pathvars"}
    workspace = Workspace(tmp_path, whole)
    planned = workspace.planned("final")
    tasks, optimizers = len(STUDY["tasks"]), len(STUDY["optimizers"])
    assert tasks * optimizers * len(STUDY["final"]["seeds"]) == 1740
    jobs = {kind: sum(n for rule, n in planned.items() if rule.startswith(f"train_{kind}_"))
            for kind in ("final", "grid")}  # fmt: skip
    # each grid is one setting, which no cell is trained to choose
    assert jobs == {"final": 87, "grid": 0}
    assert planned["only_setting"] == 87
    assert "select" not in planned
    assert not {"train_final_cell", "train_grid_cell"} & set(planned)
    page = (ROOT / "docs/permutations.md").read_text()
    assert "1,740 final\ncells are 87 jobs" in page
    grouped = re.search(r"--groups ([\w=]+ [\w=]+) --group-components (\S+)", page)
    assert grouped
    options = ["--groups", *grouped[1].split(), "--group-components", grouped[2]]
    listed = workspace.run("final", options=["--dry-run", "--quiet", "progress", *options])
    assert listed.count("Group job finals") == 3
    assert "three\nsubmissions" in page


@pytest.mark.slow
def test_all_seeds_of_a_task_and_an_optimizer_are_one_job(study):
    planned = study.planned("analyses")
    # for four cells, of which those of one task keep snapshots
    assert (planned["train_final_together"], planned["train_final_together_2"]) == (1, 1)
    assert planned["train_final_cell"] == 2
    assert not [rule for rule in planned if rule.startswith("train_grid")]  # of one setting
    assert planned["only_setting"] == 3
    assert planned["rank"] == 1  # on the task that its entry lists
    # how such cells end, and what the analyses of other tasks find here, is tested elsewhere
    del study.config["tasks"]["alone"], study.config["analyses"]["rank"]
    study.run("analyses")
    for seed in (1, 2):
        cell = study / f"results/final/s3-sign_muon/seed{seed}"
        files = {path.name for path in cell.iterdir()}
        own = {"metrics.json", "history.csv", "checkpoint.pt", "predictions.npz"}
        assert files == own | {"snapshots"}
        kept = {path.name for path in (cell / "snapshots").iterdir()}
        assert kept == {"epoch0.pt", "epoch4.pt"}
        metrics = json.loads((cell / "metrics.json").read_text())
        assert (metrics["seed"], metrics["lr"], metrics["epochs"]) == (seed, "3e-2", 4)
        snapshots = {f"snapshots/{name}" for name in kept}
        assert set(metrics["sha256"]) == {"checkpoint.pt", "predictions.npz"} | snapshots
        assert len(pd.read_csv(cell / "history.csv")) == 4
    found = pd.read_csv(study / "results/representation/study.csv")
    assert set(zip(found["task"], found["seed"])) == {
        (task, seed) for task in study.config["tasks"] for seed in (1, 2)
    }
    held = found[found["mode"] == "constrained"]
    assert (held["distance"] < 1e-15).all()
    curved = pd.read_csv(study / "results/constrained-landscape/study.csv")
    assert set(curved["task"]) == {"s3-sign-held"}
    along = pd.read_csv(study / "results/dynamics/s3-sign_muon.csv")
    assert set(along["epoch"]) == {0, 4}
    paths = pd.read_csv(study / "results/representation-connectivity/study.csv")
    assert set(paths["kind"]) <= {"same", "other"}
    assert not study.planned("analyses")  # nothing is left to do
