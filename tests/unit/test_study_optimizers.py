"""An optimizer's own training settings, ranks taken from another one, optimizers made of two."""

import pytest
from test_study import change, demo, study

from equiscape.errors import ConfigError

GRID = {"lr": ["1e-2"], "wd": ["1e-2"]}
HELD = {"constraints": [{"name": "spectrum-match", "ranks_of": "muon"}]}
TWO = {"first": {"class": "adamw"}, "second": {"class": "muon", "settings": {"ns_steps": 3}}}


def with_arms(**arms):
    config = demo()
    for name, arm in arms.items():
        config["optimizers"][name] = {"class": "adamw", "grid": GRID, **arm}
    return config


def test_an_optimizer_has_training_settings_of_its_own():
    own = {"schedule": {"name": "constant"}, **HELD}
    found = study(with_arms(held={"training": own}))
    held = found.task_settings("egnn", optimizer="held")["training"]
    assert held["constraints"] == HELD["constraints"]
    assert held["schedule"]["name"] == "constant"
    grid = found.task_settings("egnn", grid=True, optimizer="held")["training"]
    assert grid["constraints"] == HELD["constraints"]
    assert grid["epochs"] == 5  # the selection's, which the arm does not change
    free = found.task_settings("egnn", optimizer="muon")["training"]
    assert "constraints" not in free
    assert found.task_settings("egnn")["training"] == free
    assert found.ranks_of("held") == ["muon"]
    assert found.ranks_of("muon") == []


def test_an_optimizer_made_of_two_is_checked_to_its_depth():
    assert study(with_arms(turn={"class": "switch", "settings": TWO})).optimizers["turn"]


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"training": {"epoch": 3}}, r"optimizers\.arm\.training: 'epoch' is unknown"),
        ({"training": {"epochs": 0}}, r"optimizers\.arm\.training\.epochs"),
        ({"training": {"snapshots": [1]}}, r"optimizers\.arm\.training\.snapshots.*training\.snap"),
        (
            {"training": {"constraints": [{"name": "spectrum-match", "ranks_of": "moun"}]}},
            r"optimizers\.arm\.training\.constraints: ranks_of: 'moun'.*'muon'",
        ),
        (
            {"training": {"constraints": ["spectrum-mach"]}},
            r"optimizers\.arm\.training\.constraints\.0: 'spectrum-mach'.*'spectrum-match'",
        ),
        ({"class": "switch"}, r"optimizers\.arm\.settings\.first is missing"),
        (
            {"class": "switch", "settings": {**TWO, "second": {"class": "moun"}}},
            r"optimizers\.arm\.settings\.second\.class: 'moun'.*'muon'",
        ),
        (
            {
                "class": "switch",
                "settings": {**TWO, "first": {"class": "muon", "settings": {"n": 1}}},
            },
            r"optimizers\.arm\.settings\.first\.settings: 'n' is unknown",
        ),
    ],
)
def test_a_fault_of_an_arm_is_named(arm, message):
    with pytest.raises(ConfigError, match=message):
        study(with_arms(arm=arm))


def test_ranks_are_of_a_free_optimizer_and_of_a_study_that_measures_them():
    chain = {"constraints": [{"name": "spectrum-match", "ranks_of": "held"}]}
    with pytest.raises(ConfigError, match="itself held to ranks"):
        study(with_arms(held={"training": HELD}, arm={"training": chain}))
    with pytest.raises(ConfigError, match=r"analyses\.rank"):
        study(change(with_arms(held={"training": HELD}), "analyses/rank", None))
