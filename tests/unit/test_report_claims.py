"""What pages say of results: intervals, tests, ties, edges, what has not converged."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from fake_results import CLOUDS, product, write_study
from report_case import report_study, row

from equiscape.report import cost, curvature, more_metrics
from equiscape.report.manifest import Manifest
from equiscape.report.pages import (
    accuracy,
    hessian,
    rank,
    selection,
    spectrum,
    statistics,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Manifest:
    """See :func:`report_case.report_study`."""
    return report_study(tmp_path_factory.mktemp("study"))


def test_no_ratio_to_a_trace_that_may_be_zero(study, monkeypatch):
    found = curvature.load(study)
    adam = found["egnn", "adam"][0]
    error = adam["trace"]["standard_error"]
    changed = {**found, ("egnn", "adam"): [{**adam, "trace": {**adam["trace"], "value": error}}]}
    monkeypatch.setattr(hessian, "load", lambda manifest: changed)
    frame = hessian.table(study)
    muon = row(frame, task="egnn", optimizer="muon")
    assert np.isnan(muon["trace_ratio"])
    assert np.isfinite(muon["largest_ratio"])
    other = row(frame, task="pointnet", optimizer="muon")
    assert np.isfinite(other["trace_ratio"])


def test_ratios_of_one_measurement_carry_its_errors(study):
    frame = hessian.table(study)
    adam, muon = (row(frame, task="egnn", optimizer=name) for name in ("adam", "muon"))
    low = (muon["largest"] - muon["largest_residual"]) / (
        adam["largest"] + adam["largest_residual"]
    )
    assert muon["largest_ratio_low"] == pytest.approx(low)
    relative = math.hypot(muon["trace_se"] / muon["trace"], adam["trace_se"] / adam["trace"])
    width = math.log(muon["trace_ratio_high"] / muon["trace_ratio_low"])
    assert width == pytest.approx(2 * 1.959964 * relative, rel=1e-6)


def test_unconverged_eigenvalues_are_named(tmp_path):
    study = write_study(tmp_path, {"egnn": CLOUDS["egnn"]}, seeds=1)
    path = product(study, "hessian", "egnn", "muon")
    data = json.loads(path.read_text())
    data["largest"]["converged"] = False
    data["smallest"] |= {"residual": 1.0, "value": -0.1, "converged": False, "sign_known": False}
    path.write_text(json.dumps(data))
    frame = hessian.table(study)
    text = hessian.text(study, frame)
    assert "Not converged: the largest eigenvalue of egnn with muon" in text
    assert "The sign of the smallest eigenvalue is open for egnn with muon" in text
    line = next(x for x in text.split("\n") if "| Muon" in x)
    assert "−1.1 … 0.90" in line  # an interval, not four digits of its middle
    tenth = spectrum.text(study, spectrum.table(study)).split("\n")[-2]
    assert "…" in tenth
    assert tenth.startswith("| 10")


def test_every_seed_gives_mean_spread_and_tests(tmp_path):
    tasks = {"egnn": CLOUDS["egnn"]}
    study = write_study(tmp_path, tasks, seeds=4, every_seed=True)
    frame = hessian.table(study)
    paths = [p.path for p in study.analysis("hessian") if p.optimizer == "muon"]
    values = [json.loads(path.read_text())["largest"]["value"] for path in paths]
    muon = row(frame, optimizer="muon")
    assert (muon["seeds"], len(values)) == (4, 4)
    assert muon["largest"] == pytest.approx(np.mean(values))
    assert muon["largest_std"] == pytest.approx(np.std(values, ddof=1))
    base = [
        json.loads(p.path.read_text())["largest"]["value"]
        for p in study.analysis("hessian")
        if p.optimizer == "adam"
    ]
    assert muon["largest_ratio"] == pytest.approx(
        np.exp(np.mean(np.log(values)) - np.mean(np.log(base)))
    )
    assert muon["largest_ratio_low"] > 1  # four times the curvature, spread by 40 %
    found = statistics.table(study)
    curvature = row(found, claim="largest eigenvalue")
    assert curvature["p"] == curvature["p_floor"] == pytest.approx(2 / 70)
    assert "±" in hessian.text(study, frame)
    layers = rank.table(study)
    assert set(layers["seeds"]) == {4}
    test = row(found, claim="stable rank of weights, mean over layers")
    assert test["n"] == 4


def test_statistics_holds_every_claim_with_its_floor(study):
    frame = statistics.table(study)
    scores = frame[frame["claim"].str.startswith("test ")]
    assert len(scores) == 2 * 2 * len(study.tasks)  # two rivals, paired and unpaired
    assert (frame["p"].dropna() >= frame["p_floor"].dropna() - 1e-12).all()
    assert (frame["p_holm"].dropna() >= frame["p"].dropna()).all()
    assert {"corrupted accuracy", "trace"} <= set(frame["claim"])
    once = frame[frame["claim"] == "trace"]
    assert once["p"].isna().all()
    assert once["test"].str.contains("one checkpoint an optimizer").all()
    text = statistics.text(study, frame)
    assert "With 3 seeds a standard deviation is known to within 0.52 to 6.3" in text


def test_the_gain_stands_under_each_protocol_with_its_interval(study):
    text = accuracy.text(study, accuracy.table(study))
    gains = text.split("## Gain over Adam (AdamW)")[1].split("## ")[0]
    line = next(x for x in gains.split("\n") if "EGNN" in x and "| Muon " in x)
    assert line.count("[") == 3
    assert "MAE (D), lower is better" in gains


def test_edges_of_the_grid_are_said_with_what_to_add(study):
    frame = selection.table(study)
    assert set(frame["wd_edge"]) == {"high"}
    lines = selection.edges(frame)
    assert len(lines) == len(frame)
    assert "the chosen weight decay 1e-2 is the highest of its grid; add 1e-1 to" in lines[0]
    assert "optimizers.adam.grid.wd" in lines[0]
    assert lines[0] in selection.text(study, frame)


def test_cost_is_time_and_memory_with_their_ratio(study):
    frame = cost.table(study)
    muon = row(frame, task="egnn", optimizer="muon")
    assert muon["ratio"] == pytest.approx(1.2, rel=1e-2)
    assert muon["ratio_low"] < 1.2 < muon["ratio_high"]
    assert muon["peak_memory_mb"] == 250
    text = cost.text(study, frame)
    assert "peak memory (MB)" in text


def test_rank_summary_counts_layers_apart_from_ties_and_rank_one_matrices(tmp_path):
    study = write_study(tmp_path, {"egnn": CLOUDS["egnn"]}, seeds=1)
    path = product(study, "rank", "egnn", "muon")
    ranks = pd.read_csv(path)
    first = (ranks["layer"] == "layers.2.node.0") & (ranks["kind"] == "weight")
    base = pd.read_csv(product(study, "rank", "egnn", "adam"))
    ranks.loc[first, "stable_rank"] = 1.009 * base.loc[first, "stable_rank"]
    ranks.to_csv(path, index=False)
    summary = rank.summary(study)
    # Fake ranks: muon / adam = 1 + 0.8 - 0.09 i over 12 layers, above one for i < 8.9; the ninth
    # is set within 1 %, and the 1 x 64 matrix does not count.
    expected = [1.8 - 0.09 * i for i in range(12)]
    expected[8] = 1.009
    cell = row(summary, kind="weight", measure="stable_rank")
    assert [cell[key] for key in ("layers", "higher", "tied", "lower")] == [12, 8, 1, 3]
    assert cell["mean_ratio"] == pytest.approx(np.exp(np.mean(np.log(expected))))
    assert cell["chance"] == pytest.approx(2 * sum(math.comb(11, k) for k in range(4)) / 2**11)
    assert cell["last_ratio"] == pytest.approx(expected[-1])
    text = rank.summary_text(study, summary)
    assert "8 / 1 / 3" in text
    assert "share_higher" not in text


def test_mean_class_accuracy_stands_beside_the_score(study):
    frame = more_metrics.table(study)
    cell = row(frame, task="egnn", optimizer="muon", metric="mean class accuracy")
    files = [study.final("egnn", "muon", seed) for seed in study.seeds]
    values = [json.loads(f.read_text())["test"]["metrics"]["mean class accuracy"] for f in files]
    assert cell["mean"] == pytest.approx(np.mean(values))
    assert cell["std"] == pytest.approx(np.std(values, ddof=1))
    assert "mean class accuracy (%)" in more_metrics.text(study, frame)
