"""The page of permutation representations, on made-up networks that can be counted by hand."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fake_results import STUDY_WRITERS, SUFFIXES, write_study
from fake_results import task as made
from test_report_figures import laid_out

from equiscape.io import write_csv
from equiscape.report import choice, style, titles
from equiscape.report.pages import pages, permutations

TASKS = {
    name: made("permutation-mlp", "s3", "teacher") for name in ("sign-held", "sign", "free", "c4")
}
MODES = {"sign-held": "constrained", "sign": "relaxed", "free": "free", "c4": "relaxed"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Ten seeds: Adam's relaxed networks 0 to 6 are solved, Muon's 0 to 3; none that is held."""
    root = tmp_path_factory.mktemp("study")
    manifest = write_study(root, TASKS, seeds=10, without=tuple(SUFFIXES))
    rows, curvature = [], []
    for task, optimizer in manifest.pairs:
        for seed in manifest.seeds:
            mode = MODES[task]
            limit = {"constrained": 0, "relaxed": 7 if optimizer == "adam" else 4, "free": 10}[mode]
            solved = seed < limit
            c4 = task == "c4"
            end = "regular" if c4 else "none" if seed == 6 else "natural"
            rows.append(
                {
                    "task": task, "optimizer": optimizer, "seed": seed,
                    "group": "C4" if c4 else "S3", "inputs": "natural",
                    "teacher": "regular" if c4 else "natural",
                    "student": "4 trivial" if c4 else "sign + trivial",
                    "mode": mode, "release": 0.5 if mode == "relaxed" else np.nan, "layer": 0,
                    "loss": 1e-12 if solved else 0.4, "test_loss": 0.1,
                    "representation": end if solved else "none", "residual": 1e-9,
                    "homomorphism": True, "dead": 0, "merged": 0, "distance": 0.1,
                    "nearest": "", "nearest_distance": np.nan, "equivariance_error": 0.0,
                }
            )  # fmt: skip
            if mode == "constrained":
                curvature.append(
                    {
                        "task": task, "optimizer": optimizer, "seed": seed, "loss": 0.4,
                        "kind": "saddle across" if seed else "minimum",
                        "lowest_across": -0.1 * seed, "negative_across": 2, "coupling": 1e-16,
                    }
                )  # fmt: skip
    for name, frame in (("representation", rows), ("constrained-landscape", curvature)):
        (product,) = manifest.analysis(name)
        write_csv(product.path, pd.DataFrame(frame))
    for task, optimizer in manifest.pairs:  # released after epoch 6, at half the loss in epoch 8
        for seed in manifest.seeds:
            path = manifest.final(task, optimizer, seed, "history.csv")
            history = pd.read_csv(path)
            history["train_loss"] = [0.8] * 6 + [0.6, 0.3, 0.1, 1e-3, 1e-6, 1e-12]
            write_csv(path, history)
    manifest.write(root / "report.json")
    return manifest


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (3, 20), (10, 10), (7, 31)])
def test_wilson_intervals_solve_wilson_s_equation(successes, trials):
    """Both ends p satisfy (share - p)^2 = z^2 p (1 - p) / n, or are 0 or 1 exactly."""
    low, high = choice.wilson(successes, trials)
    share, square = successes / trials, 1.959963984540054**2
    for end in (low, high):
        assert (share - end) ** 2 == pytest.approx(square * end * (1 - end) / trials, abs=1e-12)
    assert low <= share <= high
    assert low == 0 or successes > 0
    assert high == 1 or successes < trials


def test_solved_networks_are_counted(study):
    table = permutations.table(study)
    cells = table.set_index(["group", "mode", "optimizer"])
    assert cells["solved"].to_dict() == {
        ("S3", "constrained", "adam"): 0,
        ("S3", "constrained", "muon"): 0,
        ("S3", "relaxed", "adam"): 7,
        ("S3", "relaxed", "muon"): 4,
        ("S3", "free", "adam"): 10,
        ("S3", "free", "muon"): 10,
        ("C4", "relaxed", "adam"): 7,
        ("C4", "relaxed", "muon"): 4,
    }
    assert list(table["mode"][:6]) == ["constrained"] * 2 + ["relaxed"] * 2 + ["free"] * 2
    row = cells.loc["S3", "relaxed", "adam"]
    assert (row["end"], row["ends"]) == ("natural", 6)
    assert row["low"] < 0.7 < row["high"]
    text = permutations.text(study, table)
    assert "7 of 10" in text
    assert "## S3 on natural, teacher natural" in text
    assert "natural (6)" in text


