"""The analysis of snapshots: against a quadratic whose Hessian is known, and as a contract."""

import math

import numpy as np
import pytest
import torch
from tiny_task import Linear, TinyClouds
from torch import nn
from training_case import MUON, CaseTask, Plain, case

from equiscape.analyses import dynamics
from equiscape.analyses.partial import NOTHING, Partial
from equiscape.analyses.subject import Checkpoint, Subject
from equiscape.errors import CheckpointError
from equiscape.objectives import Regression
from equiscape.optim import OPTIMIZERS
from equiscape.training.cell import train_cell

NEEDED = {"switch": {"first": {"class": "adamw"}, "second": {"class": "muon"}, "at": 0.5}}
FEW = dynamics.Settings(
    samples=16, eigenvalues=2, probes=2, max_iterations=6, probe_samples=8, starts=1
)


def subject(task, optimizer, folder, lr="1e-2", wd="0", partial=NOTHING, **changes):
    """The snapshots of a cell, as a rule would give them."""
    training = {**task.training, **changes}
    result = train_cell(task, optimizer, lr, wd, 5, training, keep_weights=True)
    cell = folder / f"final/{task.name}_{optimizer['name']}/seed5/snapshots"
    cell.mkdir(parents=True, exist_ok=True)
    checkpoints = []
    for epoch, content in result.snapshots.items():
        (cell / f"epoch{epoch}.pt").write_bytes(content)
        checkpoints.append(Checkpoint.at(task, cell / f"epoch{epoch}.pt"))
    return Subject(task, tuple(checkpoints), partial=partial)


def value(frame, quantity, epoch, layer="all"):
    chosen = (frame.quantity == quantity) & (frame.epoch == epoch) & (frame.layer == layer)
    (found,) = frame[chosen].value
    return found


class Vectors(TinyClouds):
    """As a study's data set."""

    def model_arguments(self):
        return {}


def regression():
    task = CaseTask("line", {"architecture": "none"}, Vectors(objective=Regression("mse")), "cpu")
    task.network = Linear
    task.dataset.y = task.dataset.y.float()
    task.training = {"epochs": 40, "batch_size": 13, "snapshots": [0, 1, 40], "recorders": []}
    x = torch.cat([task.dataset.x, torch.ones(13, 1)], 1).double()
    return task, 2 / 13 * x.T @ x


EXACT = dynamics.Settings(
    samples=None, batch_size=13, eigenvalues=5, tolerance=1e-8, dtype="float64", probes=2, starts=0
)


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_the_edge_is_crossed_exactly_where_gradient_descent_diverges(tmp_path, factor):
    task, h = regression()
    largest = torch.linalg.eigvalsh(h)[-1].item()
    sgd = {"name": "sgd", "class": "sgd", "settings": {}}
    own = subject(task, sgd, tmp_path, lr=str(factor * 2 / largest))
    frame = dynamics.measure(own, EXACT).frame
    for epoch in (0, 1, 40):
        assert value(frame, "eigenvalue_1", epoch) == pytest.approx(largest, rel=1e-6)
        assert value(frame, "edge", epoch) == pytest.approx(factor, rel=1e-6)
        assert value(frame, "preconditioned", epoch) == pytest.approx(largest, rel=1e-6)
        change = value(frame, "step_penalty", epoch) - value(frame, "step_gain", epoch)
        assert value(frame, "step_change", epoch) == pytest.approx(change, rel=1e-9, abs=1e-12)
        assert value(frame, "update_angle", epoch) == pytest.approx(0, abs=1e-4)
    loss = {epoch: frame[frame.epoch == epoch].loss.iloc[0] for epoch in (1, 40)}
    slowest = torch.linalg.eigvalsh(h)[-1] * float(factor) * 2 / largest - 1
    assert (slowest > 1) == (factor > 1)
    assert (loss[40] > 3 * loss[1]) == (factor > 1)
    assert (value(frame, "rho", 40) > 1) == (factor > 1)


