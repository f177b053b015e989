"""Several training cells in one job and on one GPU; a node whose GPU does not work."""

import shutil
from copy import deepcopy

import pytest
import torch
from submission import Submission
from workspace import TINY


@pytest.fixture(scope="module")
def submission(cluster, tmp_path_factory):
    """A study of four cells of a moment each."""
    config = deepcopy(TINY)
    config["tasks"].pop("pointnet")
    config["optimizers"].pop("muon")
    config["optimizers"]["adam"]["grid"] = {"lr": ["1e-3", "2e-3", "3e-3", "4e-3"], "wd": ["0"]}
    return Submission(tmp_path_factory.mktemp("sharing"), config, cluster)


def test_a_node_without_a_working_gpu_fails_in_one_sentence(submission):
    if torch.cuda.is_available():
        pytest.skip("this machine has a working GPU")
    cell = "results/grid/egnn_adam/lr1e-3_wd0_seed0/metrics.json"
    output = submission.run(cell, options=["--retries", "0"], ok=False, device="cuda")
    assert "device: 'cuda' does not work on" in output
    assert "give the job a GPU or set `device: cpu`" in output
    assert not (submission / cell).exists()


def test_cells_of_a_group_share_one_job_and_one_gpu(submission):
    before = set(submission.cluster.jobs())
    # the one key of the profile that is a comment there: groups.train_grid_cell
    submission.run("grid", options=["--groups", "train_grid_cell=cells"])
    new = [f for job, f in submission.cluster.jobs().items() if job not in before]
    (job,) = [fields for fields in new if fields.get("TresPerJob")]
    assert job["JobState"] == "COMPLETED"
    assert job["TresPerJob"] == "gres:gpu:1"
    assert job["MinMemoryNode"] == "8000M"  # of one cell, since they run one after another
    assert job["TimeLimit"] == "16:00:00"  # of all four
    for lr in ("1e-3", "2e-3", "3e-3", "4e-3"):
        assert (submission / f"results/grid/egnn_adam/lr{lr}_wd0_seed0/metrics.json").is_file()


def test_cells_are_submitted_as_one_array(submission):
    before = set(submission.cluster.jobs())
    shutil.rmtree(submission / "results/grid", ignore_errors=True)  # by the test before, if it ran
    submission.run("grid", options=["--slurm-array-jobs", "train_grid_cell"])
    new = [f for job, f in submission.cluster.jobs().items() if job not in before]
    tasks = [fields for fields in new if fields.get("ArrayTaskId")]
    assert len({fields["ArrayJobId"] for fields in tasks}) == 1
    assert len({fields["ArrayTaskId"] for fields in tasks}) == len(tasks) == 4
    for lr in ("1e-3", "2e-3", "3e-3", "4e-3"):
        assert (submission / f"results/grid/egnn_adam/lr{lr}_wd0_seed0/metrics.json").is_file()


def test_the_sites_own_request_reaches_the_jobs_with_a_gpu_alone(submission):
    before = set(submission.cluster.jobs())
    for made in ("results/grid", "resources/prepared"):
        shutil.rmtree(submission / made, ignore_errors=True)  # by the tests before, if they ran
    # the profile's commented set-resources, in its form for clusters that insist on --gres
    site = ["train_grid_cell:gpu=0", "train_grid_cell:gres='gpu:1'"]
    submission.run("grid", options=["--set-resources", *site])
    new = [f for job, f in submission.cluster.jobs().items() if job not in before]
    asked = {True: set(), False: set()}
    for fields in new:
        trains = fields["Comment"].startswith("rule_train_grid_cell")
        asked[trains].add(fields.get("TresPerNode") or fields.get("TresPerJob"))
    assert asked == {True: {"gres:gpu:1"}, False: {None}}
