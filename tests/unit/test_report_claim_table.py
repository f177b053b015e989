"""Verdicts on planted results, and what a study's claims are made from."""

import json

import numpy as np
import pandas as pd
import pytest
from fake_results import CLOUDS, MOLECULES, write_study
from report_case import row

from equiscape.io import write_csv
from equiscape.report import claims, pages, statistics, style
from equiscape.report.claims import FAILS, HOLDS, UNDECIDED, UNMEASURED, Claim, Sample
from equiscape.report.evidence import Evidence
from equiscape.report.pages import claims as page
from equiscape.report.pages import slice as slices

UNIT = np.array([-1.2, -0.6, -0.1, 0.3, 0.5, 1.1])


def claim(base, other, name="a", expects="more", bound=1.0, kind="difference", **options) -> Claim:
    samples = [Sample("egnn", np.asarray(base, float), np.asarray(other, float))]
    return Claim("published", name, "planted", "muon", expects, bound, kind, samples=samples,
                 **options)  # fmt: skip


def verdict(*found: Claim) -> list[str]:
    return claims.table(found)["verdict"].tolist()


@pytest.mark.parametrize(
    ("other", "expects", "bound", "expected"),
    [
        (UNIT + 5, "more", 1.0, HOLDS),
        (UNIT - 5, "more", 1.0, FAILS),  # the other way
        (UNIT - 5, "less", 1.0, HOLDS),
        (UNIT + 0.05, "more", 4.0, FAILS),  # none of the size worth claiming
        (UNIT + 0.3, "more", 1.0, UNDECIDED),
        (UNIT + 0.05, "same", 3.0, HOLDS),
        (UNIT + 0.05, "same", 0.1, UNDECIDED),
        (UNIT + 5, "same", 3.0, FAILS),
        (UNIT + 2, "about", (0.1, 4.0), HOLDS),
        (UNIT + 9, "about", (0.1, 4.0), FAILS),
        (UNIT + 2, "about", (1.9, 2.1), UNDECIDED),
    ],
)
def test_verdicts_on_planted_differences(other, expects, bound, expected):
    assert verdict(claim(UNIT, other, expects=expects, bound=bound)) == [expected]


@pytest.mark.parametrize(
    ("factor", "expects", "expected"),
    [(3.0, "more", HOLDS), (1 / 3, "less", HOLDS), (1 / 3, "more", FAILS), (1.02, "more", FAILS)],
)
def test_verdicts_on_planted_ratios(factor, expects, expected):
    base = np.exp(0.02 * UNIT)
    found = claim(base, factor * base, expects=expects, bound=1.25, kind="ratio")
    assert verdict(found) == [expected]
    line = claims.table([found]).iloc[0]
    assert line["effect"] == pytest.approx(factor)
    assert line["low"] < factor < line["high"]
    assert line["bound"] == pytest.approx(1.25 if expects == "more" else 0.8)
    assert (line["detectable"] > 1) == (expects == "more")


def test_verdicts_on_planted_deviations():
    assert verdict(claim(UNIT, UNIT / 9, expects="less", bound=1.25, kind="spread")) == [HOLDS]
    assert verdict(claim(UNIT, 9 * UNIT, expects="less", bound=1.25, kind="spread")) == [FAILS]
    assert verdict(claim(UNIT, UNIT, expects="less", bound=1.25, kind="spread")) == [UNDECIDED]


def test_what_has_no_values_is_not_measured_and_one_seed_settles_nothing():
    nothing = Claim("published", "a", "m", "muon", "more", 1.0, "difference", add="`analyses`")
    frame = claims.table([nothing, claim([1.0], [9.0], "b"), claim(UNIT, -UNIT, "c", kind="ratio")])
    assert frame["verdict"].tolist() == [UNMEASURED, UNDECIDED, UNMEASURED]
    assert frame.loc[0, "add"] == "`analyses`"
    assert frame.loc[1, "effect"] == 8
    assert np.isnan(frame.loc[1, ["p", "low", "detectable"]].astype(float)).all()


def test_holm_runs_over_the_claims_and_within_a_claim_over_its_tasks():
    shifts = {"a": 5.0, "b": 0.9, "c": 0.0}
    found = [claim(UNIT, UNIT + shift, name) for name, shift in shifts.items()]
    two = [Sample(task, UNIT, UNIT + 5) for task in ("egnn", "pointnet")]
    found.append(Claim("published", "d", "m", "muon", "more", 1.0, "difference", samples=two))
    frame = claims.table(found)
    assert frame["tasks"].tolist() == [1, 1, 1, 2, 1, 1]
    family = frame["p"].iloc[:4]
    order = np.argsort(family.to_numpy())  # by hand: times 4, 3, 2, 1, never falling
    by_hand = np.minimum(1, np.maximum.accumulate(family.to_numpy()[order] * [4, 3, 2, 1]))
    assert frame["p_holm"].to_numpy()[:4][order] == pytest.approx(by_hand)
    assert frame["p_holm"].iloc[4:].tolist() == pytest.approx([2 * 2 / 924] * 2)
    assert frame.loc[3, "p"] < frame.loc[4, "p"]  # two tasks together say more than one


