"""The manifest, the registry of pages, the command, and products that are not what they say."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from fake_results import CLOUDS, REFERENCE, product, write_study
from report_case import report_study

from equiscape.errors import ConfigError, DataError
from equiscape.report import curvature, load, pages, tables
from equiscape.report.__main__ import main
from equiscape.report.manifest import Manifest
from equiscape.report.page import declared
from equiscape.report.pages import (
    rank,
    robustness,
)
from equiscape.report.pages import slice as slices

LIBRARY = REFERENCE.parent / "scripts"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Manifest:
    """See :func:`report_case.report_study`."""
    return report_study(tmp_path_factory.mktemp("study"))


def test_every_declared_input_exists(study):
    inputs = [path for page in pages.pages(study).values() for path in page.inputs(study)]
    assert inputs
    assert all(path.exists() for path in inputs)
    assert set(pages.table_inputs(study)) <= set(inputs)


def test_an_analysis_that_the_study_does_not_list_has_no_page(tmp_path):
    tasks = {"egnn": CLOUDS["egnn"]}
    study = write_study(
        tmp_path,
        tasks,
        seeds=1,
        without=("hessian", "robustness", "connectivity", "symmetry", "sharpness", "truncation"),
    )
    assert {"accuracy", "slice", "rank"} <= set(pages.pages(study))
    assert not {"hessian", "spectrum", "robustness"} & {*pages.tables(study), *pages.pages(study)}
    tables.write_tables(study, tmp_path / "tables")
    assert not (tmp_path / "tables" / "hessian.csv").exists()


def test_paths_of_an_analysis_follow_what_it_is_made_over(study):
    def paths(**entry):
        entry = {"suffix": ".csv", "tasks": ["egnn"], **entry}
        made = Manifest.from_dict({**study.to_dict(), "analyses": {"toy": entry}})
        return [str(path.relative_to(study.results)) for path in made.products("toy")]

    assert paths(over="representative") == [f"toy/egnn_{o}.csv" for o in study.optimizers]
    every = [f"toy/egnn_{o}/seed{seed}.csv" for o in study.optimizers for seed in range(3)]
    assert paths(over="representative", seeds="all") == [
        *every,
        *paths(over="representative"),
    ]  # and the copy of the representative's
    assert paths(over="snapshots") == paths(over="representative")
    assert paths(over="snapshots", seeds="all") == paths(over="representative", seeds="all")
    assert paths(over="final") == [f"toy/egnn_{o}.csv" for o in study.optimizers]
    pairs = ["adam_adam", "adam_muon", "adam_muon-ns3", "muon_muon", "muon_muon-ns3"]
    assert paths(over="pair") == [f"toy/egnn_{p}.csv" for p in [*pairs, "muon-ns3_muon-ns3"]]
    assert paths(over="study") == ["toy/study.csv"]


def test_a_page_is_declared_in_literals(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "toypage.py").write_text(
        "import nothing_that_exists\n"
        "PAGE = Page(title='Toy', category='Toys', reads=('toy',), figures={'a_{task}': 'A.'})\n"
    )
    page = declared("toypage")  # read, not imported
    assert (page.title, page.reads) == ("Toy", ("toy",))
    (tmp_path / "toyless.py").write_text("PAGE = None\n")
    with pytest.raises(ConfigError, match=r"toyless has no PAGE = Page"):
        declared("toyless")
    (tmp_path / "toywrong.py").write_text("PAGE = Page(title=1 + x)\n")
    with pytest.raises(ConfigError, match=r"PAGE of toywrong is not Page\(...\) of literals"):
        declared("toywrong")
    with pytest.raises(ConfigError, match=r"page nowhere\.toy cannot be imported"):
        declared("nowhere.toy")


def test_manifest_round_trip(study, tmp_path):
    study.write(tmp_path / "report.json")
    moved = Manifest.read(tmp_path / "report.json")  # results lie beside the manifest
    assert moved == replace(study, results=tmp_path)
    assert list(Manifest.read(tmp_path / "report.json").optimizers) == ["adam", "muon", "muon-ns3"]
    with pytest.raises(ConfigError, match="'lion' is not an optimizer of this study"):
        Manifest.from_dict({**study.to_dict(), "baseline": "lion"})
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(DataError, match=r"report.json does not fit .* --forcerun manifest"):
        Manifest.read(tmp_path / "report.json")
    (tmp_path / "report.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match="is of format 1, and this version of Equiscape reads"):
        Manifest.read(tmp_path / "report.json")


def test_bad_products_are_named(tmp_path):
    study = write_study(tmp_path, {"egnn": CLOUDS["egnn"]}, seeds=1)
    path = product(study, "hessian", "egnn", "adam")
    path.write_text(product(study, "hessian", "egnn", "muon").read_text())
    with pytest.raises(DataError, match=r"egnn_adam\.json holds egnn_muon"):
        curvature.load(study)
    path.write_text('{"task": "egnn", "optimizer": "adam"}')
    with pytest.raises(DataError, match=r"egnn_adam\.json does not fit hessian"):
        curvature.load(study)
    product(study, "rank", "egnn", "muon").write_text("task,optimizer\negnn,muon\n")
    with pytest.raises(DataError, match=r"egnn_muon\.csv has no column 'layer'"):
        rank.load(study)
    product(study, "robustness", "egnn", "muon").write_text("")
    with pytest.raises(DataError, match=r"egnn_muon\.csv is not a CSV table"):
        robustness.load(study)
    product(study, "slice", "egnn", "muon").write_bytes(b"not HDF5")
    with pytest.raises(DataError, match=r"egnn_muon\.h5 is not HDF5"):
        slices.load(study)
    study.final("egnn", "muon", 0).unlink()
    with pytest.raises(DataError, match=r"metrics\.json does not exist"):
        load.finals(study)


def test_the_command_finds_results_and_reference_from_another_folder(study, capsys, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(study.results, moved)
    data = json.loads((moved / "report.json").read_text())
    data |= {"results": "results/demo", "reference": "workflow/reference"}
    (moved / "report.json").write_text(json.dumps(data))
    with contextlib.chdir(tmp_path):
        assert main([str(moved)]) == 0
    assert "82.08 ± 0.36" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "gbk"])
def test_the_command_prints_on_any_terminal(study, encoding):
    run = subprocess.run(
        [sys.executable, "-m", "equiscape.report", str(study.results)],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(LIBRARY)},
        capture_output=True,
    )
    assert run.returncode == 0, run.stderr
    text = run.stdout.decode(encoding)
    assert "EGNN" in text
    assert "gain over Adam" in text


def test_console_and_command(study, capsys):
    assert main([str(study.results)]) == 0
    out = capsys.readouterr().out
    assert "82.08 ± 0.36" in out
    assert str(study.results / "figures") in out
    assert main([str(study.results / "nowhere")]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert main([]) == 2
