"""What a training says of itself in its log."""

import logging

import pytest
from permutation_case import teacher_task
from training_case import MUON, case

from equiscape.metric import Metric
from equiscape.training.cell import train_cell
from equiscape.training.progress import Progress
from equiscape.training.summary import summary
from equiscape.training.together import train_together

ACCURACY = Metric("accuracy", "max", "%")


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "equiscape.training")
    return lambda: [record.getMessage() for record in caplog.records]


def row(epoch, score=50.0):
    return {"epoch": epoch, "train_loss": 1.5, "validation_score": score}


def test_speed_and_time_left_are_those_of_the_clock(said):
    clock = Clock()
    reporter = Progress("a cell", ACCURACY, 10, bar=False, clock=clock)
    clock.now = 5.0  # building the network
    reporter.plan(40, 20, samples=200, train_seconds=9.0)  # resumed after two of ten epochs
    clock.now = 8.0
    reporter.epoch(row(3), samples=300, train_seconds=11.0)  # 100 samples in 2 s of steps
    clock.now = 11.0
    reporter.epoch(row(4, float("nan")), samples=400, train_seconds=12.0)
    reporter.close()
    assert said() == [
        "epoch 3 of 10: loss 1.5, validation accuracy 50 %; 50 samples/s, 3 s an epoch, 21 s left",
        "epoch 4 of 10: loss 1.5, validation not evaluated; 100 samples/s, 3 s an epoch, 18 s left",
    ]


def test_thousands_of_epochs_have_a_line_every_few_seconds_and_the_last(said):
    clock = Clock()
    reporter = Progress("a cell", ACCURACY, 1000, bar=False, clock=clock)
    reporter.plan(0, 1)
    for epoch in range(1, 1001):
        clock.now += 0.01
        reporter.epoch(row(epoch), samples=epoch, train_seconds=0.01 * epoch)
    reporter.close()
    reporter.close()
    numbers = [int(line.split()[1]) for line in said()]
    assert numbers[0] == 1
    assert numbers[-1] == 1000
    assert len(numbers) <= 7  # 10 s in all
    assert "100 samples/s, 0.01 s an epoch, 0 s left" in said()[-1]


def test_a_log_names_the_settings_of_its_cell(said):
    task = case(epochs=2)
    result = train_cell(task, MUON, "1e-2", "1e-3", 5, task.training)
    first, *epochs = said()
    assert first.startswith(f"{task.name} muon lr 1e-2 wd 1e-3 seed 5; ")
    parameters = result.metrics["parameters"]
    for word in (f"{parameters:,} parameters", "2 epochs of 5 steps", "cpu, ", " thread"):
        assert word in first
    assert [line.count("samples/s, ") for line in epochs] == [1, 1]


def test_a_log_of_cells_in_lockstep_names_their_seeds(tmp_path, said):
    task = teacher_task(tmp_path, {"hidden": ["natural"], "mode": "free"})
    training = {"epochs": 3, "batch_size": 10**6}
    results = train_together(
        task, {"name": "adam", "class": "adamw"}, "1e-2", "0", [3, 8], training
    )
    first, *epochs = said()
    assert first.startswith(f"{task.name} adam lr 1e-2 wd 0 seeds 3, 8 in lockstep; ")
    assert [line.split(":")[0] for line in epochs] == [f"epoch {i} of 3" for i in (1, 2, 3)]
    assert "samples/s" in epochs[-1]
    scores = [result.metrics["at"]["best_validation"]["validation"]["score"] for result in results]
    found = summary([result.metrics for result in results])
    assert found.startswith("2 cells: ")
    assert f"{min(scores):.4g} to {max(scores):.4g}" in found


def cell(score=None, diverged=None):
    best = {"epoch": 3, "validation": {"score": score}, "test": {"score": 80.25}}
    metric = {"name": "accuracy", "direction": "max", "unit": "%"}
    at = {"best_validation": None if score is None else best}
    return {"metric": metric, "at": at, "diverged_at": diverged, "epochs": 4}


def test_what_came_of_trainings_in_one_line():
    lost = cell(diverged={"epoch": 2, "step": 7})
    assert summary([cell(81.25)]) == "accuracy 81.25 % on validation at epoch 3, 80.25 % on test"
    assert summary([lost]) == "diverged at epoch 2, step 7"
    assert summary([cell()]) == "4 epochs, not evaluated"
    several = [cell(81.25), cell(60.0), lost]
    assert summary(several) == "3 cells: accuracy 60 to 81.25 % on validation, 1 diverged"
    assert summary([lost, lost]) == "2 cells, 2 diverged"
