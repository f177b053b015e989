"""Figures of small and large studies: they draw, show what they should, write the same bytes."""

import matplotlib as mpl

mpl.use("Agg")

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from fake_results import CLOUDS, MOLECULES, write_study

from equiscape.errors import DataError
from equiscape.report import budget, curvature, load, style, titles
from equiscape.report.manifest import Manifest
from equiscape.report.pages import (
    accuracy,
    classes,
    hessian,
    interventions,
    learning,
    molecules,
    pages,
    rank,
    robustness,
    selection,
    sharpness,
    spectrum,
    statistics,
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
    if study.molecular_tasks:
        laid_out(molecules.gains(study, molecules.table(study)))
    laid_out(statistics.gains(study, finals))
    reached = budget.spent(study, load.histories(study), finals)
    laid_out(budget.curves(study, reached, finals))


def test_classes_and_their_confusions(study):
    task = study.class_tasks[0]
    frame, counts = classes.table(study), classes.matrices(study)
    figure = classes.dots(study, task, frame)
    laid_out(figure)
    assert len(figure.axes[0].get_yticklabels()) == 40
    figure = classes.confusion(study, task, counts)
    laid_out(figure)
    finished = [o for o in study.optimizers if (task, o) in counts]
    for axis, optimizer in zip(figure.axes, finished):
        shares = np.asarray(axis.images[0].get_array())
        assert np.allclose(shares.sum(axis=1), 1)
        seeds = frame[(frame["task"] == task) & (frame["optimizer"] == optimizer)]
        assert np.abs(100 * np.diag(shares) - seeds["mean"].to_numpy()).max() < 3  # pooled counts


def test_many_arms_leave_the_panels_their_height(tmp_path):
    names = ("adam", *(f"muon-{i}" for i in range(1, 16)))
    study = write_study(tmp_path, {"egnn": CLOUDS["egnn"], "dgcnn": CLOUDS["dgcnn"]}, names)
    finals, table = load.finals(study), accuracy.table(study)
    reached = budget.spent(study, load.histories(study), finals)
    for figure in (
        accuracy.scores(study, finals, table),
        budget.curves(study, reached, finals),
        sharpness.ratios(study, sharpness.table(study)),
    ):
        laid_out(figure)
        key = figure.legends[0].get_window_extent()
        for axis in figure.axes:
            assert axis.get_window_extent().y1 <= key.y0 + 1
            assert axis.get_window_extent().height > 0.7 * figure.dpi


def test_a_cell_that_stood_still_runs_off_the_axis_of_cost(tmp_path):
    study = write_study(tmp_path, {"egnn": CLOUDS["egnn"]})
    reached = budget.spent(study, load.histories(study), load.finals(study))
    wall = reached["cost"] == "seconds"
    end = reached[wall].groupby(["optimizer", "seed"])["spent"].max().median()
    slow = wall & (reached["seed"] == 0) & (reached["optimizer"] == "adam")
    reached.loc[slow, "spent"] *= 100
    axis = budget.curves(study, reached, load.finals(study)).axes[0]
    assert axis.get_xlim() == pytest.approx((0, 1.03 * 3 * end), rel=0.2)


@pytest.mark.parametrize("arms", [2, 3, 5, 16])
def test_confusions_of_any_number_of_optimizers(tmp_path, arms):
    optimizers = ("adam", *(f"muon-{i}" for i in range(1, arms)))
    study = write_study(tmp_path, {"egnn": CLOUDS["egnn"]}, optimizers, seeds=1)
    for known, optimizer in enumerate(optimizers):  # the last one knows most, the baseline nothing
        counts = np.full((40, 40), 100) + 10 * known * np.eye(40, dtype=int)
        np.savez(study.final("egnn", optimizer, 0, "predictions.npz"), confusion=counts)
    figure = classes.confusion(study, "egnn", classes.matrices(study))
    laid_out(figure)
    shown = [axis.get_title(loc="left") for axis in figure.axes if axis.images]
    expected = optimizers if arms <= 4 else ("adam", *optimizers[-3:])
    assert shown == [titles.optimizer_title(optimizer) for optimizer in expected]


def test_the_most_frequent_confusion_is_named_first(tmp_path):
    study = write_study(tmp_path, {"egnn": CLOUDS["egnn"]}, seeds=1)
    counts = np.eye(40, dtype=int) * 8
    counts[3, 7], counts[5, 6] = 4, 2  # 4 of 12 and 2 of 10
    for optimizer in study.optimizers:
        path = study.final("egnn", optimizer, 0, "predictions.npz")
        np.savez(path, confusion=counts)
    frame = classes.confusions(study)
    assert len(frame) == 4
    first = frame.iloc[0]
    assert (first["true"], first["taken_for"], first["count"]) == ("class 4", "class 8", 4)
    assert first["share"] == pytest.approx(100 / 3)
    assert frame["share"].iloc[2] == pytest.approx(20)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"predictions\.npz cannot be read"):
        classes.matrices(study)


