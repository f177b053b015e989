"""The examples of docs/python.md run as they stand."""

import doctest
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_results import CLOUDS, write_representative, write_study
from saved_network import save_network

from equiscape.report.tables import write_tables

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with results/demo: made-up results, and checkpoints of a small PointNet."""
    made = write_study(tmp_path / "results/demo", {"pointnet": CLOUDS["pointnet"]}, seeds=3)
    made = replace(made, seeds=[1, 2])
    made.write(made.results / "report.json")
    write_tables(made, made.results / "tables")
    for task, optimizer in made.pairs:
        for seed in made.seeds:
            save_network(made.final(task, optimizer, seed, "checkpoint.pt"), 0)
        write_representative(made, task, optimizer, 1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_of_the_python_page(folder):
    text = (ROOT / "docs/python.md").read_text()
    names = {"clouds": torch.randn(4, 32, 3)}
    test = doctest.DocTestParser().get_doctest(text, names, "docs/python.md", None, 0)
    assert len(test.examples) > 30
    failures = []
    with torch.random.fork_rng():
        result = doctest.DocTestRunner(verbose=False).run(test, out=failures.append)
    assert result.failed == 0, "".join(failures)
