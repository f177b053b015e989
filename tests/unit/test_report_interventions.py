"""What the interventions' page says, on results whose answers are plain."""

import json

import pandas as pd
import pytest
from fake_results import CLOUDS, write_study

from equiscape.io import write_csv
from equiscape.report import pages
from equiscape.report.manifest import Manifest
from equiscape.report.pages import interventions

HELD = {
    "adam-at-muon": ("adamw", "muon"),
    "adam-at-adam": ("adamw", "adam"),
    "muon-at-adam": ("muon", "adam"),
    "muon-at-muon": ("muon", "muon"),
}
DOSES = {"muon-p1": 1.0, "muon-p05": 0.5, "muon-p0": 0, "muon-pm025": -0.25}
# rank and score of each arm: both rise as p falls, and held ranks move the score
ARMS = {
    "adam": (4, 50), "muon": (8, 60), "muon-p1": (4, 50), "muon-p05": (5, 53), "muon-p0": (8, 60),
    "muon-pm025": (9, 62), "adam-at-muon": (8, 57), "adam-at-adam": (4, 50),
    "muon-at-adam": (4, 54), "muon-at-muon": (8, 60),
}  # fmt: skip
SPREAD = (-0.5, 0.0, 0.3, 0.2)


def study(folder, arms=None, direction="max") -> Manifest:
    """Four seeds an arm, with these ranks and scores."""
    arms = {**ARMS, **(arms or {})}
    made = write_study(folder, tasks={"egnn": CLOUDS["egnn"]}, optimizers=tuple(arms), seeds=4)
    for name in arms:
        entry = {"class": "muon" if name.startswith("muon") else "adamw"}
        if name in DOSES:
            entry["settings"] = {"spectrum": DOSES[name]}
        if name in HELD:
            constraint = {"name": "spectrum-match", "ranks_of": HELD[name][1]}
            entry["training"] = {"constraints": [constraint]}
        made.optimizers[name] = entry
    made.analyses["rank"]["seeds"] = "all"
    for product in made.analysis("rank"):
        rank, score = arms[product.optimizer]
        frame = pd.DataFrame(
            [
                ("a", "weight", 16, 16, rank - 1), ("b", "weight", 16, 16, rank),
                ("c", "weight", 16, 16, rank + 2), ("in", "weight", 16, 3, 99.0),
                ("a", "representation", 100, 16, 2 * rank),
            ],
            columns=["layer", "kind", "rows", "columns", "stable_rank"],
        )  # fmt: skip
        write_csv(product.path, frame)
        path = made.final("egnn", product.optimizer, product.seed)
        metrics = json.loads(path.read_text())
        metrics["metric"]["direction"] = direction
        for at in metrics["at"].values():
            at["test"]["score"] = score + SPREAD[product.seed]
        path.write_text(json.dumps(metrics))
    return made


def test_points_have_the_median_rank_of_hidden_weights_of_their_seed(tmp_path):
    cells = interventions.points(study(tmp_path)).set_index(["optimizer", "seed"])
    assert cells.loc[("muon", 2), "weight_rank"] == 8  # not the first layer's 99
    assert cells.loc[("muon", 2), "representation_rank"] == 16
    assert cells.loc[("muon", 2), "score"] == 60.3
    assert len(cells) == 40


def test_a_causal_sentence_where_both_conditions_hold(tmp_path):
    made = study(tmp_path)
    frame = interventions.claims(made)
    assert frame["causal"].all()
    assert set(zip(frame["held"], frame["placebo"])) == {
        ("adam-at-muon", "adam-at-adam"),
        ("muon-at-adam", "muon-at-muon"),
    }
    first = frame.set_index("held").loc["adam-at-muon"]
    assert first["estimate"] == pytest.approx(7)
    # Welch with equal variances and four seeds: t of 6 degrees of freedom
    half = 2.446912 * (2 * pd.Series(SPREAD).var() / 4) ** 0.5
    assert (first["low"], first["high"]) == pytest.approx((7 - half, 7 + half), rel=1e-5)
    assert "follows the spectrum" in interventions.claims_text(made, frame)


@pytest.mark.parametrize(
    ("arms", "reason"),
    [
        ({"muon-p05": (5, 49)}, "score is not monotone"),
        ({"muon-pm025": (7.5, 62)}, "rank is not monotone"),
        ({"adam-at-muon": (8, 50.1)}, "one held arm does not move"),
        ({"muon-at-adam": (4, 66)}, "one held arm moves to the other side"),
    ],
)
def test_no_causal_sentence_otherwise(tmp_path, arms, reason):
    made = study(tmp_path, arms)
    frame = interventions.claims(made)
    assert not frame["causal"].any(), reason
    text = interventions.claims_text(made, frame)
    assert "no causal sentence is warranted" in text
    assert "Both conditions hold" not in text


def test_better_is_lower_where_the_metric_says_so(tmp_path):
    frame = interventions.claims(study(tmp_path, direction="min"))
    assert set(frame["direction_of_dose"]) == {-1}
    assert frame.set_index("held").loc["adam-at-muon", "estimate"] == pytest.approx(-7)


def test_a_study_without_arms_claims_nothing(tmp_path):
    made = write_study(tmp_path, seeds=2)
    frame = interventions.claims(made)
    assert not frame["causal"].any()
    assert "no arms with a power" in interventions.claims_text(made, frame)


def test_scores_at_equal_training_loss(tmp_path):
    made = study(tmp_path)
    for name, losses in (("adam", [3.0, 2.0, 1.0]), ("muon", [2.0, 0.8, 0.2])):
        for seed in made.seeds:
            frame = pd.DataFrame(
                {
                    "epoch": [1, 2, 3], "train_loss": losses, "validation_loss": 1.0,
                    "validation_score": 1.0, "test_score": [10.0, 20.0, 30.0], "seconds": 1.0,
                }
            )  # fmt: skip
            write_csv(made.final("egnn", name, seed, "history.csv"), frame)
    cells = interventions.points(made)
    scores = cells.groupby("optimizer")["equal_loss_score"].mean()
    lowest = max(cells.groupby("optimizer")["train_loss"].max())
    assert lowest >= 1.0  # every cell came to it
    assert scores["adam"] == 30 if lowest < 2 else 20
    assert scores["muon"] == 20 if lowest < 2 else 10


def test_points_have_the_curvature_of_orthogonal_steps_of_their_seed(tmp_path):
    made = study(tmp_path)
    for product in made.analysis("sharpness"):
        frame = pd.read_csv(product.path)
        chosen = frame["measure"] == "spectral_step"
        planted = 100 * frame["seed"] + 7 + 1000 * ~frame["folded"].astype(bool)
        frame.loc[chosen, "value"] = planted[chosen].astype(float)
        write_csv(product.path, frame)
    assert set(made.products("sharpness")) <= set(pages.inputs(made, "interventions"))
    cells = interventions.points(made).set_index(["optimizer", "seed"])
    assert cells.loc[("muon", 2), "s_m"] == 207  # of the folded network
    assert len(cells) == 40
    line = interventions.table(made).set_index("optimizer").loc["muon"]
    assert line["s_m"] == pytest.approx(157)
    without = {name: entry for name, entry in made.analyses.items() if name != "sharpness"}
    made.analyses.clear()
    made.analyses.update(without)
    assert interventions.points(made)["s_m"].isna().all()
