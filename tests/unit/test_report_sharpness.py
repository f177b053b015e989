"""The page on sharpness against figures worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from fake_results import CLOUDS, diverge, write_study
from scipy import stats

from equiscape.errors import DataError
from equiscape.io import write_csv
from equiscape.report import pages, style
from equiscape.report.pages import claims, sharpness


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), seeds=4)


def test_a_ratio_has_the_interval_of_welch(study):
    frame, measured = sharpness.table(study), sharpness.load(study)
    cells = measured[
        (measured["task"] == "egnn")
        & measured["folded"]
        & (measured["measure"] == "adaptive_trace")
        & (measured["layer"] == "all")
    ]
    logs = {o: np.log(c["value"]) for o, c in cells.groupby("optimizer")}
    test = stats.ttest_ind(logs["muon"], logs["adam"], equal_var=False)
    interval = test.confidence_interval(0.95)
    row = frame[
        (frame["task"] == "egnn")
        & frame["folded"]
        & (frame["measure"] == "adaptive_trace")
        & (frame["optimizer"] == "muon")
    ].iloc[0]
    assert row["ratio"] == pytest.approx(np.exp(logs["muon"].mean() - logs["adam"].mean()))
    ends = np.log([row["ratio_low"], row["ratio_high"]])
    assert ends == pytest.approx([interval.low, interval.high])


def test_the_table_has_a_row_for_each_measure_and_form(study):
    frame = sharpness.table(study)
    assert set(frame["task"]) == set(study.tasks)
    assert not frame.duplicated(["task", "optimizer", "folded", "measure", "layer"]).any()
    raw = frame[(frame["measure"] == "hessian_largest") & ~frame["folded"]]
    muon = raw[raw["optimizer"] == "muon"]
    assert (muon["seeds"] == 4).all()
    assert ((muon["ratio_low"] < 3.4) & (muon["ratio_high"] > 2.6)).all()
    assert muon["ratio"].between(2.3, 3.9).all()
    assert raw[raw["optimizer"] == "adam"]["ratio"].isna().all()
    assert not frame[frame["measure"] == "spectral_step"]["converged"].any()
    assert frame[frame["measure"] == "rest_smallest"]["ratio"].isna().all()


def test_sentences_follow_the_numbers(study):
    frame = sharpness.table(study)
    sentence = sharpness.verdict(frame, "pointnet", "muon", "adam")
    own = frame[(frame["task"] == "pointnet") & (frame["optimizer"] == "muon") & frame["folded"]]
    own = own[own["measure"].isin(sharpness.INVARIANT)]
    assert f"of {len(own)} measures" in sentence
    assert f"{(own['ratio_low'] > 1).sum()} are higher" in sentence
    markdown = sharpness.text(study, frame)
    assert sentence in markdown
    assert "(open)" in markdown
    assert "as it is" in markdown


def test_flat_directions_are_counts_and_not_ratios(study):
    frame = sharpness.table(study)
    counts = frame[frame["measure"].isin(sharpness.FACTS)]
    assert counts["ratio"].isna().all()
    sentence = sharpness.flat(frame, "pointnet")
    assert "as they are 290 of 12,345 (2.3 %); folded 120 of 12,000 (1 %)" in sentence
    markdown = sharpness.text(study, frame)
    assert sentence in markdown
    assert "flat directions |" not in markdown
    own = frame["task"] == "pointnet"
    frame.loc[own & (frame["measure"] == "flat_directions"), "converged"] = False
    assert "An upper bound" in sharpness.flat(frame, "pointnet")


def test_a_table_of_an_earlier_version_is_refused(tmp_path):
    made = write_study(tmp_path, {"pointnet": CLOUDS["pointnet"]}, seeds=2)
    path = made.analysis("sharpness")[0].path
    frame = pd.read_csv(path)
    write_csv(path, frame[~frame["measure"].isin(sharpness.FACTS)])
    with pytest.raises(DataError, match="an earlier version wrote it"):
        sharpness.load(made)


def test_where_every_cell_diverged_the_page_says_so(tmp_path):
    tasks = {name: CLOUDS[name] for name in ("pointnet", "egnn")}
    made = write_study(tmp_path, tasks, seeds=2)
    style.use()
    for count, product in enumerate(made.analysis("sharpness"), start=1):
        diverge(product, "sharpness")
        frame = sharpness.table(made)
        assert len(frame.groupby(["task", "optimizer"])) == 4 - count
        text = sharpness.text(made, frame)
        assert f"{product.task} with {product.optimizer}" in text
        sharpness.ratios(made, frame).savefig(tmp_path / "figure.png")
    assert claims.folding(made) == []
    assert len(claims.table(made))


def test_the_figure_shows_every_measure(study):
    assert "sharpness" in pages.pages(study)
    style.use()
    figure = sharpness.ratios(study, sharpness.table(study))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == list(sharpness.MEASURES.values())
    assert len([axis for axis in figure.axes if axis.get_title(loc="left")]) == len(study.tasks)
