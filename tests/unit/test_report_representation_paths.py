"""The page of paths between representations, on made-up barriers that can be read off."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pytest
from fake_results import SUFFIXES, write_study
from fake_results import task as made
from test_report_figures import laid_out

from equiscape.report import style
from equiscape.report.pages import pages, representation_paths


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    tasks = {"sign": made("permutation-mlp", "s3", "teacher")}
    return write_study(tmp_path_factory.mktemp("study"), tasks, seeds=2, without=tuple(SUFFIXES))


def test_barriers_are_summarized_by_the_ends_and_the_path(study):
    frame = representation_paths.table(study)
    rows = frame.set_index(["kind", "alignment", "curve"])
    assert len(rows) == 6
    assert set(rows["pairs"]) == {2}
    row = rows.loc["same", "none", "line"]
    assert (row["barrier"], row["least"], row["largest"]) == (0.75, 0.5, 1.0)
    assert rows.loc["other", "none", "line"]["barrier"] == pytest.approx(2.25)
    assert rows.loc["other", "weights", "bezier"]["barrier"] == 0
    text = representation_paths.text(study, frame)
    assert "## S3 on natural, teacher natural" in text
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["natural – natural", "2", "0.75 (0.50 to 1.0)"] in [c[:3] for c in cells]
    assert ["natural – 2 trivial (not solved)", "2", "2.2 (1.5 to 3.0)"] in [c[:3] for c in cells]


def test_the_figure_has_a_point_a_pair_and_path(study):
    style.use()
    figure = representation_paths.barriers(study, representation_paths.load(study))
    laid_out(figure)
    (axis,) = figure.axes
    assert sum(len(line.get_xdata()) for line in axis.lines) == 12
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["natural – natural", "natural – 2 trivial (not solved)"]
    plt.close("all")


def test_the_page_is_made_where_the_analysis_was(study, tmp_path):
    assert "representation_paths" in pages(study)
    without = (*SUFFIXES, "representation-connectivity")
    assert "representation_paths" not in pages(write_study(tmp_path, seeds=1, without=without))
