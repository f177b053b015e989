"""Recorders, constraints, snapshots and early stopping."""

import io
import math

import pytest
import torch
from torch import nn
from training_case import MUON, Plain, case, register

from equiscape.errors import ConfigError
from equiscape.optim import OPTIMIZERS
from equiscape.task import Predictions
from equiscape.training import RECORDERS
from equiscape.training.cell import train_cell
from equiscape.training.loop import Trainer
from equiscape.training.recorders import GradientNorm
from equiscape.training.settings import Settings
from equiscape.training.snapshots import Snapshots, serialized

SGD = {"name": "sgd", "class": "sgd", "settings": {}}


def train(task, optimizer=MUON, lr="1e-2"):
    return train_cell(task, optimizer, lr, "0", 5, task.training, keep_weights=True)


def snapshots(result):
    return {
        epoch: torch.load(io.BytesIO(content), weights_only=True)
        for epoch, content in result.snapshots.items()
    }


def test_the_gradient_norm_is_the_mean_over_the_steps_before_clipping():
    plain = {"augmentation": None, "label_smoothing": 0.0, "clip_norm": 1e-3}
    task = case(network=Plain, train=16, epochs=1, schedule=None, **plain)
    found = train(task, SGD, lr="0.1").history["gradient_norm"].item()

    model = task.build(5)  # the same two steps, by hand
    order = Trainer(task, SGD, 0.1, 0, 5, Settings.read(task.training)).order
    norms = []
    for indices in task.plan("train", 8, order):
        model.zero_grad()
        batch = task.batch("train", indices)
        nn.functional.cross_entropy(model(*batch.inputs), batch.target).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        norms.append(gradient.norm().item())
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad * min(1, 1e-3 / (norms[-1] + 1e-6))
    assert found == pytest.approx(sum(norms) / 2, rel=1e-5)


def test_recording_a_gradient_norm_fetches_nothing_from_the_device(monkeypatch):
    model = nn.Linear(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    trainer = type("Trainer", (), {"model": model})
    recorder = GradientNorm()

    def fetch(*_):
        raise AssertionError("a step would wait for the device")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "__float__", "__bool__", "cpu", "numpy"):
            patch.setattr(torch.Tensor, name, fetch)
        for _ in range(3):
            recorder.after_backward(trainer)
            recorder.after_update(trainer)
    assert recorder.row() == {"gradient_norm": pytest.approx(math.sqrt(8))}


def test_a_recorder_changes_no_number_of_the_training():
    register()
    with_all = train(case(recorders=["gradient_norm", "trace"]))
    without = train(case(recorders=[]))
    assert list(without.history.columns) == [
        c for c in with_all.history.columns if c not in ("gradient_norm", "trace", "backward")
    ]
    assert without.history["train_loss"].tolist() == with_all.history["train_loss"].tolist()
    assert with_all.history["backward"].tolist() == [5.0] * 4


def test_a_constraint_acts_after_each_epoch_and_before_its_evaluation():
    register()
    task = case(network=Plain, epochs=2, constraints=[{"name": "shrink", "by": 0.0}])
    result = train(task)
    uniform = math.log(3)  # a network of zeros
    assert result.history["validation_loss"].tolist() == pytest.approx([uniform] * 2)
    assert result.history["train_loss"][1] == pytest.approx(uniform, rel=0.05)
    assert not any(w.any() for w in result.checkpoint["model"].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"recorders": ["gradient_nrom"]},
            r"training\.recorders\.0: 'gradient_nrom'.*did you mean",
        ),
        ({"recorders": [{"name": "gradient_norm", "p": 1}]}, r"training\.recorders\.0.*'p'"),
        ({"recorders": ["gradient_norm"] * 2}, r"training\.recorders.*without repetitions"),
        ({"constraints": ["spectrum"]}, r"training\.constraints\.0: 'spectrum' is unknown"),
        ({"snapshots": [0, 5]}, r"snapshots.* must not be later than training\.epochs"),
        ({"snapshots": [-1]}, r"training\.snapshots"),
        ({"patience": 0}, r"training\.patience: 0"),
    ],
)
def test_a_fault_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        train(case(**changes))


