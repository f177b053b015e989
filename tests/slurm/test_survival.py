"""A study on a real SLURM, disturbed in every way a cluster knows, ends as if nothing had been."""

import json
import os
import signal
import subprocess
import time
from collections import defaultdict
from copy import deepcopy

import h5py
import pandas as pd
import pytest
import torch
from cluster import Cluster
from submission import Submission, Training, trainings
from workspace import TINY, Workspace

ANNOUNCED, LIMIT = "grid/egnn_adam/lr1e-3_wd1e-2_seed0", "grid/egnn_adam/lr3e-3_wd1e-2_seed0"
REQUEUED, CANCELLED = "final/egnn_adam/seed1", "final/egnn_adam/seed2"
CELLS = (ANNOUNCED, LIMIT, REQUEUED, CANCELLED)
TARGETS = ("results/tables/accuracy.csv", "analyses")
CONTROLLER = "the controller"
# Until the grid cells' time limit, in which a job must start; more on a machine that is busy.
MINUTES = int(os.environ.get("SLURM_TEST_MINUTES", "2"))
TIMES = ("samples_per_second", "peak_memory_mb", "seconds", "provenance")


def study() -> dict:
    """One task and one optimizer, with cells that run long enough to be disturbed."""
    config = deepcopy(TINY)
    config["tasks"].pop("pointnet")
    config["optimizers"].pop("muon")
    epochs = 240 // MINUTES
    config["training"] |= {"epochs": epochs, "resume_seconds": 0.0}
    config["selection"]["training"] = {"epochs": epochs}
    return config


class Saboteur:
    """Disturbs each training cell once it has a resume point, and writes down what it saw.

    A process that is stopped (SIGSTOP) is one that hangs: that is how a cell of seconds runs into a
    time limit of minutes. SLURM wakes it (SIGCONT) with each signal that it sends.
    """

    def __init__(self, submission: Submission, cluster: Cluster):
        self.submission, self.cluster = submission, cluster
        self.attempts: dict[str, list[Training]] = defaultdict(list)
        self.done: set[str] = set()
        self.states: dict[str, set[str]] = defaultdict(set)  # states that a job was seen in
        self.restarts: dict[str, int] = defaultdict(int)
        self.jobs: dict[str, dict[str, str]] = {}
        self.others = set(cluster.jobs())  # of the tests before

    def look(self) -> None:
        """One round: find new processes, disturb those that are due."""
        known = {t.pid for attempts in self.attempts.values() for t in attempts}
        for training in trainings(self.submission):
            if training.pid not in known:
                self.attempts[training.cell].append(training)
        for attempts in self.attempts.values():
            if attempts[-1].alive:
                attempts[-1].listen()
                self.disturb(attempts[-1], len(attempts))
        for job, fields in self.cluster.jobs().items():
            if job in self.others:
                continue
            self.jobs[job] = fields
            self.states[job].add(fields["JobState"])
            self.restarts[job] = max(self.restarts[job], int(fields["Restarts"]))

    def disturb(self, training: Training, attempt: int) -> None:
        if "epoch 1 of" not in training.said and "resuming at" not in training.said:
            return  # the first resume point follows the first step; later lines wait two seconds
        cell = training.cell
        if attempt == 1 and not training.held and cell not in self.done:
            training.send(signal.SIGSTOP)  # a cell of seconds must not finish under our hands
            training.held = True
        if cell == REQUEUED and attempt == 1 and cell not in self.done:
            self.done.add(cell)
            self.cluster.ask("scontrol", "requeue", training.job)
        elif cell == REQUEUED and attempt == 2 and "killed" not in self.done:
            self.done.add("killed")
            training.send(signal.SIGKILL)
        elif cell == CANCELLED and attempt == 1 and cell not in self.done:
            self.done.add(cell)
            self.cluster.ask("scancel", training.job)
        elif cell == CANCELLED and attempt == 2 and CONTROLLER not in self.done:
            self.done.add(CONTROLLER)
            self.cluster.restart_controller()

    def jobs_of(self, rule: str) -> list[dict[str, str]]:
        """The SLURM jobs of a rule, whatever became of them."""
        return [f for f in self.jobs.values() if f.get("Comment", "").startswith(f"rule_{rule}")]


