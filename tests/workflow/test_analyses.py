"""Analyses over every kind of subject, as a plug-in would bring them."""

import json
import shutil
from pathlib import Path

import pytest
from workspace import TINY, Workspace

TOY = '''
"""Lists what it was given."""
from dataclasses import dataclass

from equiscape.analyses import Analysis
from equiscape.analyses.result import Result

ANALYSIS = Analysis(__name__, over="{over}", suffix=".json", runtime=1)


@dataclass(frozen=True)
class Settings:
    factor: float = 1.0


def measure(subject, settings):
    subjects = subject if isinstance(subject, list) else [subject]
    norms = [
        settings.factor * sum(p.square().sum().item() for p in c.model().parameters())
        for s in subjects
        for c in s.checkpoints
    ]
    return Result({{"norms": norms}}, units={{"norms": "1"}})
'''


@pytest.fixture
def study(finished, tmp_path):
    copy = shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    (copy / "plugins").mkdir()
    workspace = Workspace(copy, {**TINY, "plugins": ["plugins"]})
    workspace.config["tasks"].pop("pointnet")
    return workspace


def toy(study, over, **entry):
    """Register a toy analysis in the study's plug-in folder."""
    (study / f"plugins/toy_{over}.py").write_text(TOY.format(over=over))
    study.config["analyses"] = {"toy": {"module": f"toy_{over}", **entry}}
    study.run("analyses")
    folder = study / "results/toy"
    return {
        path.relative_to(folder).with_suffix("").as_posix(): json.loads(path.read_text())
        for path in folder.rglob("*.json")
    }


def seeds(result):
    return [(c["optimizer"], c["seed"]) for c in result["checkpoints"]]


def test_over_the_representative_and_a_plugin_that_changes(study):
    results = toy(study, "representative", factor=2.0)
    assert sorted(results) == ["egnn_adam", "egnn_muon"]
    chosen = json.loads((study / "results/representative/egnn_muon.json").read_text())
    assert seeds(results["egnn_muon"]) == [("muon", chosen["seed"])]
    assert results["egnn_muon"]["settings"] == {"factor": 2.0}
    plugin = study / "plugins/toy_representative.py"
    plugin.write_text(plugin.read_text().replace("square()", "abs()"))
    assert study.planned("analyses") == {"toy": 2, "analyses": 1}


def test_at_every_seed_the_representative_is_not_measured_twice(study):
    results = toy(study, "representative", seeds="all")
    assert "egnn_muon/seed1" in results
    assert len(results) == 2 + 4
    chosen = json.loads((study / "results/representative/egnn_muon.json").read_text())
    assert results["egnn_muon"] == results[f"egnn_muon/seed{chosen['seed']}"]


def test_over_the_final_seeds(study):
    results = toy(study, "final")
    assert len(results) == 2
    assert seeds(results["egnn_adam"]) == [("adam", 1), ("adam", 2)]
    assert len(results["egnn_adam"]["norms"]) == 2


def test_over_pairs_of_optimizers_with_each_one_as_its_baseline(study):
    results = toy(study, "pair")
    assert sorted(results) == [
        "egnn_adam_adam",
        "egnn_adam_muon",
        "egnn_muon_muon",
    ]
    assert seeds(results["egnn_adam_muon"]) == [("adam", 1), ("adam", 2), ("muon", 1), ("muon", 2)]
    assert seeds(results["egnn_adam_adam"]) == [("adam", 1), ("adam", 2)]


def test_over_the_study(study):
    results = toy(study, "study")
    assert list(results) == ["study"]
    assert results["study"]["tasks"] == ["egnn"]
    assert len(results["study"]["norms"]) == 4


def test_adding_a_seed_measures_nothing_again_where_the_representative_stays(study):
    before = Path(study / "results/representative/egnn_muon.choice.json").read_bytes()
    study.config["final"]["seeds"] = [*TINY["final"]["seeds"], 5]
    study.run("results/representative/egnn_muon.json")
    after = Path(study / "results/representative/egnn_muon.choice.json").read_bytes()
    planned = study.planned("results/hessian/egnn_muon.json", "results/slice/egnn_muon.h5")
    assert bool(planned) == (before != after)