@pytest.mark.parametrize("name", sorted(RECORDERS))
def test_every_recorder_keeps_the_same_columns_and_resumes(name):
    """A contract of every registered recorder."""
    task = case()
    trainers = [
        Trainer(task, MUON, 1e-2, 0, 5, Settings.read({**task.training, "recorders": [name]}))
        for _ in range(2)
    ]
    first, second = trainers

    def stop():
        if first.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run_epoch(stop)
    second.restore(first.state())
    second.run_epoch()
    first.run_epoch()
    rows = [{k: v for k, v in t.rows[0].items() if k != "seconds"} for t in trainers]
    assert rows[0] == rows[1]
    first.run_epoch()
    assert list(first.rows[0]) == list(first.rows[1])


def test_snapshots_hold_the_network_and_the_optimizer_of_their_epoch():
    found = snapshots(train(case(epochs=4, snapshots=[0, 2, 4])))
    initial = case().build(5).state_dict()
    assert all(torch.equal(found[0]["model"][name], initial[name]) for name in initial)
    assert found[0]["optimizer_state"]["state"] == {}
    shorter = train(case(epochs=4, snapshots=[2]))
    for name, tensor in found[2]["model"].items():
        assert torch.equal(tensor, snapshots(shorter)[2]["model"][name])
    history = shorter.history
    assert found[2]["lr"] == history["lr"][1]
    assert found[0]["lr"] == pytest.approx(1e-2 / 5)  # of the first warm-up step
    momentum = [s["momentum_buffer"] for s in found[4]["optimizer_state"]["state"].values()
                if "momentum_buffer" in s]  # fmt: skip
    assert momentum
    assert all(torch.isfinite(buffer).all() for buffer in momentum)
    assert {s["status"] for s in found.values()} == {"finished"}
    assert train(case(epochs=1)).snapshots == {}


NEEDED = {"switch": {"first": {"class": "adamw"}, "second": {"class": "muon"}, "at": 0.3}}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_goes_on_from_a_point_and_fits_into_a_snapshot(name):
    """A contract of every registered optimizer."""
    optimizer = {"name": name, "class": name, "settings": NEEDED.get(name, {})}
    task = case(epochs=2)
    whole, first, second = (
        Trainer(task, optimizer, "1e-3", "1e-2", 5, Settings.read(task.training),
                snapshots=Snapshots([2], None))
        for _ in range(3)
    )  # fmt: skip

    def stop():
        if first.steps == 7:
            raise KeyboardInterrupt

    torch.manual_seed(0)  # dropout draws from the global stream
    whole.run(lambda: None, lambda row: None)
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        first.run(stop, lambda row: None)
    point = torch.load(io.BytesIO(serialized(first.state())), weights_only=True)
    torch.manual_seed(1)
    second.restore(point)
    second.run(lambda: None, lambda row: None)
    expected = whole.model.state_dict()
    for key, value in second.model.state_dict().items():
        assert torch.equal(value, expected[key]), key
    one, two = (torch.load(io.BytesIO(t.snapshots.read(2)), weights_only=True)
                for t in (whole, second))  # fmt: skip
    assert all(torch.equal(one["model"][key], two["model"][key]) for key in one["model"])
    first.optimizer.load_state_dict(two["optimizer_state"])


def test_a_grid_cell_keeps_no_snapshot():
    task = case(snapshots=[1])
    assert train_cell(task, MUON, "1e-2", "0", 5, task.training).snapshots == {}


def test_a_diverged_cell_writes_the_snapshots_that_it_did_not_reach():
    result = train(case(snapshots=[0, 4]), SGD, lr="1e30")
    found = snapshots(result)
    assert result.metrics["status"] == "diverged"
    assert [found[e]["status"] for e in (0, 4)] == ["finished", "diverged"]
    assert found[4]["model"] is None
    assert math.isnan(result.history["gradient_norm"].iloc[-1])


def test_patience_ends_a_training_that_does_not_improve():
    task = case(epochs=9, patience=2, snapshots=[1, 9])
    scores = iter([(50, 1), (60, 1), (60, 1), (55, 1)])  # the best is the second epoch
    evaluated = []

    def predict(model, batches):
        list(batches)
        if not evaluated or len(evaluated) % 2 == 0:
            task.now = next(scores)
        evaluated.append(1)
        scores_now = {"loss": float(task.now[1]), "score": float(task.now[0])}
        return Predictions(torch.zeros(16, 3), torch.zeros(16), scores_now)

    task.predict = predict
    result = train(task)
    assert len(result.history) == result.metrics["epochs"] == 4
    assert result.metrics["stopped_early"]
    assert result.metrics["status"] == "finished"
    assert result.checkpoint["epoch"] == 2
    assert snapshots(result)[9]["status"] == "stopped"
    assert not train(case(epochs=1, patience=1)).metrics["stopped_early"]
