"""A requested target that no rule makes is answered with what was probably meant."""

from pathlib import Path

import pytest
import yaml

from equiscape.configuration import start
from equiscape.configuration.targets import check_target
from equiscape.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
CELL = "{task,egnn}_{optimizer}/lr{lr}_wd{wd}_seed{seed}/metrics.json"
RULES = {
    "all": [],
    "tables": ["out/tables/accuracy.csv"],
    "hessian": ["out/hessian/{task}_{optimizer}.json"],
    "select": ["out/selection/{task}_{optimizer}.json"],
    "choose": ["out/selection/{task}_{optimizer}.choice.json"],
    "train_grid_cell": [f"out/grid/{CELL}"],
    "train_final_cell": ["out/final/{task}_{optimizer}/seed{seed}/metrics.json"],
    "connectivity": ["out/connectivity/{task}_{first}_{second}.h5"],
    "prepare": ["data/prepared/{dataset}.h5"],
}


@pytest.fixture(scope="module")
def study():
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    return start.study(config, ROOT / "workflow/schemas/config.schema.yaml", root=ROOT)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("out/hessian/egn_muon.json", r"the task of out/hessian/egn_muon.json: 'egn' .*'egnn'"),
        ("out/final/egnn_moun/seed1/metrics.json", r"the optimizer of .*'moun'.*'muon'"),
        ("out/final/egnn_muon/seed99/metrics.json", r"the seed of .*'99' is unknown"),
        ("out/grid/egnn_muon/lr1e-9_wd1e-2_seed0/metrics.json", r"the lr of .*'1e-9'"),
        ("out/grid/egnn_muon/lr2e-2_wd9_seed0/metrics.json", r"the wd of .*'9'"),
        ("out/connectivity/egnn_adam_moun.h5", r"the optimizer of .*'moun'"),
        ("data/prepared/shape.h5", r"the dataset of .*'shape'.*'shapes'"),
        ("out/tables/acuracy.csv", r"no rule makes it; did you mean 'out/tables/accuracy\.csv'"),
        ("hesian/egnn_muon.json", r"no rule makes it; did you mean 'out/hessian/egnn_muon\.json'"),
        ("slection", r"no rule makes it; did you mean 'out/selection|no rule makes it"),
        ("tabels", r"no rule makes it; did you mean 'tables'"),
    ],
)
def test_a_misspelled_target_is_named(study, target, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_target(target, RULES, study)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "all",
        "out/hessian/egnn_muon.json",
        "out/selection/egnn_muon.choice.json",
        "out/grid/egnn_muon/lr2e-2_wd1e-2_seed0/metrics.json",
        "out/connectivity/egnn_muon_muon.h5",
        "out/tables/accuracy.csv",
        str(ROOT / "README.md"),  # a file that is there needs no rule
    ],
)
def test_targets_of_the_study_pass(study, target):
    check_target(target, RULES, study)


def test_snakemake_is_asked_only_where_a_word_is_doubtful(study, tmp_path):
    def ask():
        raise AssertionError("asked")

    folder = tmp_path / "hessian/my_study"
    folder.mkdir(parents=True)
    words = ["--cores", "2", "--configfile", str(folder), "--config", "device=cpu", "tables"]
    start.check_targets(words, ask, RULES, study)
    with pytest.raises(AssertionError, match="asked"):
        start.check_targets([*words, "tabels"], ask, RULES, study)
    start.check_targets(["grid/my_study.yaml"], list, RULES, study)  # no target, says Snakemake
