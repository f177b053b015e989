"""The page of an optimizer's own settings: which stand on which axis, and planted effects."""

import json

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
from fake_results import CLOUDS, REFERENCE, write_study
from report_case import row
from scipy import stats
from studies import shipped

from equiscape.report import pages, style
from equiscape.report.arms import axes
from equiscape.report.manifest import Manifest
from equiscape.report.pages import settings
from equiscape.study import Plan

ROOT = REFERENCE.parents[1]
OTHERS = ("slice", "robustness", "connectivity", "sharpness", "symmetry", "truncation",
          "representation", "representation-connectivity", "constrained-landscape")  # fmt: skip
"""Analyses that the page does not read."""
ARMS = {
    "muon": {},
    "steps-1": {"settings": {"ns_steps": 1}},
    "steps-8": {"settings": {"ns_steps": "8"}},
    "exact": {"settings": {"polar": "exact"}},
    "express-3": {"settings": {"polar": "polar-express", "ns_steps": 3}},
    "plain": {"settings": {"nesterov": False}},
    "spelled-out": {"settings": {"momentum": 0.95}},
    "held": {"training": {"constraints": [{"name": "spectrum-match", "ranks_of": "muon"}]}},
}
UNIT = np.array([-0.6, -0.1, 0.2, 0.5])


def arms(folder, **options):
    usual = {"ns_steps": 5, "polar": "newton-schulz", "nesterov": True, "momentum": 0.95}
    entries = {name: {"class": "muon", "defaults": usual, **entry} for name, entry in ARMS.items()}
    tasks = {"pointnet": CLOUDS["pointnet"], "egnn": CLOUDS["egnn"]}
    made = write_study(folder, tasks, optimizers=tuple(ARMS), seeds=4, entries=entries,
                       without=OTHERS, **options)  # fmt: skip
    gains = {"exact": 3.0, "plain": -0.05}
    for task, name in made.pairs:
        for seed in made.seeds:
            path = made.final(task, name, seed)
            metrics = json.loads(path.read_text())
            for at in metrics["at"].values():
                at["test"]["score"] = 50 + gains.get(name, 0.0) + UNIT[seed]
            path.write_text(json.dumps(metrics))
    return made


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return arms(tmp_path_factory.mktemp("study"), every_seed=True)


def test_axes_are_the_settings_that_differ_from_the_default(study):
    found = {axis.name: axis for axis in axes(study)}
    assert list(found) == ["ns_steps", "polar", "nesterov"]
    steps = found["ns_steps"]
    assert steps.numeric
    assert steps.default == "muon"
    assert [(level.optimizer, level.value) for level in steps.levels] == [
        ("steps-1", 1), ("muon", 5), ("steps-8", 8),
    ]  # fmt: skip
    polar = found["polar"]
    assert not polar.numeric
    assert [level.label for level in polar.levels] == [
        "newton-schulz", "exact", "polar-express, ns_steps 3",
    ]  # fmt: skip
    assert [level.label for level in found["nesterov"].levels] == ["on", "off"]


def test_the_study_of_muons_own_settings_has_an_axis_for_each(tmp_path):
    config = shipped(ROOT / "config/muon-settings.yaml")
    planned = Manifest.from_study(Plan(config, ROOT), tmp_path, REFERENCE).optimizers
    tasks = {"egnn": CLOUDS["egnn"]}
    made = write_study(tmp_path, tasks, tuple(planned), 2, entries=planned, without=OTHERS)
    found = {axis.name: [level.label for level in axis.levels] for axis in axes(made)}
    assert found["ns_steps"] == ["1", "2", "3", "5", "8"]
    assert found["momentum"] == ["0.8", "0.95", "0.98"]
    assert found["lr_ratio"] == ["0.333", "1"]
    assert found["orthogonalize"] == ["default", "*", "hidden !head.*"]
    assert sum(len(levels) - 1 for levels in found.values()) == len(planned) - 1
    style.use()
    figure = settings.against_settings(made, "egnn", settings.points(made))
    assert figure.get_size_inches()[0] == pytest.approx(6.75)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert [title.replace("\n", "_") for title in titles] == list(found)


def test_a_class_with_one_setting_has_no_page(tmp_path):
    made = write_study(tmp_path, {"egnn": CLOUDS["egnn"]}, seeds=1)
    assert made.varied == []
    assert "settings" not in pages.pages(made)


def test_gains_are_over_the_default_with_their_intervals(study):
    assert "settings" in pages.pages(study)
    frame = settings.table(study)
    assert len(frame) == 2 * (3 + 3 + 2)
    exact = row(frame, task="egnn", optimizer="exact")
    assert (exact["setting"], exact["value"], exact["seeds"]) == ("polar", "exact", 4)
    half = stats.t.ppf(0.975, 6) * np.sqrt(2 * UNIT.var(ddof=1) / 4)
    assert [exact[k] for k in ("gain", "gain_low", "gain_high")] == pytest.approx(
        [3, 3 - half, 3 + half]
    )
    assert exact["p"] == pytest.approx(2 / 70)
    assert exact["p_holm"] == pytest.approx(5 * 2 / 70)  # five changes in this task
    default = frame[frame["default"] & (frame["task"] == "egnn")]
    assert default["gain"].isna().all()
    assert set(default["optimizer"]) == {"muon"}
    lines = settings.highlights(study)
    assert lines[0].startswith("PointNet: of 5 changes to the settings of Muon 1 move the score")
    assert "polar exact, +3.00" in lines[0]
    text = settings.text(study, frame)
    assert "newton-schulz (default)" in text
    assert "Curvature was measured at fewer seeds" not in text


def test_curvature_is_a_geometric_mean_over_the_seeds_that_have_it(study):
    frame, cells = settings.table(study), settings.points(study)
    mine = cells[(cells["task"] == "egnn") & (cells["optimizer"] == "steps-8")]["largest"]
    line = row(frame, task="egnn", optimizer="steps-8")
    logs = np.log(mine)
    half = stats.t.ppf(0.975, 3) * logs.std(ddof=1) / 2
    assert line["largest"] == pytest.approx(np.exp(logs.mean()))
    assert line["largest_high"] == pytest.approx(np.exp(logs.mean() + half))
    assert line["curvature_seeds"] == 4
    assert (cells["trace_error"] > 0).all()


def test_one_checkpoint_is_said_to_be_one(tmp_path):
    made = arms(tmp_path)
    frame = settings.table(made)
    assert set(frame["curvature_seeds"]) == {1}
    assert np.isnan(frame["largest_low"]).all()
    assert "Curvature was measured at fewer seeds than were trained" in settings.text(made, frame)


def test_every_seed_and_mean_is_drawn(study):
    style.use()
    figure = settings.against_settings(study, "egnn", settings.points(study))
    score = figure.axes[1]  # the polar factor: three levels of four seeds
    drawn = np.concatenate([line.get_ydata() for line in score.lines if line.get_marker() == "."])
    assert sorted(drawn) == pytest.approx(sorted([*(50 + UNIT), *(53 + UNIT), *(50 + UNIT)]))
    assert [line.get_marker() for line in score.lines].count("D") == 1  # the default's mean
