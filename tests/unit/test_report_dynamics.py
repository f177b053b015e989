"""The page on the course of a training: its sentences and figures follow the numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from fake_results import CLOUDS, MOLECULES, diverge, write_study

from equiscape.report import pages, style
from equiscape.report.pages import dynamics


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    tasks = {"egnn": CLOUDS["egnn"], "gotennet-mu": MOLECULES["gotennet-mu"]}
    return write_study(tmp_path_factory.mktemp("study"), tasks, seeds=2)


def test_the_table_is_the_mean_over_the_seeds_that_were_measured(tmp_path):
    study = write_study(tmp_path, {"egnn": CLOUDS["egnn"]}, seeds=3, every_seed=True)
    measured, frame = dynamics.load(study), dynamics.table(study)
    assert not frame.duplicated(dynamics.KEYS).any()
    row = dynamics.course(frame, "egnn", "adam", "eigenvalue_1").iloc[-1]
    own = measured[(measured["optimizer"] == "adam") & (measured["quantity"] == "eigenvalue_1")]
    values = own[own["epoch"] == 16]["value"]
    assert (row["seeds"], len(set(values))) == (3, 3)
    assert row["mean"] == pytest.approx(values.mean())
    assert row["std"] == pytest.approx(values.std(ddof=1))
    loose = dynamics.course(frame, "egnn", "adam", "eigenvalue_2").set_index("epoch")["converged"]
    assert not loose[1]
    assert loose[2]


def test_sentences_say_who_is_at_the_edge_and_what_is_a_diagnostic(study):
    frame = dynamics.table(study)
    adam = dynamics.course(frame, "egnn", "adam", "edge")["mean"]
    near = int(adam.between(*dynamics.NEAR).sum())
    sentence = dynamics.at_the_edge(frame, "egnn", "adam")
    assert f"at {near} of {len(adam)} snapshots" in sentence
    assert "diagnostic" not in sentence
    assert near > 0
    muon = dynamics.at_the_edge(frame, "egnn", "muon")
    assert "held still" in muon
    assert "a diagnostic, and a lower bound" in muon
    assert " at the edge" not in muon
    without = frame[~frame["quantity"].isin(["edge", "spectral_edge"])]
    rho = dynamics.course(frame, "egnn", "adam", "rho")["mean"].max()
    assert f"{100 * rho:.0f} %" in dynamics.at_the_edge(without, "egnn", "adam")


def test_the_finding_counts_the_snapshots_at_the_edge(study):
    frame = dynamics.table(study)
    own = frame[(frame["quantity"] == "edge") & (frame["layer"] == "all")]
    near = int((own["mean"] >= dynamics.NEAR[0]).sum())
    (said,) = dynamics.highlights(study)  # the other optimizer has a diagnostic only
    assert f"at {near} of {len(own)} snapshots" in said
    assert said.startswith("Adam")
    assert "(2 tasks)" in said


def test_the_text_names_costs_and_what_has_no_meaning(study):
    markdown = dynamics.text(study, dynamics.table(study))
    assert "No margin: a regression has no margins: GotenNet μ with Adam (AdamW) (6 sn" in markdown
    assert "EGNN with Adam (AdamW): 4.50 s, 300 products, 410 MB at most" in markdown
    assert "% of the training's time" in markdown
    assert "sharpness / threshold (part)" in markdown


def test_figures_are_of_the_tasks_that_were_measured(study):
    page = pages.pages(study)["dynamics"]
    assert set(page.outputs(study)) == {
        f"dynamics_{kind}{task}" for kind in ("", "layers_") for task in study.tasks
    }
    study.analyses["dynamics"]["tasks"] = ["egnn"]
    try:
        assert set(page.outputs(study)) == {"dynamics_egnn", "dynamics_layers_egnn"}
    finally:
        study.analyses["dynamics"]["tasks"] = list(study.tasks)


def test_where_every_cell_diverged_pages_and_figures_are_made(tmp_path):
    made = write_study(tmp_path, {name: CLOUDS[name] for name in ("egnn", "pointnet")}, seeds=2)
    style.use()
    for count, product in enumerate(made.analysis("dynamics"), start=1):
        diverge(product, "dynamics")
        frame = dynamics.table(made)
        assert len(frame.groupby(["task", "optimizer"])) == 4 - count
        assert f"{product.task} with {product.optimizer}" in dynamics.text(made, frame)
        dynamics.highlights(made)
        for task in made.tasks:  # every figure is a declared output
            figures = dynamics.along(made, frame, task), dynamics.layers(made, frame, task)
            left = (frame["task"] == task).any()
            for figure in figures:
                texts = {text.get_text() for axis in figure.axes for text in axis.texts}
                assert ("every cell diverged" in texts) != left
                figure.savefig(tmp_path / "figure.png")
    plt.close("all")


def test_the_panels_draw_the_numbers(study):
    style.use()
    frame = dynamics.table(study)
    figure = dynamics.along(study, frame, "egnn")
    edge = next(a for a in figure.axes if a.get_title(loc="left") == "sharpness / threshold")
    adam = dynamics.course(frame, "egnn", "adam", "edge")["mean"]
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in edge.get_lines()]
    assert any(len(y) == len(adam) and np.allclose(y, adam) for y in drawn)
    assert any(np.allclose(y, 1) for y in drawn)
    second = dynamics.layers(study, frame, "gotennet-mu")
    assert "a regression has none" in {text.get_text() for a in second.axes for text in a.texts}
    plt.close("all")