def test_the_quadratics_spectrum_is_the_exact_one(tmp_path):
    task, h = regression()
    adam = {"name": "adam", "class": "adamw", "settings": {"betas": [0.9, 0.99]}}
    result = dynamics.measure(subject(task, adam, tmp_path, lr="0.02"), EXACT)
    frame, exact = result.frame, torch.linalg.eigvalsh(h).flip(0)
    found = [value(frame, f"eigenvalue_{i}", 40) for i in range(1, 6)]
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    assert value(frame, "trace", 1) == pytest.approx(h.trace().item(), rel=1e-6)
    # all of a five-dimensional space
    assert value(frame, "update_share", 40) == pytest.approx(1, rel=1e-9)
    assert value(frame, "random_share", 40) == 1
    state = torch.load(tmp_path / "final/line_adam/seed5/snapshots/epoch40.pt")["optimizer_state"]
    v = torch.cat([s["exp_avg_sq"].flatten() for s in state["state"].values()]).double()
    p = (1 - 0.9**40) * ((v / (1 - 0.99**40)).sqrt() + 1e-8)
    largest = torch.linalg.eigvalsh(h / p.sqrt() / p.sqrt()[:, None])[-1].item()
    assert value(frame, "preconditioned", 40) == pytest.approx(largest, rel=1e-5)
    assert value(frame, "threshold", 40) == pytest.approx(38 / 0.02, rel=1e-9)
    assert value(frame, "edge", 40) == pytest.approx(largest * 0.02 / 38, rel=1e-5)
    absent = {(a["quantity"], tuple(a["epochs"])) for a in result.attributes["absent"]}
    assert {("margin", (0, 1, 40)), ("edge", (0,)), ("spectral", (0, 1, 40))} <= absent
    assert not frame.quantity.str.startswith("margin").any()
    assert value(frame, "distance_initial", 0) == value(frame, "distance_final", 40) == 0


def test_the_spectral_measure_of_muon_on_a_quadratic(tmp_path):
    """One matrix of one output: a step of norm r, so the measure is r^2 times the eigenvalue."""
    task, h = regression()
    settings = {"orthogonalize": ["body.weight"], "polar": "exact"}
    muon = {"name": "muon", "class": "muon", "settings": settings}
    s = dynamics.Settings(**{**vars(EXACT), "starts": 3, "tolerance": 1e-10})
    frame = dynamics.measure(subject(task, muon, tmp_path), s).frame
    block = torch.linalg.eigvalsh(h[:4, :4])[-1].item()
    assert value(frame, "spectral", 40) == pytest.approx(0.04 * 4 * block, rel=1e-5)
    assert value(frame, "edge", 40, "part") > 0  # of the bias alone
    assert value(frame, "update_stable_rank", 40, "body") == pytest.approx(1)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_is_measured(name, tmp_path):
    """A contract: the step, the curvature and what is kept, whatever the optimizer is."""
    optimizer = {"name": name, "class": name, "settings": NEEDED.get(name, {})}
    task = case(network=Plain, epochs=2, snapshots=[0, 1, 2], batch_size=16)
    result = dynamics.measure(subject(task, optimizer, tmp_path, wd="0.1"), FEW)
    frame = result.frame
    assert list(frame.columns) == list(dynamics.COLUMNS)
    assert not frame.duplicated(["seed", "epoch", "quantity", "layer"]).any()
    assert np.isfinite(frame.drop(frame[frame.quantity == "rho"].index).value).all()
    assert set(frame.epoch) == {0, 1, 2}
    for epoch in (0, 1, 2):
        change = value(frame, "step_penalty", epoch) - value(frame, "step_gain", epoch)
        assert value(frame, "step_change", epoch) == pytest.approx(change, rel=0.3)
    layers = {"first", "hidden", "head"}
    assert set(frame[frame.quantity == "update_effective_rank"].layer) == layers
    assert value(frame, "distance_final", 2) == 0
    if name == "muon":
        update, gradient = (
            value(frame, f"{what}_stable_rank", 1, "hidden") for what in ("update", "gradient")
        )
        assert update > 2 * gradient
    costs = result.attributes["costs"]
    assert costs["products"] >= frame.products.sum() > 0
    assert min(costs["seconds"], costs["peak_memory_mb"]) > 0


