"""The notebooks: all run on made-up results, one the whole way to HTML as its rule does."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pytest
from fake_results import CLOUDS, MOLECULES, REFERENCE, write_study

from equiscape.errors import EquiscapeError
from equiscape.report import notebook as runner
from equiscape.report.manifest import Manifest
from equiscape.report.pages import PAGES, module, pages

ROOT = REFERENCE.parents[1]
NOTEBOOKS = ROOT / "workflow" / "notebooks"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Manifest:
    """Clouds and molecules, so that every notebook has something to show.

    The analyses that are not over the study pass over one task, as their key ``tasks`` may say.
    """
    root = tmp_path_factory.mktemp("study")
    tasks = {
        "egnn": CLOUDS["egnn"],
        "pointnet": CLOUDS["pointnet"],
        "gotennet-mu": MOLECULES["gotennet-mu"],
    }
    varied = {"muon-ns3": {"settings": {"ns_steps": 3}}}
    manifest = write_study(root, tasks, ("muon", "muon-ns3"), seeds=2, entries=varied)
    for name, entry in manifest.analyses.items():
        if entry["over"] != "study":
            everywhere = set(manifest.products(name))
            entry["tasks"] = [task for task in entry["tasks"] if task != "pointnet"]
            manifest = Manifest.from_dict(manifest.to_dict())  # which has listed nothing yet
            for path in everywhere - set(manifest.products(name)):
                path.unlink()
    manifest.write(root / "report.json")
    return manifest


def test_every_page_has_a_notebook(study):
    assert {path.stem for path in NOTEBOOKS.glob("*.py")} == set(PAGES) == set(pages(study))


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.py")), ids=lambda path: path.stem)
def test_notebook_writes_the_figures_that_its_rule_declares(study, path, tmp_path):
    code = path.read_text()
    assert code.count('# %% tags=["parameters"]') == 1
    for name, value in (("manifest", study.results / "report.json"), ("figures", tmp_path)):
        code, count = re.subn(rf'^{name} = ".*?"', f"{name} = {str(value)!r}", code, flags=re.M)
        assert count == 1
    exec(compile(code, str(path), "exec"), {"__name__": "notebook"})
    plt.close("all")
    stems = pages(study)[path.stem].outputs(study)
    written = {file.name for file in tmp_path.iterdir()}
    assert written == {f"{stem}.{suffix}" for stem in stems for suffix in ("pdf", "png")}


def test_no_page_names_an_optimizer_that_the_study_does_not_have(tmp_path):
    """Texts, findings, warnings, legends, notebooks' own sentences, and the one page."""
    tasks = {"egnn": CLOUDS["egnn"], "gotennet-mu": MOLECULES["gotennet-mu"]}
    varied = {"sgd-slow": {"settings": {"momentum": 0.5}}}
    study = write_study(tmp_path, tasks, ("sgd", "sgd-slow"), seeds=2, entries=varied)
    said = {}
    for name in pages(study):
        page = module(name)
        said[name] = [
            text(study, table(study)) for table, text in getattr(page, "TABLES", {}).values()
        ]
        for collect in ("highlights", "warnings"):
            said[name] += getattr(page, collect, lambda manifest: [])(study)
        code = (NOTEBOOKS / f"{name}.py").read_text()
        cells = re.findall(r"# %% \[markdown\]\n((?:#.*\n)*)", code)
        assert cells
        said[name] += cells
        declared = page.PAGE
        said[name] += [declared.title, *declared.tables.values(), *declared.figures.values()]
    for name, texts in said.items():
        for text in texts:
            assert not re.search(r"\b(muon|adam)", text, re.IGNORECASE), (name, text)
    assert "SGD slow" in "".join(said["accuracy"])


def test_a_notebook_without_its_inputs_says_which(study, tmp_path):
    code = (NOTEBOOKS / "accuracy.py").read_text()
    code = code.replace("results/report.json", str(tmp_path / "report.json"))
    with pytest.raises(Exception, match=r"report\.json does not exist; run the rule"):
        exec(compile(code, "accuracy.py", "exec"), {"__name__": "notebook"})


HOSTILE = {
    "MPLBACKEND": "Agg",  # no figure would reach the page
    "LC_ALL": "zh_CN.GBK",
    "PYTHONIOENCODING": "ascii",
    "JUPYTER_PATH": "{site}",
    "JUPYTER_DATA_DIR": "{site}",
    "MATPLOTLIBRC": "{site}/matplotlibrc",
    "MPLCONFIGDIR": "{site}",
    "HOME": "/proc/nowhere",
    "PYTHONPATH": "{site}/packages",
    "PATH": "/usr/bin:/bin",  # nothing is activated
    "IPYTHONDIR": "{site}",
}


