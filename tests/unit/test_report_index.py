"""The study's one page: every cell with settings, provenance and log; nothing of other studies."""

import re

import matplotlib as mpl
import pytest
from fake_results import CLOUDS, MOLECULES, write_study

from equiscape.report.index import write_index
from equiscape.report.pages import pages
from equiscape.report.tables import write_tables

mpl.use("Agg")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """The page of two optimizers, neither of which is Muon or Adam; one cell has a log."""
    tasks = {"egnn": CLOUDS["egnn"], "gotennet-mu": MOLECULES["gotennet-mu"]}
    root = tmp_path_factory.mktemp("study")
    study = write_study(root, tasks, optimizers=("sgd", "sgd-slow"), seeds=2)
    log = root / "logs/final/egnn_sgd/seed1.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"epoch {i}: loss <{i}>\n" for i in range(1, 61)))
    write_tables(study, root / "tables")
    (root / "figures").mkdir()
    for entry in pages(study).values():
        for stem in entry.outputs(study):
            mpl.image.imsave(root / "figures" / f"{stem}.png", [[0.0, 1.0], [1.0, 0.0]])
    write_index(study, root / "index.html")
    return (root / "index.html").read_text(encoding="utf-8")


def test_every_final_cell_has_settings_provenance_and_log(page):
    cells = re.findall(r"<summary>([\w-]+ [\w-]+ seed \d)</summary>(.*?)</details>", page, re.S)
    assert len(cells) == 2 * 2 * 2
    for name, body in cells:
        task, optimizer, _, seed = name.split()
        assert f"final/{task}_{optimizer}/seed{seed}/metrics.json" in body
        assert "0" * 40 in body  # the revision
        assert "&quot;lr&quot;: &quot;1e-3&quot;" in body
    (body,) = (body for name, body in cells if name == "egnn sgd seed 1")
    assert "epoch 60: loss &lt;60&gt;" in body
    assert "epoch 21:" in body
    assert "epoch 20:" not in body
    assert sum("No log lies at logs/final/" in body for _, body in cells) == 7


def test_the_page_says_how_to_cite_this_revision(page):
    cite = page.split('id="cite"')[1]
    assert "@software{equiscape" in cite
    assert "revision " + "0" * 40 in cite


def test_the_page_names_no_optimizer_of_another_study(page):
    said = re.sub(r"data:[\w/+-]+;base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.findall(r"\b(?:muon|adam)\w*", said, re.IGNORECASE)


def test_every_image_has_a_text_that_stands_for_it(page):
    images = re.findall(r"<img [^>]*>", page)
    assert images
    assert all(len(re.search(r'alt="([^"]*)"', image)[1]) > 40 for image in images)
