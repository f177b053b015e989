"""Grids of one setting, of which no cell was trained: tables, figures and cells say so."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pytest
from fake_results import CLOUDS, PROVENANCE, write_study

from equiscape.errors import DataError
from equiscape.io import write_json
from equiscape.report import load, style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import selection
from equiscape.results import Study
from equiscape.selection import untried


def take(made: Manifest, task: str, optimizer: str) -> None:
    """Write the selection of a grid of one setting."""
    found = untried(task, optimizer, "3e-2", "0")
    write_json(made.selection(task, optimizer), {**found, "provenance": PROVENANCE})


@pytest.fixture
def made(tmp_path):
    """Two tasks; of the first, Muon's setting was searched and Adam's was not."""
    tasks = {name: CLOUDS[name] for name in ("egnn", "pointnet")}
    made = write_study(tmp_path, tasks, optimizers=("adam", "muon"), seeds=2)
    for task, optimizer in (("egnn", "adam"), ("pointnet", "adam"), ("pointnet", "muon")):
        take(made, task, optimizer)
    style.use()
    yield made
    plt.close("all")


def test_the_table_says_that_nothing_was_trained(made):
    frame = selection.table(made).set_index(["task", "optimizer"])
    row = frame.loc["egnn", "adam"]
    assert (row["lr"], row["wd"], row["status"]) == ("3e-2", "0", "finished")
    assert (row["cells"], row["seeds"], row["diverged"]) == (0, 0, 0)
    assert frame["score"].isna().to_dict() == {
        pair: pair != ("egnn", "muon") for pair in made.pairs
    }
    text = selection.text(made, selection.table(made))
    lines = [line for line in text.splitlines() if "3e-2" in line]
    assert len(lines) == 3
    assert all("only candidate, not trained" in line for line in lines)
    assert "The learning rate was not searched (one value) for adam, muon." in text
    assert "with adam" not in "".join(selection.warnings(made))  # at no edge, and not diverged


def test_the_figure_has_a_panel_where_there_are_scores(made):
    table = selection.table(made)
    figure = selection.grids(made, load.selections(made), table)
    drawn = [axis for axis in figure.axes if axis.get_visible() and axis.lines]
    assert len(drawn) == 1
    assert "accuracy" in drawn[0].get_title(loc="left")
    figure.canvas.draw()
    take(made, "egnn", "muon")
    cells = load.selections(made)
    assert cells.empty
    figure = selection.grids(made, cells, selection.table(made))
    figure.canvas.draw()
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == [
        "Every grid is one setting, taken without training."
    ]


def test_a_cell_of_such_a_grid_is_refused_with_the_reason(made):
    study = Study(made)
    assert study.selection("egnn", "adam")["score"] is None
    with pytest.raises(DataError, match="is one setting, which was taken without training; leave"):
        study.cell("egnn", "adam", lr="3e-2")
