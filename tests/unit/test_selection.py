"""The choice of (lr, wd) and of the representative, on cells made by hand."""

import re

import pytest

from equiscape import io
from equiscape.errors import DataError
from equiscape.io import misfit
from equiscape.metric import Metric
from equiscape.selection import (
    check_cell,
    grid_edges,
    only_setting,
    representative,
    select,
    untried,
)

ACCURACY = {"name": "accuracy", "direction": "max", "unit": "%"}
MAE = {"name": "MAE", "direction": "min", "unit": "D"}


def cell(lr="1e-3", wd="0", seed=0, score=50.0, loss=1.0, test=40.0, metric=ACCURACY, ok=True):
    at = {
        "epoch": 3,
        "validation": {"score": score, "loss": loss},
        "test": {"score": test, "loss": 1.0},
    }
    return {
        "task": "egnn",
        "optimizer": "muon",
        "lr": lr,
        "wd": wd,
        "seed": seed,
        "metric": metric,
        "status": "finished" if ok else "diverged",
        "at": {"best_validation": at if ok else None},
    }


def chosen(cells):
    result = select(cells, [f"cell{i}" for i in range(len(cells))])
    return result["lr"], result["wd"]


def test_validation_decides_and_the_test_score_does_not():
    cells = [cell("1e-3", score=60, test=10), cell("3e-3", score=59, test=99)]
    assert chosen(cells) == ("1e-3", "0")


def test_lower_is_better_where_the_metric_says_so():
    cells = [cell("1e-3", score=0.3, metric=MAE), cell("3e-3", score=0.2, metric=MAE)]
    assert chosen(cells) == ("3e-3", "0")


def test_the_mean_over_grid_seeds_decides():
    cells = [
        cell("1e-3", seed=0, score=70),
        cell("1e-3", seed=1, score=50),
        cell("3e-3", seed=0, score=61),
        cell("3e-3", seed=1, score=61),
    ]
    assert chosen(cells) == ("3e-3", "0")


def test_a_setting_with_a_diverged_seed_is_passed_over():
    cells = [
        cell("1e-3", seed=0, score=99),
        cell("1e-3", seed=1, ok=False),
        cell("3e-3", seed=0, score=20),
        cell("3e-3", seed=1, score=20),
    ]
    assert chosen(cells) == ("3e-3", "0")


def test_ties_go_to_the_lower_loss_and_then_to_the_earlier_cell():
    assert chosen([cell("1e-3", loss=1.0), cell("3e-3", loss=0.5)]) == ("3e-3", "0")
    assert chosen([cell("1e-3", wd="0"), cell("1e-3", wd="1e-2")]) == ("1e-3", "0")


def test_a_loss_that_json_could_not_hold_counts_as_infinite():
    assert chosen([cell("1e-3", loss=None), cell("3e-3", loss=9.0)]) == ("3e-3", "0")


def test_all_diverged_is_a_result_and_names_the_key_to_change(caplog):
    result = select([cell(ok=False), cell("3e-3", ok=False)], ["a", "b"])
    assert result["status"] == "diverged"
    assert (result["lr"], result["wd"], result["score"]) == (None, None, None)
    assert len(result["grid"]) == 2
    assert "optimizers.muon.grid.lr" in caplog.text
    assert select([cell()], ["a"])["status"] == "finished"


@pytest.mark.parametrize(("rates", "chosen", "edge"), [
    (["1e-3", "1e-2", "1e-1"], "1e-2", None),
    (["1e-3", "1e-2", "1e-1"], "1e-1", {"end": "high", "add": ["1e0"]}),
    (["1e-1", "1e-3", "1e-2"], "1e-3", {"end": "low", "add": ["1e-4"]}),
    (["1e-2", "2e-2"], "2e-2", {"end": "high", "add": ["4e-2"]}),
    (["3e-4", "1e-3"], "3e-4", {"end": "low", "add": ["9e-5"]}),
    (["0", "1e-2"], "0", None),  # no decay below zero
    (["0", "1e-2"], "1e-2", {"end": "high", "add": ["1e-1"]}),
    (["1e-2"], "1e-2", {"end": "only", "add": []}),
])  # fmt: skip
def test_a_choice_at_the_edge_of_its_grid_is_flagged(rates, chosen, edge):
    settings = [(rate, "0") for rate in rates]
    assert grid_edges(settings, (chosen, "0"))["lr"] == edge
    swapped = [(wd, lr) for lr, wd in settings]
    assert grid_edges(swapped, ("0", chosen))["wd"] == edge