def test_more_claims_undecide_what_one_would_settle():
    lone = [claim(UNIT[:4], UNIT[:4] + 9, "a")]  # p at its floor, 2 / 70
    assert verdict(*lone) == [HOLDS]
    both = verdict(*lone, claim(UNIT[:4], UNIT[:4] + 9, "b"))
    assert both == [UNDECIDED, UNDECIDED]


def test_detectable_is_that_of_the_spread_seen():
    line = claims.table([claim(UNIT, UNIT + 1)]).iloc[0]
    expected = statistics.detectable(6) * UNIT.std(ddof=1)
    assert line["detectable"] == pytest.approx(expected)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    tasks = {**CLOUDS, **{k: MOLECULES[k] for k in ("gotennet-mu", "gine-peptides-func")}}
    return write_study(tmp_path_factory.mktemp("study"), tasks, seeds=5, every_seed=True)


def test_every_published_claim_is_asked(study):
    frame = page.table(study)
    whole = frame[(frame["section"] == "published") & page._whole(frame)]
    names = whole["claim"].tolist()
    assert len(names) == len(set(names)) == 14
    assert not (whole["verdict"] == UNMEASURED).any()
    assert set(frame.columns) == set(claims.COLUMNS)
    curvature = row(whole, claim="higher largest eigenvalue of the Hessian")
    assert (curvature["n"], curvature["tasks"], curvature["verdict"]) == (5, 5, HOLDS)
    corrupted = frame[(frame["claim"] == "higher accuracy on corrupted clouds")]
    assert set(corrupted["task"]) == {"", "egnn", "pointnet", "dgcnn"}
    graphs = row(whole, claim="no gain on graphs")
    assert graphs["task"] == "gine-peptides-func"
    text = page.text(study, frame)
    assert "## Muon against Adam (AdamW)" in text
    assert "### Task by task" in text
    assert "- better test score at equal products: add `training: {recorders: [products]}`" in text


def test_effects_agree_with_the_pages_they_come_from(study):
    frame = page.table(study)
    other = pages.module("statistics").table(study)
    gain = row(other, claim="test accuracy", task="egnn", test="unpaired, exact permutation")
    ours = row(frame, claim="higher accuracy", task="egnn")
    for mine, theirs in (("effect", "estimate"), ("low", "low"), ("p", "p")):
        assert ours[mine] == pytest.approx(gain[theirs])
    assert ours["detectable"] == pytest.approx(gain["detectable"], rel=0.1)  # Welch's freedom here
    ratio = row(other, claim="trace", task="dgcnn")
    ours = row(frame, claim="higher trace of the Hessian", task="dgcnn")
    assert ours["effect"] == pytest.approx(ratio["estimate"])
    assert ours["high"] == pytest.approx(ratio["high"])


def test_a_study_without_the_products_says_what_to_add(tmp_path):
    without = ("hessian", "slice", "rank", "robustness", "connectivity", "sharpness", "symmetry",
               "truncation")  # fmt: skip
    made = write_study(tmp_path, {"dgcnn": CLOUDS["dgcnn"]}, seeds=3, without=without)
    frame = page.table(made)
    missing = frame[frame["verdict"] == UNMEASURED].set_index("claim")["add"]
    assert missing["smoother slices"] == "`analyses: {slice: {seeds: all}}`"
    assert "architecture: egnn" in missing["EGNN's last layer at about twice the rank"]
    assert "two of `pointnet`" in missing["gain larger at stronger equivariance"]
    assert "sharpness" in missing["sharper, folded: Fisher-Rao"]
    assert "spectrum-match" in missing["held ranks move the score"]
    assert set(frame[frame["verdict"] != UNMEASURED]["claim"]) == {
        "higher accuracy", "smaller spread over seeds", "higher accuracy at equal training loss",
        "higher accuracy at equal wall time",
    }  # fmt: skip
    assert "were not measured" in page.highlights(made)[0]


def test_one_optimizer_has_no_claims(tmp_path):
    made = write_study(tmp_path, {"egnn": CLOUDS["egnn"]}, optimizers=("sgd",), seeds=2)
    frame = page.table(made)
    assert frame.empty
    assert "nothing to compare" in page.text(made, frame)
    assert page.highlights(made) == []
    style.use()
    assert page.verdicts(made, frame).axes