@pytest.fixture(scope="module")
def disturbed(cluster, tmp_path_factory):
    """The finished submission, the finished local run, and the saboteur's notes."""
    local = Workspace(tmp_path_factory.mktemp("local"), study())
    submission = Submission(tmp_path_factory.mktemp("submitted"), study(), cluster)
    submission.announced = 15 * MINUTES  # seconds; the profile's own would be too early here
    saboteur = Saboteur(submission, cluster)
    undisturbed = subprocess.Popen(
        local.command(*TARGETS, cores=1),
        cwd=local.folder,
        env=local.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    options = [
        "--set-resources",
        # the first attempt has these minutes, the next ones what the rule asks for
        f"train_grid_cell:runtime={MINUTES} if attempt == 1 else 60",
        # the end of one of the two cells is not announced
        f"train_grid_cell:slurm_extra='' if wildcards.lr in '{LIMIT}' else {submission.extra}",
    ]
    process = submission.start(*TARGETS, options=options)
    try:
        deadline = time.monotonic() + 450 * MINUTES
        while process.poll() is None:
            saboteur.look()
            assert time.monotonic() < deadline, submission.output()[-4000:]
            time.sleep(0.2)
        saboteur.look()
        undisturbed.wait(timeout=300 * MINUTES)
    finally:
        for running in (process, undisturbed):
            if running.poll() is None:  # Snakemake would wait for its jobs
                running.kill()
                running.wait()
    assert process.returncode == 0, submission.output()[-6000:]
    assert undisturbed.returncode == 0
    return submission, local, saboteur


def test_every_disturbance_took_place(disturbed):
    submission, _, saboteur = disturbed
    assert saboteur.done >= {REQUEUED, "killed", CANCELLED, CONTROLLER}
    first = {cell: saboteur.attempts[cell][0] for cell in CELLS}
    assert saboteur.states[first[ANNOUNCED].job] >= {"FAILED"}
    assert saboteur.states[first[LIMIT].job] >= {"TIMEOUT"}
    assert saboteur.states[first[CANCELLED].job] >= {"CANCELLED"}
    assert saboteur.restarts[first[REQUEUED].job] == 1
    assert "Trying to restart job" in submission.output()


def test_the_announcement_reaches_the_training_through_shell_srun_and_snakemake(disturbed):
    submission, _, saboteur = disturbed
    job = saboteur.attempts[ANNOUNCED][0].job
    (log,) = (submission / ".snakemake/slurm_logs").rglob(f"{job}.log")
    said = log.read_text()
    assert "training stopped on SIGURG" in said
    assert "resume from epoch" in said
    assert "Traceback" not in said.split("training stopped on SIGURG")[0]


def test_no_cell_starts_again_once_it_has_a_resume_point(disturbed):
    submission, _, saboteur = disturbed
    expected = {ANNOUNCED: 2, LIMIT: 2, REQUEUED: 3, CANCELLED: 2}
    assert {cell: len(attempts) for cell, attempts in saboteur.attempts.items()} == expected
    for attempts in saboteur.attempts.values():
        for attempt in attempts[1:]:
            assert "resuming at epoch" in attempt.said, attempt.cell
    assert not list((submission / "resources/resume").rglob("*.point"))


def test_results_equal_the_undisturbed_local_run_bit_for_bit(disturbed):
    submission, local, _ = disturbed
    for cell in CELLS:
        one, two = (
            json.loads((w / f"results/{cell}/metrics.json").read_text())
            for w in (submission, local)
        )
        for name in TIMES:
            one.pop(name), two.pop(name)
        assert one == two
        one, two = (
            pd.read_csv(w / f"results/{cell}/history.csv").drop(columns="seconds")
            for w in (submission, local)
        )
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    for cell in (REQUEUED, CANCELLED):
        one, two = (
            torch.load(w / f"results/{cell}/checkpoint.pt", weights_only=True)
            for w in (submission, local)
        )
        assert one["epoch"] == two["epoch"]
        assert all(torch.equal(one["model"][name], two["model"][name]) for name in two["model"])


def test_analyses_and_tables_equal_the_local_run(disturbed):
    submission, local, _ = disturbed
    for name in ("rank", "robustness"):
        one, two = ((w / f"results/{name}/egnn_adam.csv").read_bytes() for w in (submission, local))
        assert one == two
    one, two = (
        json.loads((w / "results/hessian/egnn_adam.json").read_text()) for w in (submission, local)
    )
    assert one["eigenvalues"] == two["eigenvalues"]
    assert one["trace"] == two["trace"]
    losses = []
    for workspace in (submission, local):
        with h5py.File(workspace / "results/slice/egnn_adam.h5") as plane:
            losses.append(plane["loss"][:])
    assert (losses[0] == losses[1]).all()
    timed = {"cost.csv", "equal_cost.csv"}  # wall time is not the same twice
    tables = sorted({p.name for p in (local / "results/tables").glob("*.csv")} - timed)
    assert "accuracy.csv" in tables
    for name in tables:
        assert (submission / f"results/tables/{name}").read_bytes() == (
            local / f"results/tables/{name}"
        ).read_bytes()


def test_training_and_analyses_ask_for_one_gpu_and_other_jobs_for_none(disturbed):
    _, _, saboteur = disturbed
    # ranks and robustness are in the profile's group of short jobs
    for rule in ("train_grid_cell", "train_final_cell", "hessian", "slice", "short"):
        jobs = saboteur.jobs_of(rule)
        assert jobs, rule
        assert {job.get("TresPerJob") for job in jobs} == {"gres:gpu:1"}, rule
    for rule in ("prepare", "corrupt", "tables"):
        jobs = saboteur.jobs_of(rule)
        assert jobs, rule
        assert not any("gpu" in str(job.get("TresPerJob")) for job in jobs), rule


def test_each_training_has_a_gpu_of_its_own(disturbed):
    _, _, saboteur = disturbed
    attempts = [a for attempts in saboteur.attempts.values() for a in attempts]
    assert {a.gpu for a in attempts} == {"0", "1"}
    # the two grid cells were held at the same time
    assert saboteur.attempts[ANNOUNCED][0].gpu != saboteur.attempts[LIMIT][0].gpu


def test_logs_arrive(disturbed):
    submission, local, saboteur = disturbed
    for log in (local / "results/logs").rglob("*.log"):
        mine = submission / "results/logs" / log.relative_to(local / "results/logs")
        assert mine.is_file(), mine
        assert bool(mine.read_text()) == bool(log.read_text()), mine
    failed = [job for job, states in saboteur.states.items() if "FAILED" in states]
    kept = {log.stem for log in (submission / ".snakemake/slurm_logs").rglob("*.log")}
    assert set(failed) <= kept