def test_the_whole_grid_is_kept_for_the_audit():
    cells = [cell("1e-3"), cell("3e-3", ok=False)]
    grid = select(cells, ["a", "b"])["grid"]
    assert [line["status"] for line in grid] == ["finished", "diverged"]
    assert grid[1]["validation_score"] is None
    assert [line["path"] for line in grid] == ["a", "b"]


def test_representative_is_nearest_the_mean():
    runs = [cell(seed=s, test=t) for s, t in [(1, 80.0), (2, 84.0), (3, 90.0), (4, 83.0)]]
    result = representative(runs, ["c1", "c2", "c3", "c4"])
    assert result["mean"] == pytest.approx(84.25)
    assert (result["seed"], result["checkpoint"]) == (2, "c2")
    assert result["std"] == pytest.approx(4.193248)  # sample standard deviation


def test_representative_passes_over_diverged_cells_and_takes_the_earlier_of_a_tie():
    runs = [cell(seed=1, ok=False), cell(seed=2, test=80.0), cell(seed=3, test=90.0)]
    result = representative(runs, ["c1", "c2", "c3"])
    assert (result["seed"], result["tied"]) == (2, [3])
    assert result["scores"][0] == {"seed": 1, "score": None, "status": "diverged"}


def test_no_representative_where_every_cell_diverged():
    result = representative([cell(ok=False)], ["c"])
    assert [result[key] for key in ("seed", "checkpoint", "mean", "std")] == [None] * 4
    assert result["scores"] == [{"seed": 0, "score": None, "status": "diverged"}]


def test_two_seeds_tie_whatever_rounding_says():
    for scores in ([0.1, 0.2], [0.1 + 0.2, 0.6], [71.33333333333333, 72.0], [1e-9, 3e-9]):
        runs = [cell(seed=s, test=t) for s, t in enumerate(scores)]
        result = representative(runs, ["a", "b"])
        assert (result["seed"], result["tied"]) == (0, [1])
    runs = [cell(seed=s, test=t) for s, t in enumerate([80.0, 81.0, 85.0])]
    assert representative(runs, ["a", "b", "c"])["tied"] == []


def test_better_never_prefers_a_score_that_is_no_number():
    nan = float("nan")
    for direction in ("max", "min"):
        metric = Metric("m", direction)
        assert not metric.better(nan, 1.0)
        assert metric.better(1.0, nan)
        assert not metric.better(nan, nan)
        assert not metric.better(1.0, 1.0)
    assert Metric("m", "max").better(2, 1)
    assert Metric("m", "min").better(1, 2)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("results/grid/egnn_adam/lr1e-3_wd0_seed0/metrics.json", "optimizer 'muon', not 'adam'"),
        ("results/grid/gnn_muon/lr1e-3_wd0_seed0/metrics.json", "task 'egnn', not 'gnn'"),
        ("results/grid/egnn_muon/lr3e-3_wd0_seed0/metrics.json", "lr '1e-3', not '3e-3'"),
        ("results/grid/egnn_muon/lr1e-3_wd1e-2_seed0/metrics.json", "wd '0', not '1e-2'"),
        ("results/final/egnn_muon/seed2/metrics.json", "seed 0, not '2'"),
    ],
)
def test_a_file_of_another_cell_is_refused_by_name(path, word):
    with pytest.raises(DataError, match=re.escape(f"{path} is of {word}")):
        select([cell()], [path])
    check_cell(cell(), "results/grid/egnn_muon/lr1e-3_wd0_seed0/metrics.json")
    check_cell(cell(lr=None, wd=None, seed=2), "results/final/egnn_muon/seed2/metrics.json")


def test_a_grid_of_one_setting_leaves_nothing_to_choose():
    assert only_setting([("1e-3", "0", 0), ("1e-3", "0", 1)]) == ("1e-3", "0")
    assert only_setting([("1e-3", "0", 0), ("3e-3", "0", 0)]) is None
    assert only_setting([("1e-3", "0", 0), ("1e-3", "1e-2", 0)]) is None


def test_the_only_setting_has_the_selection_of_a_searched_grid_but_for_scores():
    found, searched = untried("egnn", "muon", "1e-3", "0"), select([cell()], ["cell0"])
    assert list(found) == list(searched)
    same = ("task", "optimizer", "status", "lr", "wd", "edges")
    assert {key: found[key] for key in same} == {key: searched[key] for key in same}
    assert (found["metric"], found["score"], found["grid"]) == (None, None, [])
    assert misfit({**found, "provenance": io.provenance(found, "cpu", 0.0)}, "selection") is None
