"""The notebooks: all run on made-up results, one the whole way to HTML as its rule does."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pytest
from fake_results import CLOUDS, MOLECULES, REFERENCE, write_study

from equiscape.report import manifest as products
from equiscape.report.manifest import Manifest

ROOT = REFERENCE.parents[1]
NOTEBOOKS = ROOT / "workflow" / "notebooks"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Manifest:
    """Clouds and molecules, so that every notebook has something to show."""
    tasks = {"egnn": CLOUDS["egnn"], "gotennet-mu": MOLECULES["gotennet-mu"]}
    return write_study(tmp_path_factory.mktemp("study"), tasks, seeds=2)


def test_every_notebook_is_known_to_the_manifest(study):
    assert {path.stem for path in NOTEBOOKS.glob("*.py")} == set(products.notebooks(study))


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.py")), ids=lambda path: path.stem)
def test_notebook_writes_the_figures_that_its_rule_declares(study, path, tmp_path):
    code = path.read_text()
    assert code.count('# %% tags=["parameters"]') == 1
    for name, value in (("manifest", study.results / "report.json"), ("figures", tmp_path)):
        code, count = re.subn(rf'^{name} = ".*?"', f"{name} = {str(value)!r}", code, flags=re.M)
        assert count == 1
    exec(compile(code, str(path), "exec"), {"__name__": "notebook"})
    plt.close("all")
    stems = products.notebook_figures(study, path.stem)
    written = {file.name for file in tmp_path.iterdir()}
    assert written == {f"{stem}.{suffix}" for stem in stems for suffix in ("pdf", "png")}


def test_a_notebook_without_its_inputs_says_which(study, tmp_path):
    code = (NOTEBOOKS / "accuracy.py").read_text()
    code = code.replace("results/report.json", str(tmp_path / "report.json"))
    with pytest.raises(Exception, match=r"report\.json does not exist; run the rule"):
        exec(compile(code, "accuracy.py", "exec"), {"__name__": "notebook"})


@pytest.mark.slow
def test_from_percent_script_to_page(study, tmp_path):
    """The commands of the rule: jupytext, papermill, nbconvert with the template beside them."""
    bin_ = Path(sys.executable).parent
    notebook, page = tmp_path / "rank.ipynb", tmp_path / "rank.html"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "workflow" / "scripts"),
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
    }
    run = f"""
        jupytext --to ipynb --output - {NOTEBOOKS / "rank.py"} |
        papermill --kernel python3 --cwd . --no-progress-bar \
            -p manifest {study.results / "report.json"} -p figures {tmp_path} - {notebook} &&
        jupyter nbconvert --to html --template template \
            --TemplateExporter.extra_template_basedirs={NOTEBOOKS} --output {page} {notebook}
    """
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", run], cwd=ROOT, env=environment, capture_output=True,
        text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    html = page.read_text()
    assert html.count("data:image/png;base64") >= 2
    assert '<details class="eq-code">' in html
    assert not re.search(r'<script[^>]+src="http', html)  # the page reads the same offline
    assert (tmp_path / "rank_egnn.pdf").exists()
