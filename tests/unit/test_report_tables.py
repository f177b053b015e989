"""Tables against figures worked out by hand, and the rules of what may stand beside what."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from fake_results import CLOUDS, MOLECULES, REFERENCE, diverge, product, write_study
from report_case import MODELNET, report_study, row

from equiscape.report import numbers, pages, tables, titles
from equiscape.report.latex import booktabs, escape
from equiscape.report.manifest import Manifest
from equiscape.report.pages import (
    accuracy,
    hessian,
    molecules,
    rank,
    robustness,
)
from equiscape.report.text import body

TEXT = ("lr", "wd", "unit", "lr_edge", "lr_add", "wd_edge", "wd_add", "status", "width")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Manifest:
    """See :func:`report_case.report_study`."""
    return report_study(tmp_path_factory.mktemp("study"))


def test_reference_holds_the_published_gains_and_ratios():
    """Gains and ratios that the publication also states, to its own rounding."""
    gains = {"accuracy": (5.17, 2.67, 1.96), "robustness": (4.36, 3.02, 2.58)}
    for name, expected in gains.items():
        wide = pd.read_csv(REFERENCE / f"{name}.csv").pivot(
            index="architecture", columns="optimizer", values="mean"
        )
        gain = (wide["muon"] - wide["adam"])[["egnn", "pointnet", "dgcnn"]]
        np.testing.assert_allclose(gain, expected, atol=0.011)
    frame = pd.read_csv(REFERENCE / "hessian.csv").set_index(["architecture", "optimizer"])
    frame = frame[["largest", "trace"]]
    ratios = {"egnn": (4.75, 3.66), "pointnet": (21.82, 15.25), "dgcnn": (11.22, 6.61)}
    for architecture, expected in ratios.items():
        ratio = frame.loc[(architecture, "muon")] / frame.loc[(architecture, "adam")]
        np.testing.assert_allclose(ratio, expected, atol=0.006)


def test_accuracy_means_spreads_and_gains(study):
    def scores(task, optimizer):
        files = [study.final(task, optimizer, seed) for seed in study.seeds]
        cells = [json.loads(file.read_text()) for file in files]
        return [cell["at"]["last"]["test"]["score"] for cell in cells if cell["at"]]

    frame = accuracy.table(study)
    muon = row(frame, task="egnn", optimizer="muon", protocol="last")
    ours, base = scores("egnn", "muon"), scores("egnn", "adam")
    assert muon["mean"] == pytest.approx(np.mean(ours))
    assert muon["std"] == pytest.approx(math.sqrt(sum((s - np.mean(ours)) ** 2 for s in ours) / 2))
    assert muon["gain"] == pytest.approx(np.mean(ours) - np.mean(base))
    mae = row(frame, task="gotennet-alpha", optimizer="muon", protocol="last")
    fall = np.mean(scores("gotennet-alpha", "adam")) - np.mean(scores("gotennet-alpha", "muon"))
    assert mae["direction"] == "min"
    assert mae["gain"] == pytest.approx(fall)
    assert fall > 0
    assert len(frame) == 3 * 3 * len(study.tasks)


def test_diverged_seeds_are_counted_said_and_left_out(study):
    frame = accuracy.table(study)
    cell = row(frame, task="pointnet", optimizer="adam", protocol="best_validation")
    assert (cell["seeds"], cell["diverged"]) == (3, 1)
    assert math.isfinite(cell["mean"])
    assert "pointnet with adam (1 of 3)" in accuracy.text(study, frame)
    assert "pointnet with adam (1 of 3)" in accuracy.console(study)


def test_all_seeds_diverged(tmp_path):
    study = write_study(
        tmp_path, {"egnn": CLOUDS["egnn"]}, seeds=2,
        diverged=(("egnn", "muon", 0), ("egnn", "muon", 1)),
    )  # fmt: skip
    frame = accuracy.table(study)
    cell = row(frame, task="egnn", optimizer="muon", protocol="last")
    assert cell["diverged"] == 2
    assert math.isnan(cell["mean"])
    line = next(x for x in accuracy.text(study, frame).split("\n") if "| Muon" in x)
    assert line.count("diverged") == 4  # the seeds and the three protocols


def test_published_figures_stand_only_beside_their_own_data(study):
    frame = accuracy.table(study)
    best = frame[frame["protocol"] == "best_validation"]
    matched = best[best["published_mean"].notna()]
    assert list(zip(matched["task"], matched["optimizer"])) == [("egnn", "adam"), ("egnn", "muon")]
    assert matched["published_mean"].tolist() == [76.91, 82.08]
    assert matched["published_gain"].tolist() == pytest.approx([0, 5.17])
    assert frame.loc[frame["protocol"] == "last", "published_mean"].isna().all()
    for line in accuracy.text(study, frame).split("\n"):
        if "| shapes" in line:
            assert "ModelNet40" not in line
            assert "84.53" not in line
    elsewhere = accuracy.text(study, frame).split("## Published, on other data")[1]
    assert "84.53 ± 0.70" in elsewhere
    assert "76.91" not in elsewhere


def test_an_optimizer_of_another_class_is_not_the_published_one(study):
    optimizers = {**study.optimizers, "adam": {"class": "sgd"}}
    other = Manifest.from_dict({**study.to_dict(), "optimizers": optimizers})
    frame = accuracy.table(other)
    assert frame.loc[frame["optimizer"] == "adam", "published_mean"].isna().all()


def test_hessian_ratios(study):
    frame = hessian.table(study)
    adam, muon = (row(frame, task="egnn", optimizer=name) for name in ("adam", "muon"))
    assert muon["largest_ratio"] == pytest.approx(muon["largest"] / adam["largest"])
    assert muon["trace_ratio"] == pytest.approx(muon["trace"] / adam["trace"])
    assert muon["published_largest_ratio"] == pytest.approx(4.75, abs=0.01)
    assert frame.loc[frame["task"] == "pointnet", "published_largest"].isna().all()
    text = hessian.text(study, frame)
    assert "27.14; 402.37" in text
    assert "not converged" not in text.lower()


def test_robustness_is_a_mean_of_means(study):
    frame = robustness.table(study)
    cells = pd.read_csv(product(study, "robustness", "pointnet", "muon"))
    seeds = [cells.loc[cells["seed"] == seed, "accuracy"].mean() for seed in study.seeds]
    cell = row(frame, task="pointnet", optimizer="muon")
    assert cell["mean"] == pytest.approx(np.mean(seeds))
    assert cell["std"] == pytest.approx(np.std(seeds, ddof=1))
    assert (cell["corruptions"], cell["severities"], cell["arrays"]) == (13, 5, "generated")
    assert math.isnan(cell["published_mean"])
    assert row(frame, task="egnn", optimizer="muon")["published_mean"] == 70.12


def test_generated_corruptions_of_modelnet_are_not_the_published_ones(study):
    tasks = {**study.tasks, "egnn": {**MODELNET["egnn"], "corruptions": "generated"}}
    frame = robustness.table(Manifest.from_dict({**study.to_dict(), "tasks": tasks}))
    assert frame["published_mean"].isna().all()


def test_molecules_changes_and_wins(study):
    frame = molecules.table(study)
    assert set(frame["task"]) == set(MOLECULES)
    muon = row(frame, task="gotennet-r2", optimizer="muon")
    adam = row(frame, task="gotennet-r2", optimizer="adam")
    assert muon["change"] == pytest.approx(100 * (muon["mean"] / adam["mean"] - 1))
    assert muon["change"] < 0 < muon["gain"]
    assert muon["win"]
    assert muon["published_mean"] == 0.2310
    assert frame["published_mean"].notna().sum() == 2
    text = molecules.text(study, frame)
    assert "Muon wins 3 of 3." in text
    assert "MAE (a₀²), lower is better" in text


def test_one_optimizer_has_no_gains(tmp_path):
    study = write_study(tmp_path, {"egnn": CLOUDS["egnn"]}, optimizers=("sgd",), seeds=1)
    tables.write_tables(study, tmp_path / "tables")
    assert rank.summary(study).empty
    assert "nothing to compare" in (tmp_path / "tables" / "rank_summary.md").read_text()


def test_write_tables_writes_what_the_rules_declare(study, tmp_path):
    written = tables.write_tables(study, tmp_path)
    names = pages.tables(study)
    assert {path.name for path in written} == {
        f"{n}.{s}" for n in names for s in ("csv", "md", "tex")
    }
    for name, page in pages.pages(study).items():
        module = pages.module(name)
        assert set(getattr(module, "TABLES", {})) == set(page.tables)
        for stem in page.tables:
            frame = module.TABLES[stem][0](study)
            again = pd.read_csv(tmp_path / f"{stem}.csv", dtype=dict.fromkeys(TEXT, str))
            text = again.select_dtypes(["object", "string"]).columns  # AP has no unit, say
            again[text], frame[text] = again[text].fillna(""), frame[text].fillna("")
            pd.testing.assert_frame_equal(again, frame, check_dtype=False)


def test_body_has_no_title(study):
    text = body(accuracy.text(study, accuracy.table(study)))
    assert not text.startswith("#")
    assert "\n### Published" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(76.914, "76.91"), (0.0316, "0.03160"), (7362.05, "7362"), (0, "0"), (-12.345, "−12.35"),
     (3.2e-6, "3.200e-06"), (float("nan"), "–"), (123456.0, "1.235e+05")],
)  # fmt: skip
def test_significant(value, text):
    assert numbers.significant(value) == text


@pytest.mark.parametrize(
    ("mean", "spread", "unit", "text"),
    [(76.914, 0.938, "%", "76.91 ± 0.94"), (0.02345, 0.00041, "D", "0.02345 ± 0.00041"),
     (1472.78, 31.4, "", "1473 ± 31"), (50, float("nan"), "%", "50.00"),
     (0.5, 0.0, "", "0.5000"),
     (17.304939, 1.3e-7, "", "17.30 ± 1.3e-07"), (float("nan"), 1, "", "–")],
)  # fmt: skip
def test_plus_minus(mean, spread, unit, text):
    assert numbers.plus_minus(mean, spread, unit) == text


def test_signed_ratio_and_percent():
    assert numbers.signed(5.17, "%") == "+5.17"
    assert numbers.signed(-0.0025) == "−0.00250"
    assert numbers.percent(-10.04) == "−10.0 %"
    assert numbers.ratio(4.747) == "4.75×"
    assert numbers.ratio(0.9997) == "1.00×"


@pytest.mark.parametrize(
    ("name", "entry", "title"),
    [("egnn", {"architecture": "egnn"}, "EGNN"),
     ("egnn-relaxed", {"architecture": "egnn"}, "EGNN relaxed"),
     ("gotennet-mu", {"architecture": "gotennet", "target": "mu"}, "GotenNet μ"),
     ("gotennet-u0-atom", {"architecture": "gotennet", "target": "u0_atom"},
      "GotenNet U₀ (atomization)"),
     ("gine-zinc", {"architecture": "gine"}, "GINE ZINC"),
     ("my-task", {"architecture": "mlp"}, "my-task")],
)  # fmt: skip
def test_task_titles(name, entry, title):
    assert titles.task_title(name, entry) == title


def test_optimizer_titles():
    assert titles.optimizer_title("adam") == "Adam (AdamW)"
    assert titles.optimizer_title("muon-ns3") == "Muon ns3"
    assert titles.optimizer_title("something") == "something"


def test_latex_tables_hold_the_readable_ones():
    made = booktabs("# Title\n\n| a_b | c   |\n|:----|:----|\n| 1 ± 2 | 50 % |\n\nNote & more.\n")
    assert made.split("\n") == [
        r"% needs \usepackage{booktabs}",
        "% # Title",
        r"\begin{tabular}{ll}",
        r"\toprule",
        r"a\_b & c \\",
        r"\midrule",
        r"1 $\pm$ 2 & 50 \% \\",
        r"\bottomrule",
        r"\end{tabular}",
        "% Note & more.",
        "",
    ]
    assert escape("−3 × 10^2 {x}") == r"$-$3 $\times$ 10\textasciicircum{}2 \{x\}"


def test_every_letter_of_the_tables_has_a_latex_form(study):
    for name, page in pages.pages(study).items():
        for stem in page.tables:
            table, text = pages.module(name).TABLES[stem]
            body = booktabs(text(study, table(study)))
            rows = [line for line in body.split("\n") if not line.startswith("%")]
            assert not [letter for letter in "\n".join(rows) if ord(letter) > 0x17F], stem


def test_a_study_without_muon_never_speaks_of_it(tmp_path):
    left_out = ("sharpness", "truncation")  # one measures in Muon's geometry, one has its arms
    study = write_study(
        tmp_path, {"egnn": CLOUDS["egnn"]}, optimizers=("adam", "sgd"), seeds=2, without=left_out
    )
    for path in tables.write_tables(study, tmp_path / "tables"):
        assert "muon" not in path.read_text(encoding="utf-8").lower(), path.name
    for notebook in (REFERENCE.parent / "notebooks").glob("*.py"):
        if notebook.stem not in ("interventions", "sharpness"):
            assert "Muon" not in notebook.read_text(encoding="utf-8"), notebook.name


@pytest.mark.parametrize("name", ["connectivity", "rank", "symmetry"])
def test_tables_hold_where_every_cell_of_an_optimizer_diverged(name, tmp_path):
    """As the writer of analyses leaves it: a table without rows, its envelope beside it."""
    made = write_study(tmp_path, {"egnn": CLOUDS["egnn"]}, seeds=2)
    for found in made.analysis(name):
        if "adam" in (found.optimizer, found.second):
            diverge(found, name)
    for table, text in pages.module(name).TABLES.values():
        frame = table(made)
        assert len(frame)
        assert text(made, frame)