def test_ends_are_a_matrix_from_start_to_end(study):
    frame = permutations.ends(study)
    counts = frame.set_index(["group", "optimizer", "end"])["networks"].to_dict()
    assert counts["S3", "adam", "natural"] == 6
    assert counts["S3", "adam", "none"] == 1
    assert counts["S3", "adam", permutations.UNSOLVED] == 3
    assert counts["C4", "muon", "regular"] == 4
    totals = frame.groupby(["group", "student", "optimizer"])["share"].sum()
    np.testing.assert_allclose(totals, 1)
    assert permutations.UNSOLVED in permutations.ends_text(study, frame)


def test_the_question_is_answered_from_the_counts(study):
    """Adam: 7 of 10 in each of two relaxed tasks, seed 6 without a representation in S3."""
    frame = permutations.choice(study).set_index(["optimizer", "mode"])
    assert set(frame.index.get_level_values("mode")) == {"relaxed", "free", "all"}  # none held
    counts = frame[["networks", "solved", "teacher", "another", "none"]]
    assert counts.loc["adam", "relaxed"].tolist() == [20, 14, 13, 0, 1]
    # of the ten free ones, seed 6 has no representation either
    assert counts.loc["adam", "all"].tolist() == [30, 24, 22, 0, 2]
    assert counts.loc["muon", "all"].tolist() == [30, 18, 17, 0, 1]
    low, high = choice.wilson(22, 24)
    assert frame.loc[("adam", "all"), ["low", "high"]].tolist() == [low, high]
    text = permutations.choice_text(study, permutations.choice(study))
    assert "Of the 42 networks that could leave their plane and solved their task, 39 carry" in text
    assert f"22 of 24 [{low:.3f}, {high:.3f}]" in text
    assert "no difference between optimizers was found" in text


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ({"adam": ["regular"] * 20, "muon": ["regular"] * 20}, "no optimizer chose another"),
        ({"adam": ["regular"] * 20, "muon": ["2 C4/C2"] * 20}, "of Adam (AdamW) and Muon do not"),
        ({"adam": ["regular"] * 2, "muon": ["2 C4/C2"] * 1}, "no difference between optimizers"),
        ({"adam": [], "muon": []}, "No network that could leave its plane solved its task."),
    ],
)
def test_the_answer_follows_the_intervals(ends, said):
    rows = [
        {"optimizer": optimizer, "mode": "relaxed", "group": "C4", "teacher": "C4/C1",
         "solved": i < len(found), "representation": found[i] if i < len(found) else "none"}
        for optimizer, found in ends.items() for i in range(20)
    ]  # fmt: skip
    frame = choice.choices(pd.DataFrame(rows))
    assert frame["another"].sum() == 2 * sum(end != "regular" for e in ends.values() for end in e)
    assert said in choice.sentences(frame, titles.optimizer_title)


def test_where_all_are_held_there_is_no_choice_to_count(study):
    held = permutations.load(study)
    held = held[held["mode"] == "constrained"]
    frame = choice.choices(held)
    assert frame.empty
    assert "No network that could leave" in choice.choices_text(frame, titles.optimizer_title)


def test_escape_counts_the_trapped_only(study):
    frame = permutations.escape(study)
    row = frame.set_index(["group", "optimizer"]).loc["S3", "muon"]
    assert (row["trapped"], row["escaped"], row["epochs"]) == (10, 4, 2)
    assert row["held_loss"] == 0.8
    assert "4 of 10" in permutations.escape_text(study, frame)


def test_saddles_are_counted_by_kind(study):
    frame = permutations.saddles(study)
    assert list(frame["saddle_across"]) == [9, 9]
    assert list(frame["minimum"]) == [1, 1]
    assert frame["lowest_across"].tolist() == pytest.approx([-0.45, -0.45])
    assert "saddles across" in permutations.saddles_text(study, frame)


def test_figures_show_every_cell(study):
    style.use()
    table = permutations.table(study)
    figure = permutations.solved(study, table)
    laid_out(figure)
    points = [line for axis in figure.axes for line in axis.lines if line.get_marker() != "None"]
    assert len(points) == len(table)
    figure = permutations.losses(study, permutations.load(study))
    laid_out(figure)
    drawn = sum(len(line.get_xdata()) for axis in figure.axes for line in axis.lines)
    assert drawn == len(permutations.load(study)) + 2 * len(figure.axes)  # the thresholds
    figure = permutations.arrivals(study, permutations.ends(study))
    laid_out(figure)
    width = sum(bar.get_width() for axis in figure.axes for bar in axis.patches)
    assert width == pytest.approx(4)  # a bar a student and optimizer
    plt.close("all")


def test_the_page_is_made_for_such_studies_only(study, tmp_path):
    assert "permutations" in pages(study)
    assert "permutations" not in pages(write_study(tmp_path, seeds=1, without=tuple(STUDY_WRITERS)))