@pytest.mark.slow
def test_from_percent_script_to_page_in_a_hostile_environment(study, tmp_path, monkeypatch):
    """Another backend, styles, kernels, locale and HOME; odd folders; nothing activated."""
    site = tmp_path / "site"
    (site / "kernels" / "python3").mkdir(parents=True)
    (site / "kernels" / "python3" / "kernel.json").write_text('{"argv": ["false"]}')
    (site / "matplotlibrc").write_text("text.usetex: True\nbackend: pdf\n")
    (site / "profile_default" / "startup").mkdir(parents=True)
    (site / "profile_default" / "startup" / "00.py").write_text("raise SystemExit('startup ran')")
    (site / "packages").mkdir()
    (site / "packages" / "needed_by_the_site.py").write_text("")
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value.format(site=site))
    odd = tmp_path / "a b'c \"d $(touch pwned) {x} [y] ü"
    (odd / "figures").mkdir(parents=True)
    source = odd / "rank.py"
    code = (NOTEBOOKS / "rank.py").read_text(encoding="utf-8")
    source.write_text(f"{code}\n# %%\nimport needed_by_the_site\n", encoding="utf-8")
    manifest = odd / "report.json"
    shutil.copytree(study.results, odd, dirs_exist_ok=True)
    monkeypatch.chdir(odd)
    notebook, page = odd / "notebooks" / "rank.ipynb", odd / "notebooks" / "rank.html"
    runner.execute(
        source, NOTEBOOKS / "template", notebook, page,
        {"manifest": str(manifest), "figures": str(odd / "figures")},
    )  # fmt: skip
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/png;base64") >= 2
    assert "No description has been provided" not in html
    assert 'alt="Stable (filled) and effective (hollow) rank' in html
    assert '<details class="eq-code">' in html
    assert not re.search(r'<script[^>]+src="http', html)  # the page reads the same offline
    assert "→" in html or "Σ" in html
    assert (odd / "figures" / "rank_egnn.pdf").exists()
    assert notebook.exists()
    assert not list(tmp_path.rglob("pwned"))


def test_the_environment_of_a_notebook(tmp_path):
    given = {**{k: v.format(site="/site") for k, v in HOSTILE.items()}, "OTHER": "kept"}
    made = runner.environment(tmp_path, given)
    assert made["PYTHONPATH"].split(os.pathsep) == [str(runner.LIBRARY), "/site/packages"]
    assert made["OTHER"] == "kept"
    assert made["PYTHONUTF8"] == "1"
    assert made["MPLBACKEND"] == "module://matplotlib_inline.backend_inline"
    assert not {"JUPYTER_PATH", "MATPLOTLIBRC", "PYTHONIOENCODING"} & set(made)
    for name in ("HOME", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        assert Path(made[name]).is_relative_to(tmp_path)
        assert Path(made[name]).is_dir()
    kernel = json.loads((tmp_path / "data/kernels/python3/kernel.json").read_text())
    assert kernel["argv"][0] == sys.executable
    assert runner.environment(tmp_path / "x", {})["PYTHONPATH"] == str(runner.LIBRARY)


def test_a_missing_tool_and_a_failing_cell_are_one_sentence(tmp_path):
    source, template = tmp_path / "rank.py", ROOT / "workflow/notebooks/template"
    cells = ('tags=["parameters"]\nx = ""', "[markdown]\n# # Ranks", "\nraise KeyError('layer')")
    source.write_text("\n\n".join(f"# %% {cell}" for cell in cells) + "\n")
    made = [tmp_path / "rank.ipynb", tmp_path / "rank.html"]
    with pytest.raises(
        EquiscapeError, match=r"^the notebook rank failed: in code cell 2, KeyError: 'layer'$"
    ):
        runner.execute(source, template, *made, {"x": "1"})
    assert not any(path.exists() for path in made)
    (tmp_path / "nbclient.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'nbclient'\")"
    )
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(runner.LIBRARY)])}
    with pytest.raises(EquiscapeError, match=r"^nbclient is not installed beside .*; install"):
        runner._render(["a", "b", "c", "d", "e"], variables, "rank")
