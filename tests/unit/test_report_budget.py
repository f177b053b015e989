"""Scores at equal cost, from histories whose answers are plain."""

import json

import pandas as pd
import pytest
from fake_results import CLOUDS, write_study

from equiscape.io import write_csv
from equiscape.report import budget


@pytest.fixture
def study(tmp_path):
    """One task; muon costs twice the seconds and three times the products of an epoch of adam."""
    study = write_study(tmp_path, tasks={"egnn": CLOUDS["egnn"]}, seeds=2, epochs=4)
    for optimizer, seconds, products in (("adam", 1.0, 1e12), ("muon", 2.0, 3e12)):
        for seed in study.seeds:
            history = pd.DataFrame(
                {
                    "epoch": [1, 2, 3, 4],
                    "train_loss": 1.0,
                    "validation_loss": 1.0,
                    "validation_score": [10.0, 30.0, 20.0, 40.0],
                    "test_score": [11.0 + seed, 31.0 + seed, 99.0, 41.0 + seed],
                    "seconds": seconds,
                    "products": products,
                }
            )
            if optimizer == "muon":
                history[["validation_score", "test_score"]] += 5
            write_csv(study.final("egnn", optimizer, seed, "history.csv"), history)
    return study


def row(table, cost, optimizer):
    return table[(table["cost"] == cost) & (table["optimizer"] == optimizer)].iloc[0]


def test_the_budget_is_what_every_optimizer_used_up(study):
    table = budget.table(study)
    assert set(table["budget"]) == {4.0}  # seconds, and TFLOP
    adam, muon = row(table, "seconds", "adam"), row(table, "seconds", "muon")
    assert (adam["epochs"], muon["epochs"]) == (4, 2)
    assert adam["mean"] == pytest.approx(41.5)  # seeds 41 and 42
    assert muon["mean"] == pytest.approx(36.5)  # its second epoch
    assert muon["gain"] == pytest.approx(-5)
    # two seeds a side, one apart: pooled by Welch with 2 degrees of freedom, t = 4.3027
    half = 4.3027 * (0.5 / 2 + 0.5 / 2) ** 0.5
    ends = muon["gain_low"], muon["gain_high"]
    assert ends == pytest.approx((-5 - half, -5 + half), rel=1e-4)
    assert adam[["gain_low", "gain_high"]].isna().all()
    assert row(table, "products", "muon")["epochs"] == 1
    assert row(table, "products", "muon")["mean"] == pytest.approx(16.5)


def test_the_score_is_that_of_the_best_validation_epoch_so_far(study):
    from equiscape.report import load

    reached = budget.spent(study, load.histories(study), load.finals(study))
    adam = reached.query("optimizer == 'adam' and seed == 0 and cost == 'seconds'")
    assert adam["score"].tolist() == [11.0, 31.0, 31.0, 41.0]  # the third epoch was no better
    assert adam["spent"].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_products_are_there_only_where_they_were_counted(study):
    path = study.final("egnn", "adam", 0, "history.csv")
    for optimizer in study.optimizers:
        for seed in study.seeds:
            path = study.final("egnn", optimizer, seed, "history.csv")
            write_csv(path, pd.read_csv(path).drop(columns="products"))
    table = budget.table(study)
    assert set(table["cost"]) == {"seconds"}
    assert "wall time, 4.00 s" in budget.text(study, table)


def test_a_seed_that_diverged_is_counted_and_left_out(study):
    path = study.final("egnn", "muon", 1)
    metrics = json.loads(path.read_text())
    metrics |= {"status": "diverged", "at": dict.fromkeys(metrics["at"])}
    path.write_text(json.dumps(metrics))
    table = budget.table(study)
    muon = row(table, "seconds", "muon")
    assert (muon["seeds"], muon["diverged"]) == (2, 1)
    assert muon["mean"] == pytest.approx(36.0)
    assert "muon" in budget.text(study, table).split("Diverged seeds")[1]


def test_a_seed_without_an_epoch_in_the_budget_is_no_diverged_one(study):
    path = study.final("egnn", "muon", 1, "history.csv")
    write_csv(path, pd.read_csv(path).assign(seconds=9.0))
    table = budget.table(study)
    muon = row(table, "seconds", "muon")
    assert (muon["diverged"], muon["unreached"]) == (0, 1)
    assert muon["mean"] == pytest.approx(36.0)
    assert "Diverged" not in budget.text(study, table)