def test_a_choice_at_an_edge_is_ringed_in_red(study):
    table = selection.table(study)
    figure = selection.grids(study, load.selections(study), table)
    laid_out(figure)
    rings = [
        line.get_markeredgecolor()
        for axis in figure.axes
        for line in axis.lines
        if line.get_markerfacecolor() == "none"
    ]
    assert rings == [selection.EDGE] * len(table)  # every weight decay lies at the edge
    inside = table.assign(wd_edge="")
    figure = selection.grids(study, load.selections(study), inside)
    assert not any(line.get_markeredgecolor() == selection.EDGE for line in figure.axes[0].lines)


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
    figure = hessian.dots(study, table)
    laid_out(figure)
    assert [axis.get_xscale() for axis in figure.axes] == ["log", "log", "symlog"]
    places = [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert set(table["largest"]) <= set(places)


def test_eigenvalues_that_have_not_converged_are_hollow(study):
    measured = curvature.load(study)
    figure = spectrum.spectrum(study, measured)
    laid_out(figure)
    faces = [
        (len(line.get_xdata()), line.get_markerfacecolor())
        for line in figure.axes[0].lines
        if line.get_linestyle() == "None" and line.get_marker() not in ("_", "|", "None")
    ]
    assert (1, "white") in faces  # the tenth
    assert all(face != "white" for count, face in faces if count == 9)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "not converged" in labels


def test_the_band_of_the_density_is_two_standard_errors_and_leading_eigenvalues_have_none(study):
    measured = spectrum.densities(study)
    figure = spectrum.density(study, measured)
    laid_out(figure)
    axis = figure.axes[0]
    assert axis.get_yscale() == "log"
    curve = measured[next(iter(study.tasks)), next(iter(study.optimizers))]
    at_zero = curve["eigenvalue"].abs().argmin()
    band = axis.collections[0].get_paths()[0].vertices
    heights = band[np.isclose(band[:, 0], curve["eigenvalue"][at_zero])][:, 1]
    assert np.ptp(heights) == pytest.approx(4 * curve["error"][at_zero])
    area = np.trapezoid(curve["density"], curve["eigenvalue"])
    assert area == pytest.approx(1, rel=2e-2)
    top = curve[-12:]  # the largest eigenvalue, six widths: one bump of mass 1 / n
    assert np.trapezoid(top["density"], top["eigenvalue"]) == pytest.approx(1 / 12345, rel=2e-2)


def test_a_density_that_was_not_measured_is_said_to_be(study, tmp_path):
    figure = spectrum.density(study, {})
    laid_out(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["not measured"]


def test_titles_that_would_run_into_each_other_shrink(tmp_path):
    figure, axes = style.panels(5, columns=5)
    for axis in axes:
        axis.set_title("a title of forty letters, more or less", loc="left")
    style.save(figure, tmp_path, "titles")
    sizes = [text.get_fontsize() for axis in axes for text in [axis.title, axis._left_title]]
    assert min(sizes) == 5.5
    wide, (axis, _) = style.panels(2)
    axis.set_title("short", loc="left")
    style.save(wide, tmp_path, "short")
    assert axis._left_title.get_fontsize() == 8.5


def test_slices_share_levels_and_range(study):
    planes = slices.load(study)
    task = next(iter(study.tasks))
    figure = slices.contours(study, task, planes)
    laid_out(figure)
    drawn = [axis for axis in figure.axes if axis.get_aspect() == 1.0]
    count = len(study.optimizers)
    assert len(drawn) == 2 * count  # the loss, and its height above the checkpoint
    for view in (drawn[:count], drawn[count:]):
        levels = [np.asarray(axis.collections[0].levels) for axis in view]
        for axis, these in zip(view, levels):
            np.testing.assert_array_equal(these, levels[0])
            assert axis.get_xlim() == drawn[0].get_xlim()
    assert "cosine 0.003" in figure.get_suptitle()
    laid_out(slices.cuts(study, planes))


def plane(loss, **attributes) -> slices.Slice:
    """A slice with these losses."""
    axis = np.linspace(-1, 1, 3)
    return slices.Slice(axis, axis, loss, loss[:2], attributes)


def test_levels_run_from_the_minimum_to_chance_evenly_in_the_logarithm():
    loss = np.geomspace(1e-3, 1e6, 9).reshape(3, 3)
    levels = slices.levels([plane(loss, chance_loss=2.5), plane(loss * 2, chance_loss=2.5)])
    assert (levels[0], levels[-1]) == pytest.approx((1e-3, 2.5))
    np.testing.assert_allclose(levels[1:] / levels[:-1], levels[1] / levels[0])
    heights = slices.heights([plane(loss, chance_loss=2.5)])
    assert heights[-1] == pytest.approx(2.5 - loss[1, 1]) if loss[1, 1] < 2.5 else heights[-1] > 0


def test_levels_without_chance_or_finite_losses():
    flat = np.full((3, 3), 0.5)
    assert (np.diff(slices.levels([plane(flat)])) > 0).all()
    assert (np.diff(slices.heights([plane(flat)])) > 0).all()
    broken = np.geomspace(1e-3, 1e3, 9).reshape(3, 3)
    broken[0, 0] = np.inf
    assert np.isfinite(slices.levels([plane(broken)])).all()
    below = np.full((3, 3), 3.0)  # a checkpoint worse than chance
    assert (np.diff(slices.levels([plane(below, chance_loss=2.5)])) > 0).all()


def test_slices_survive_infinite_losses(tmp_path):
    study = write_study(tmp_path, {"egnn": CLOUDS["egnn"]}, seeds=1)
    planes = slices.load(study)
    broken = planes["egnn", "muon"]
    broken.loss[0, :5] = np.inf
    broken.loss[3, 3] = np.nan
    broken.band[2, -3:] = np.inf
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
    ("low", "high"), [(0.08, 0.5), (0.55, 95), (0.02, 500), (1.0, 1.4), (1e-12, 1e4)]
)
def test_log_axes_label_what_is_within_their_limits(low, high):
    figure, axis = plt.subplots(figsize=(2, 2))
    axis.plot([1, 2], [low, high])
    style.log_axis(axis)
    figure.canvas.draw()
    seen = [t for t in axis.get_yticks() if axis.get_ylim()[0] <= t <= axis.get_ylim()[1]]
    assert 2 <= len(seen) <= 8
    axis.set_ylim(low * 10, high * 10)  # the ticks follow
    figure.canvas.draw()
    assert any(low * 10 <= t <= high * 10 for t in axis.get_yticks())


def test_figures_are_as_wide_as_a_column_or_a_page(study):
    task = next(iter(study.tasks))
    for figure in (
        accuracy.scores(study, load.finals(study), accuracy.table(study)),
        hessian.dots(study, hessian.table(study)),
        rank.ratios(study, rank.table(study)),
        rank.layers(study, task, rank.table(study)),
        slices.cuts(study, slices.load(study)),
    ):
        assert figure.get_figwidth() <= style.WIDTH + 1e-9
    assert (style.WIDTH, style.COLUMN) == (6.75, 3.25)


def test_matrices_that_can_only_have_rank_one_are_not_drawn(study):
    table = rank.table(study)
    assert "coordinate" in set(table["layer"])
    figure = rank.layers(study, "egnn", table)
    labels = [t.get_text() for axis in figure.axes for t in axis.get_yticklabels()]
    assert "layers.0.edge.0" in labels
    assert "coordinate" not in labels


def test_every_figure_has_a_caption_and_a_place_in_the_report(study):
    for page in pages(study).values():
        for entry in page.outputs(study).values():
            assert len(entry["caption"]) > 40
            assert entry["caption"].endswith(".")
            assert set(entry) == {"caption", "category", "labels"}


def test_optimizers_of_a_large_study_look_different():
    names = {f"arm-{i}": {"class": "muon"} for i in range(30)}
    study = Manifest(Path(), {}, names, [0], {}, "arm-0")
    looks = list(zip(style.colors(study).values(), style.markers(study).values()))
    assert len(set(looks)) == 30
    assert looks[:7] == list(zip(style.PALETTE, style.MARKERS))
