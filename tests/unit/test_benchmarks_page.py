"""The benchmarks' page: parts replace their own rows, targets are judged on the part's clock."""

import sys
from pathlib import Path

import pandas as pd
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(FOLDER))
run = pytest.importorskip("run", reason="torch-geometric is not installed")
page, targets, timing = (sys.modules[name] for name in ("page", "targets", "timing"))


def rows(case, quantity, **medians):
    return [timing.row(case, rival, quantity, value) for rival, value in medians.items()]


def frame(*groups, part="models"):
    return pd.DataFrame([{"part": part, **row} for group in groups for row in group])


def test_a_part_replaces_its_own_rows_and_keeps_the_others(tmp_path):
    path = tmp_path / "results.csv"
    columns = page.COLUMNS
    run.merged(path, "optim", rows("a", "CPU ms", ours=1.0, torch=2.0), columns)
    run.merged(path, "models", rows("b", "CPU s", ours=3.0), columns)
    run.merged(path, "optim", rows("c", "CPU ms", ours=4.0), columns)
    found = pd.read_csv(path)
    assert found[["part", "case", "median"]].values.tolist() == [
        ["models", "b", 3.0],
        ["optim", "c", 4.0],
    ]


@pytest.mark.parametrize(
    ("clock", "measured", "verdict"), [("CPU", 4, "met"), ("wall", 2, "66.7%")]
)
def test_targets_go_by_the_clock_of_their_part(clock, measured, verdict):
    case = "training step, egnn, 8 x 1024"
    given = frame(rows(case, "CPU s", ours=1, stock=4), rows(case, "wall s", ours=1, stock=2))
    found = targets.judged(given, {"models": clock})
    row = found[found.case == case].iloc[0]
    assert row["measured"] == measured
    assert verdict in row["verdict"]
    assert bool(row["cause of a miss"]) == (verdict != "met")


def test_a_target_of_another_form_than_ours_at_most():
    case = "Hessian product, pointnet"
    values = {"ours": 1, "graph built anew": 3, "a gradient": 1}
    found = targets.judged(frame(rows(case, "CPU ms", **values)), {"models": "CPU"})
    row = found[found.case == case].iloc[0]
    assert row["measured"] == 3
    assert "1.50 times it" in row["verdict"]


def test_rates_are_better_when_larger_and_what_is_absent_says_so():
    case = "train, gine, made up"
    given = frame(rows(case, "molecules/CPU s", **{"ours": 30, "released form": 10}))
    found = targets.judged(given, {"models": "CPU"})
    assert found[found.case == case]["measured"].tolist() == [3]
    assert (found[found.case == "eigenvalue to 1 %, "]["verdict"] == "not measured").all()
    assert page.with_factors(given)["factor"].dropna().tolist() == [3]


def test_the_page_is_what_its_files_give():
    titles = {name: part.__doc__ for name, part in run.PARTS.items()}
    assert (FOLDER / "results.md").read_text() == page.report(FOLDER, titles)


def test_rows_of_the_other_clock_are_left_out_and_the_rest_stays():
    given = frame(rows("a", "CPU s", ours=1), rows("a", "wall s", ours=2), rows("a", "MB", ours=3))
    assert page.of_clock(given, "CPU")["median"].tolist() == [1, 3]


def test_rivals_take_turns_in_both_orders_with_the_same_numbers():
    seen = []
    rivals = {name: lambda number, name=name: seen.append((name, number)) for name in "ab"}
    found = timing.take_turns(rivals, 2)
    assert [len(times) for times in found.values()] == [2, 2]
    assert seen[2:] == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert timing.quartiles([1, 2, 3, 4, 5]) == (3, 2, 4)
