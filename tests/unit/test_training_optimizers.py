"""Every optimizer in the training loop, the spectrum-match constraint, and counted products."""

import copy

import pytest
import torch
from test_optim_build import entry_of
from training_case import MUON, Plain, case

from equiscape.errors import ConfigError
from equiscape.optim import OPTIMIZERS
from equiscape.spectra.ranks import singular_values, stable_rank
from equiscape.training.cell import train_cell
from equiscape.training.loop import Trainer
from equiscape.training.settings import Settings


def trainer(entry, network=None, **training):
    task = case(network=network, **training)
    return Trainer(task, entry, 1e-2, 1e-3, 5, Settings.read(task.training), keep_weights=True)


def numbers(trained):
    """All that two trainings have to agree in."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in trained.rows]
    return rows, {k: v.clone() for k, v in trained.model.state_dict().items()}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("where", ["in a step", "in an evaluation"])
def test_an_interrupted_training_ends_with_the_same_bits(name, where):
    settings = {"epochs": 3, "recorders": ["products"]}
    whole = trainer(entry_of(name), **settings)
    whole.run(lambda: None, lambda row: None)

    first = trainer(entry_of(name), **settings)
    states: list[dict] = []

    def stop():
        evaluating = not first.model.training
        if first.epoch == 1 and first.step >= 3 and evaluating == (where == "in an evaluation"):
            states.append(copy.deepcopy(first.state()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(stop, lambda row: None)
    again = trainer(entry_of(name), **settings)
    again.restore(states[0])
    again.run(lambda: None, lambda row: None)
    rows, weights = numbers(again)
    expected_rows, expected = numbers(whole)
    assert rows == expected_rows
    assert all(torch.equal(weights[k], expected[k]) for k in expected)
    assert all(torch.equal(again.best.weights[k], whole.best.weights[k]) for k in expected)


def test_a_schedule_free_optimizer_is_evaluated_and_kept_at_its_average():
    entry = {"name": "free", "class": "schedule-free-adamw"}
    trained = trainer(entry, network=Plain, epochs=2, schedule=None, snapshots=[2])
    trained.run(lambda: None, lambda row: None)
    model, task = trained.model, trained.task
    at_gradient = task.score(model, task.batches("validation"))["loss"]
    trained.optimizer.eval()
    at_average = task.score(model, task.batches("validation"))["loss"]
    assert trained.rows[-1]["validation_loss"] == pytest.approx(at_average, rel=1e-6)
    assert at_average != pytest.approx(at_gradient, rel=1e-3)
    x = {n: trained.optimizer.state[p]["x"] for n, p in model.named_parameters()}
    assert trained.best.epoch == 2
    assert all(torch.equal(trained.best.weights[n], x[n]) for n in x)


def test_the_switch_comes_at_its_fraction_of_the_steps():
    entry = {"name": "s", **entry_of("switch")}
    trained = trainer(entry, epochs=4)
    kinds = []
    trained.run(lambda: kinds.append(type(trained.optimizer.active).__name__), lambda row: None)
    steps = kinds[: 4 * trained.steps_per_epoch]
    assert trained.optimizer.last == 2 * trained.steps_per_epoch
    assert {"AdamW", "Muon"} == set(steps)
    assert trained.steps == 4 * trained.steps_per_epoch


def test_stable_ranks_are_held_after_every_epoch():
    ranks = {"hidden": 2.5}
    constraint = {"name": "spectrum-match", "ranks": ranks}
    task = case(network=Plain, epochs=2, constraints=[constraint])
    result = train_cell(task, MUON, "1e-2", "0", 5, task.training, keep_weights=True)
    weights = result.checkpoint["model"]
    assert stable_rank(singular_values(weights["hidden.weight"])) == pytest.approx(2.5, rel=1e-5)
    free = case(network=Plain, epochs=2)
    free = train_cell(free, MUON, "1e-2", "0", 5, free.training, keep_weights=True)
    other = free.checkpoint["model"]["hidden.weight"]
    assert stable_rank(singular_values(other)) > 3  # what it would be
    # the first and the last layer are not hidden, whatever is asked for
    assert not torch.equal(weights["head.weight"], torch.zeros(3, 16))


def test_the_placebo_of_its_own_final_ranks_changes_little():
    free = case(network=Plain, epochs=1)
    free = train_cell(free, MUON, "1e-2", "0", 5, free.training, keep_weights=True)
    matrix = free.checkpoint["model"]["hidden.weight"]
    own = {"hidden": stable_rank(singular_values(matrix))}
    task = case(network=Plain, epochs=1, constraints=[{"name": "spectrum-match", "ranks": own}])
    held = train_cell(task, MUON, "1e-2", "0", 5, task.training, keep_weights=True)
    torch.testing.assert_close(held.checkpoint["model"]["hidden.weight"], matrix, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("entry", "constraint", "message"),
    [
        (MUON, {"name": "spectrum-match"}, r"spectrum-match.*ranks_of"),
        (MUON, {"name": "spectrum-match", "ranks": {"hidden": -1}}, r"ranks\.hidden"),
        (
            {"class": "schedule-free-adamw"},
            {"name": "spectrum-match", "ranks": {"hidden": 2}},
            r"training\.constraints: schedule-free-adamw",
        ),
    ],
)
def test_a_constraint_that_cannot_hold_is_refused(entry, constraint, message):
    with pytest.raises(ConfigError, match=message):
        trainer(entry, network=Plain, constraints=[constraint])


def test_products_of_an_epoch_are_counted():
    muon = {"class": "muon", "settings": {"ns_dtype": "float32"}}
    rows = {}
    for name, entry in (("adamw", {"class": "adamw"}), ("muon", muon)):
        trained = trainer(entry, network=Plain, epochs=2, recorders=["products"])
        trained.run(lambda: None, lambda row: None)
        rows[name] = [row["products"] for row in trained.rows]
        assert rows[name][0] == rows[name][1]
    samples, points, steps = 41, 12, trained.steps_per_epoch
    forward = points * (3 * 16 + 16 * 16) + 16 * 3
    # weights' gradients, and the inputs' but for the first layer; two operations a product
    gradient = 2 * samples * (forward + forward + points * 16 * 16 + 16 * 3)
    assert rows["adamw"][0] == pytest.approx(gradient)
    newton_schulz = 5 * 3 * 2 * 16**3  # hidden.weight, five steps of three square products
    assert rows["muon"][0] == pytest.approx(gradient + steps * newton_schulz)
