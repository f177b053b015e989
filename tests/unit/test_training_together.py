"""Cells in lockstep end where each ends by itself."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from permutation_case import teacher_task
from training_case import TIMES

from equiscape.errors import ConfigError
from equiscape.training.cell import train_cell
from equiscape.training.loop import Trainer
from equiscape.training.settings import Settings
from equiscape.training.together import train_together

TRAINING = {
    "epochs": 6,
    "batch_size": 10**6,
    "evaluate_every": 2,
    "schedule": {"name": "cosine", "final_fraction": 0.1},
}
OPTIMIZERS = {
    "adamw": {},
    "sgd": {"momentum": 0.9},
    "lion": {},
    "muon": {"min_side": 2, "ns_dtype": "float32"},
}
MODES = [
    {"mode": "constrained"},
    {"mode": "free"},
    {"mode": "relaxed", "release": 0.5, "noise": 0.1},
    {"mode": "relaxed", "release": 0.8, "noise": 0.1, "penalty": 0.5},
]
SEEDS = [3, 4, 8]


def entry(name):
    return {"name": name, "class": name, "settings": OPTIMIZERS[name]}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODES, ids=lambda m: "-".join(map(str, m.values())))
def test_each_cell_ends_where_it_ends_by_itself(tmp_path, optimizer, model):
    model = {"hidden": ["natural + trivial"], **model}
    outputs = "natural" if optimizer == "sgd" else "trivial"
    task = teacher_task(tmp_path, model, hidden=["regular"], passes=3, outputs=outputs)
    arguments = (entry(optimizer), "1e-2", "1e-3")
    together = train_together(task, *arguments, SEEDS, TRAINING, keep_weights=True)
    for seed, found in zip(SEEDS, together):
        alone = train_cell(task, *arguments, seed, TRAINING, keep_weights=True)
        exact = {k for k, v in alone.metrics.items() if not isinstance(v, float | dict)}
        for key in exact - set(TIMES):
            assert found.metrics[key] == alone.metrics[key], key
        tolerance = 1e-4 if optimizer == "muon" else 1e-9  # float32 in Newton-Schulz
        for name, weight in alone.checkpoint["model"].items():
            torch.testing.assert_close(
                found.checkpoint["model"][name], weight, rtol=tolerance, atol=tolerance
            )
        one, two = alone.history, found.history
        assert list(one.columns) == list(two.columns)
        assert one["distance"].notna().all()
        columns = [c for c in one.columns if c not in ("seconds", "distance")]
        np.testing.assert_allclose(
            two[columns].to_numpy(float), one[columns].to_numpy(float), rtol=100 * tolerance
        )
        np.testing.assert_allclose(two["distance"], one["distance"], rtol=1e-3, atol=1e-6)


def test_the_last_weights_are_kept_where_asked(tmp_path):
    task = teacher_task(tmp_path, {"hidden": ["natural"]})
    for keep in ("best", "last"):
        settings = {**TRAINING, "keep": keep, "schedule": {"name": "constant"}}
        # a step that only leads away
        for result in (
            *train_together(task, entry("lion"), 3.0, 0, [1], settings, keep_weights=True),
            train_cell(task, entry("lion"), 3.0, 0, 1, settings, keep_weights=True),
        ):
            best = result.metrics["at"]["best_validation"]["epoch"]
            assert best < 6
            assert result.checkpoint["epoch"] == (best if keep == "best" else 6)
    with pytest.raises(ConfigError, match=r"training\.keep"):
        train_cell(task, entry("lion"), 3.0, 0, 1, {**TRAINING, "keep": "first"})


def test_one_that_diverges_leaves_the_others_alone(tmp_path):
    task = teacher_task(tmp_path, {"hidden": ["natural"], "activation": "relu"}, passes=2)
    build = task.build
    settings = {**TRAINING, "schedule": {"name": "constant"}}

    def poisoned(seed):
        model = build(seed)
        if seed == 4:
            with torch.no_grad():
                model.layers[1].weight.fill_(1e200)
        return model

    expected = train_together(task, entry("adamw"), 1e-2, 0, [3, 8], settings, True)
    task.build = poisoned
    found = train_together(task, entry("adamw"), 1e-2, 0, SEEDS, settings, True)
    assert [cell.metrics["status"] for cell in found] == ["finished", "diverged", "finished"]
    assert found[1].metrics["diverged_at"] == {"epoch": 1, "step": 1}
    assert found[1].metrics["steps"] == 1
    assert len(found[1].history) == 1
    assert math.isnan(found[1].history["train_loss"][0])
    for one, two in zip(expected, (found[0], found[2])):
        for name, weight in one.checkpoint["model"].items():
            torch.testing.assert_close(two.checkpoint["model"][name], weight, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 7}, "whole training split"),
        ({"clip_norm": 1.0}, "clip_norm"),
        ({"patience": 3}, "patience"),
    ],
)
def test_what_cannot_be_done_at_once_is_refused(tmp_path, settings, message):
    task = teacher_task(tmp_path)
    with pytest.raises(ConfigError, match=message):
        train_together(task, entry("adamw"), 1e-2, 0, SEEDS, {**TRAINING, **settings})


def test_a_cell_goes_on_from_the_middle_of_an_epoch_as_if_nothing_had_been(tmp_path):
    """Before and after its release, the distance of the epoch under way included."""
    model = {"hidden": ["natural + trivial"], "mode": "relaxed", "noise": 0.1}
    task = teacher_task(tmp_path, model, hidden=["regular"], passes=3)
    settings = Settings.read(TRAINING)

    def trainer():
        return Trainer(task, entry("muon"), 1e-2, 0, 5, settings, True)

    states, undisturbed = [], trainer()

    def keep():
        if undisturbed.steps in (2, 8, 10, 11):
            states.append(deepcopy(undisturbed.state()))

    undisturbed.run(keep, lambda row: None)
    assert len(states) >= 4
    for state in states:
        resumed = trainer()
        resumed.restore(state)
        resumed.run(lambda: None, lambda row: None)
        for one, two in zip(undisturbed.model.parameters(), resumed.model.parameters()):
            assert torch.equal(one, two)
        for one, two in zip(undisturbed.rows, resumed.rows, strict=True):
            assert {**one, "seconds": 0} == pytest.approx({**two, "seconds": 0}, abs=0, nan_ok=True)


def test_an_optimizer_that_needs_the_network_itself_is_refused(tmp_path):
    task = teacher_task(tmp_path)
    part = {"class": "adamw"}
    average = {"class": "schedule-free-adamw", "settings": {}}
    with pytest.raises(ConfigError, match="average weights"):
        train_together(task, average, 1e-2, 0, SEEDS, TRAINING)
    switch = {"class": "switch", "settings": {"first": part, "second": part, "at": 0.5}}
    with pytest.raises(ConfigError, match="whole network"):
        train_together(task, switch, 1e-2, 0, SEEDS, TRAINING)