def test_the_step_is_the_one_that_training_takes(tmp_path):
    """From the state as it was kept: the next epoch's one step over the whole training split."""
    plain = {"augmentation": None, "label_smoothing": 0.2, "clip_norm": 0.05, "schedule": None}
    task = case(network=Plain, train=16, epochs=2, batch_size=16, snapshots=[1, 2], **plain)
    own = subject(task, MUON, tmp_path, lr="1e-2")
    states = [torch.load(c.path)["model"] for c in own.checkpoints]
    s = dynamics.Settings(**{**vars(FEW), "samples": None, "dtype": "float64"})
    snapshot = dynamics.Snapshot.load(task, own.checkpoints[0])
    objective = snapshot.objective(task, "train", None, 16, seed=0, dtype="float64")
    _, gradient = objective.value_and_gradient()
    step = snapshot.step(objective, gradient)
    for name, part in zip(objective.names, objective.split_vector(step)):
        taken = states[0][name].double() - states[1][name].double()
        torch.testing.assert_close(part, taken, rtol=1e-3, atol=1e-7)
    frame = dynamics.measure(own, s).frame
    assert value(frame, "update_norm", 1) == pytest.approx(step.norm().item(), rel=1e-9)


def test_a_network_with_batch_statistics_is_measured_as_it_is_trained(tmp_path):
    task = case(epochs=1, snapshots=[1], batch_size=8)
    own = subject(task, MUON, tmp_path)
    snapshot = dynamics.Snapshot.load(task, own.checkpoints[0])
    trained = snapshot.objective(task, "train", 20, 999, seed=0)
    assert (trained.samples, len(trained.plan)) == (16, 2)  # whole batches of the training's size
    batch = next(trained.batches())
    model = snapshot.shadow.float().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    losses = [task.loss(model, batch, 0.1).item() for batch in trained.batches()]
    assert trained.value_and_gradient()[0] == pytest.approx(np.mean(losses), rel=1e-5)
    evaluated = snapshot.objective(task, "eval", 20, 5, seed=0)
    assert (evaluated.samples, evaluated.label_smoothing) == (20, 0.0)
    assert batch.size == 8


def test_a_killed_analysis_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    task = case(network=Plain, epochs=2, snapshots=[0, 1, 2], batch_size=16)
    whole = dynamics.measure(subject(task, MUON, tmp_path / "a"), FEW)
    partial = Partial(tmp_path / "stages", "same", least=0.0)
    own = subject(task, MUON, tmp_path / "b", partial=partial)
    calls = {"lanczos": 0}

    def dying(*arguments, **keywords):
        calls["lanczos"] += 1
        if calls["lanczos"] == 4:
            raise KeyboardInterrupt
        return found(*arguments, **keywords)

    found = dynamics.lanczos
    monkeypatch.setattr(dynamics, "lanczos", dying)
    with pytest.raises(KeyboardInterrupt):
        dynamics.measure(own, FEW)
    calls["lanczos"] = 100
    resumed = dynamics.measure(own, FEW)
    assert calls["lanczos"] == 100 + 2  # those that had not been finished
    assert resumed.frame.equals(whole.frame)
    assert resumed.attributes["costs"]["products"] == whole.attributes["costs"]["products"]


def test_later_snapshots_start_from_the_vectors_of_earlier_ones(tmp_path):
    task = case(network=Plain, epochs=3, snapshots=[1, 2, 3], batch_size=16)
    own = subject(task, MUON, tmp_path, lr="1e-4")
    s = dynamics.Settings(**{**vars(FEW), "max_iterations": 60, "eigenvalues": 1})
    frame = dynamics.measure(own, s).frame
    spent = frame[frame.quantity == "eigenvalue_1"].products.tolist()
    assert max(spent[1:]) < spent[0]


def test_snapshots_are_spread_from_the_first_to_the_last():
    assert dynamics.spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert dynamics.spread([1, 2], 4) == [1, 2]
    assert dynamics.spread([1, 2, 3], 1) == [3]
    assert dynamics.spread([1, 2, 3], None) == [1, 2, 3]


def test_a_snapshot_of_an_earlier_version_is_refused_with_the_remedy(tmp_path):
    task = case(network=Plain, epochs=1, snapshots=[1])
    own = subject(task, MUON, tmp_path)
    state = torch.load(own.checkpoints[0].path)
    del state["optimizer_entry"]
    with pytest.raises(CheckpointError, match="rerun its cell"):
        dynamics.Snapshot.of(task, state, "epoch1.pt")
    assert math.isfinite(dynamics.measure(own, FEW).frame.loss.iloc[0])
