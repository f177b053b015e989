"""Figures of small and large studies: they draw, show what they should, write the same bytes."""

import matplotlib as mpl

mpl.use("Agg")

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from fake_results import CLOUDS, MOLECULES, write_study

from equiscape.report import budget, load, style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import (
    accuracy,
    hessian,
    interventions,
    learning,
    molecules,
    pages,
    rank,
    robustness,
)
from equiscape.report.pages import slice as slices

STUDIES = {
    "demo": {"optimizers": ("adam", "muon"), "seeds": 2},
    "one": {"tasks": {"egnn": CLOUDS["egnn"]}, "optimizers": ("sgd",), "seeds": 1},
    "many": {
        "tasks": {**CLOUDS, **MOLECULES},
        "optimizers": ("adam", "muon", "muon-ns3", "sgd"),
        "seeds": 4,
        "diverged": (("dgcnn", "adam", 0), ("gotennet-mu", "muon", 1)),
    },
}


@pytest.fixture(scope="module", params=STUDIES)
def study(request, tmp_path_factory) -> Manifest:
    """Studies of 1 to 7 tasks and 1 to 4 optimizers."""
    return write_study(tmp_path_factory.mktemp(request.param), **STUDIES[request.param])


@pytest.fixture(autouse=True)
def _style():
    style.use()
    yield
    plt.close("all")


def laid_out(figure) -> None:
    """Draw; a layout that collapses, or a text outside the page, is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    for artist in [*figure.axes, *figure.legends]:
        box = artist.get_tightbbox(renderer)
        assert box.x0 >= page.x0 - 1, artist
        assert box.x1 <= page.x1 + 1, artist
        assert box.y0 >= page.y0 - 1, artist
        assert box.y1 <= page.y1 + 1, artist


def test_accuracy(study):
    finals, table = load.finals(study), accuracy.table(study)
    laid_out(accuracy.scores(study, finals, table))
    laid_out(accuracy.selection(study, load.selections(study)))
    if study.molecular_tasks:
        laid_out(molecules.gains(study, molecules.table(study)))


def test_learning(study):
    histories = load.histories(study)
    laid_out(learning.score(study, histories, load.finals(study)))
    laid_out(learning.loss(study, histories))
    reached = budget.spent(study, histories, load.finals(study))
    laid_out(budget.curves(study, reached, load.finals(study)))


def test_interventions(study):
    cells = interventions.points(study)
    for measure in interventions.MEASURES:
        laid_out(interventions.dose_response(study, cells, measure))
    laid_out(interventions.truncation(study))


def test_learning_of_a_cell_that_diverged_in_its_first_epoch(tmp_path):
    study = write_study(
        tmp_path, {"egnn": CLOUDS["egnn"]}, seeds=1, diverged=(("egnn", "muon", 0),), epochs=1
    )
    histories = load.histories(study)
    assert set(histories["optimizer"]) == {"adam"}
    laid_out(learning.score(study, histories, load.finals(study)))
    laid_out(learning.loss(study, histories))


def test_hessian(study):
    table = hessian.table(study)
    figure = hessian.bars(study, table)
    laid_out(figure)
    for axis in figure.axes:
        assert axis.get_yscale() == "log"
    hatched = [bar for bar in figure.axes[2].patches if bar.get_hatch()]
    assert len(hatched) == (table["smallest"] < 0).sum()
    heights = sorted(bar.get_y() + bar.get_height() for bar in figure.axes[0].patches)
    np.testing.assert_allclose(heights, np.sort(table["largest"]))
    laid_out(hessian.spectrum(study, hessian.load(study)))


def test_slices_share_levels_and_range(study):
    planes = slices.load(study)
    task = next(iter(study.tasks))
    figure = slices.contours(study, task, planes)
    laid_out(figure)
    drawn = [axis for axis in figure.axes if axis.get_aspect() == 1.0]
    assert len(drawn) == len(study.optimizers)
    levels = [np.asarray(axis.collections[0].levels) for axis in drawn]
    for axis, these in zip(drawn, levels):
        np.testing.assert_array_equal(these, levels[0])
        assert axis.get_xlim() == drawn[0].get_xlim()
    laid_out(slices.cuts(study, planes))


def test_slice_levels():
    axis = np.linspace(-1, 1, 3)
    plane = slices.Slice(axis, axis, np.geomspace(1e-3, 1e3, 9).reshape(3, 3), {})
    levels = slices.levels([plane])
    ratios = levels[1:] / levels[:-1]
    np.testing.assert_allclose(ratios, ratios[0])  # geometric over more than a decade
    flat = slices.Slice(axis, axis, np.full((3, 3), 0.5), {})
    assert (np.diff(slices.levels([flat])) > 0).all()
    broken = plane.loss.copy()
    broken[0, 0] = np.inf
    assert np.isfinite(slices.levels([slices.Slice(axis, axis, broken, {})])).all()


def test_slices_survive_infinite_losses(tmp_path):
    study = write_study(tmp_path, {"egnn": CLOUDS["egnn"]}, seeds=1)
    planes = slices.load(study)
    plane = planes["egnn", "muon"]
    plane.loss[0, :5] = np.inf
    plane.loss[3, 3] = np.nan
    laid_out(slices.contours(study, "egnn", planes))
    laid_out(slices.cuts(study, planes))


def test_ranks(study):
    table = rank.table(study)
    laid_out(rank.ratios(study, table))
    for task in {next(iter(study.tasks)), list(study.tasks)[-1]}:
        laid_out(rank.layers(study, task, table))


def test_robustness(study):
    cells = robustness.load(study)
    laid_out(robustness.corruptions(study, cells, load.finals(study)))
    laid_out(robustness.severity(study, cells))


def test_colors_follow_the_configuration(study):
    colors = style.colors(study)
    assert list(colors) == list(study.optimizers)
    assert len(set(colors.values())) == len(colors)
    assert len(set(style.markers(study).values())) == len(colors)
    assert next(iter(colors.values())) == style.PALETTE[0]


def test_same_figure_same_bytes(tmp_path):
    study = write_study(tmp_path / "study", {"egnn": CLOUDS["egnn"]}, seeds=1)
    written = [
        style.save(rank.layers(study, "egnn", rank.table(study)), tmp_path / str(i), "figure")
        for i in range(2)
    ]
    for first, second in zip(*written):
        assert first.read_bytes() == second.read_bytes()
        assert first.stat().st_size > 5000


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.08, 0.5, "0.1 0.15 0.2 0.3 0.4 0.5"),
        (0.55, 95, "1 2 5 10 20 50"),
        (0.02, 500, "0.1 1 10 100"),
    ],
)
def test_plain_log_labels(low, high, labels):
    _, axis = plt.subplots()
    axis.plot([1, 2], [low * 1.2, high / 1.2])
    axis.set_ylim(low, high)
    style.plain_log(axis)
    assert [f"{tick:g}" for tick in axis.get_yticks()] == labels.split()


def test_every_figure_has_a_caption_and_a_place_in_the_report(study):
    for page in pages(study).values():
        for entry in page.outputs(study).values():
            assert len(entry["caption"]) > 40
            assert entry["caption"].endswith(".")
            assert set(entry) == {"caption", "category", "labels"}