def test_the_slope_is_that_of_the_gains_over_the_order(tmp_path):
    """Gains of 1, 3, 5 points for PointNet, DGCNN, EGNN rise by two a step."""
    made = write_study(tmp_path, CLOUDS, seeds=6)
    for task, gain in (("pointnet", 1), ("dgcnn", 3), ("egnn", 5)):
        for optimizer, shift in (("adam", 0), ("muon", gain)):
            for seed in made.seeds:
                _score(made, task, optimizer, seed, 50 + shift + 0.2 * UNIT[seed])
    frame = page.table(made)
    slope = row(frame, claim="gain larger at stronger equivariance")
    assert slope["effect"] == pytest.approx(2)
    assert slope["verdict"] == HOLDS
    assert slope["high"] - 2 == pytest.approx(
        2.13145 * np.sqrt(4 / 6 * (0.2 * UNIT.std(ddof=1)) ** 2 / 4), rel=0.06
    )  # (gain of EGNN less that of PointNet) / 2: four means, about 20 degrees of freedom
    assert row(frame, claim="higher accuracy", task="")["effect"] == pytest.approx(3)


def _score(made, task, optimizer, seed, score) -> None:
    path = made.final(task, optimizer, seed)
    metrics = json.loads(path.read_text())
    for at in metrics["at"].values():
        at["test"]["score"] = score
    path.write_text(json.dumps(metrics))


def test_a_ratio_that_folding_turns_around_is_said_so(tmp_path):
    made = write_study(tmp_path, {"pointnet": CLOUDS["pointnet"]}, seeds=6)
    for product in made.analysis("sharpness"):
        frame = pd.read_csv(product.path)
        chosen = frame["folded"] & (frame["measure"] == "hessian_largest")
        factor = 0.8 if product.optimizer == "muon" else 1.0
        frame.loc[chosen, "value"] = factor * np.exp(0.01 * frame.loc[chosen, "seed"])
        write_csv(product.path, frame)
    (line,) = page.folding(made)
    assert "PointNet, Muon over Adam (AdamW)" in line
    assert "the ratio turns around, each interval on its side of 1" in line
    frame = page.table(made)
    assert row(frame, claim="folding lowers the ratio: largest λ of H")["verdict"] == HOLDS
    assert row(frame, claim="sharper, folded: largest λ of H")["verdict"] == FAILS


def test_a_network_without_norms_has_nothing_to_fold(study):
    """However its values differ: solvers stop at different digits of the two forms."""
    both = {"egnn", "pointnet"} & set(study.tasks)
    assert both == {"egnn", "pointnet"}
    quotient = Evidence(study).folding("hessian_largest")
    assert (quotient != 1).all()
    tasks = set(quotient.index.get_level_values("task"))
    assert "pointnet" in tasks
    assert not tasks & {"egnn", "gotennet-mu"}
    assert not any("EGNN" in line for line in page.folding(study))


def test_barriers_are_those_of_aligned_lines_of_the_test_loss(study):
    made = Evidence(study).barriers("muon")
    for sample in made:
        # made up: 4 * 1.0 * (2 - reset) * t (1 - t), at its highest 1 where statistics were reset
        assert sample.other.tolist() == pytest.approx([1.0])
        assert sample.base.tolist() == pytest.approx([1.0, 1.0])
    frame = page.table(study)
    line = row(frame, claim="barrier to the other above that to a seed", task="egnn")
    assert line["verdict"] == UNDECIDED
    assert np.isnan(line["p"])


def test_roughness_of_a_basin_with_straight_walls():
    x = np.linspace(-1, 1, 41)
    band = np.minimum(1.0, np.abs(x) / 0.5)[None].repeat(3, axis=0)
    plane = slices.Slice(x, x, np.abs(x)[:, None] + np.abs(x), band, {"chance_loss": 1.0})
    assert slices.roughness(plane) == pytest.approx(4 / 0.5)
    higher = slices.Slice(x, x, plane.loss + 2, 10 * band + 2, {"chance_loss": 12.0})
    assert slices.roughness(higher) == pytest.approx(4 / 0.5)  # scale and level do not matter
    bumpy = slices.Slice(x, x, plane.loss, band + 0.05 * np.sin(30 * x), {"chance_loss": 1.0})
    assert slices.roughness(bumpy) > 9
    deep = slices.Slice(x, x, plane.loss, band + np.inf, {"chance_loss": 0.0})
    assert np.isnan(slices.roughness(deep))


def test_the_figure_has_a_cell_for_each_verdict(study):
    style.use()
    frame = page.table(study)
    (axis, *_) = page.verdicts(study, frame).axes
    texts = [text.get_text() for text in axis.texts]
    assert len(axis.patches) == len(texts)
    signs = [text[:1] for text in texts]
    whole = frame[page._whole(frame)]
    assert signs.count("✓") >= (whole["verdict"] == HOLDS).sum()
    assert {label.get_text() for label in axis.get_yticklabels()} == set(frame["claim"])
