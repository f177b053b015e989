"""The study's page in a real browser, without a network: Chromium from Debian, where it is."""

from pathlib import Path

import matplotlib as mpl
import pytest
from chromium import probed
from fake_results import CLOUDS, MOLECULES, write_study

from equiscape.report.index import write_index
from equiscape.report.manifest import Manifest
from equiscape.report.pages import pages
from equiscape.report.tables import write_tables

mpl.use("Agg")

PROBE = """<script>
window.addEventListener("load", () => {
  const found = { errors: window.errors, width: window.innerWidth };
  const images = [...document.images];
  found.images = images.length;
  found.broken = images.filter((i) => !i.complete || i.naturalWidth === 0).length;
  found.unnamed = images.filter((i) => i.alt.length < 20).length;
  found.foreign = [...document.querySelectorAll("[src]")].filter(
    (e) => !e.getAttribute("src").startsWith("data:")).length;
  const table = document.querySelector("table"), head = table.tHead.rows[0].cells;
  const column = [...head].findIndex((c) => c.textContent === "best validation epoch");
  const read = () => [...table.tBodies[0].rows].map((r) => r.cells[column].textContent);
  head[column].firstElementChild.click();
  found.rising = read();
  head[column].firstElementChild.click();
  found.falling = read();
  found.sort = head[column].getAttribute("aria-sort");
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.text = parseFloat(getComputedStyle(document.querySelector("p")).fontSize);
  found.faces = [...document.querySelectorAll("canvas")].map((c) => Number(c.dataset.faces));
  found.circles = document.querySelectorAll("#spectrum circle[tabindex]").length;
  const select = document.querySelector("#interactive select");
  select.value = select.options[select.options.length - 1].value;
  select.dispatchEvent(new Event("change"));
  found.other = [...document.querySelectorAll("canvas")].map((c) => Number(c.dataset.faces));
  const canvas = document.querySelector("canvas"), before = canvas.toDataURL();
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
  found.turned = before !== canvas.toDataURL();
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>"""
CATCH = """<script>window.errors = [];
window.addEventListener("error", (e) => window.errors.push(String(e.message)), true);
</script>"""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Manifest:
    """A study whose figures are small pictures of the right names."""
    tasks = {"egnn": CLOUDS["egnn"], "gotennet-mu": MOLECULES["gotennet-mu"]}
    made = write_study(tmp_path_factory.mktemp("study"), tasks, seeds=3)
    write_tables(made, made.results / "tables")
    (made.results / "figures").mkdir()
    for page in pages(made).values():
        for stem in page.outputs(made):
            mpl.image.imsave(made.results / "figures" / f"{stem}.png", [[0.0, 1.0], [1.0, 0.0]])
    write_index(made, made.results / "index.html")
    return made


def visit(page: Path, folder: Path, width: int) -> tuple[dict, str]:
    """What the probe found in a window of this width, and the browser's own messages."""
    text = page.read_text(encoding="utf-8")
    text = text.replace("<head>", f"<head>{CATCH}", 1).replace("</body>", f"{PROBE}</body>")
    copy = folder / f"probe{width}.html"
    copy.write_text(text, encoding="utf-8")
    return probed(copy, folder / "profile", width, 5000)


@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_works_offline_at_phone_and_desktop_width(study, tmp_path, width):
    found, messages = visit(study.results / "index.html", tmp_path, width)
    assert found["errors"] == []
    assert "CONSOLE" not in messages, messages[-2000:]
    assert found["images"] == sum(len(page.outputs(study)) for page in pages(study).values())
    assert (found["broken"], found["unnamed"], found["foreign"]) == (0, 0, 0)
    assert found["overflow"] <= 0  # nothing runs off the window; wide tables scroll by themselves
    assert found["text"] >= 16
    numbers = [float(cell.split(" ")[0]) for cell in found["rising"]]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) > 2
    assert [float(cell.split(" ")[0]) for cell in found["falling"]] == numbers[::-1]
    assert found["sort"] == "descending"
    assert len(found["faces"]) == len(found["other"]) == 2
    assert min(found["faces"] + found["other"]) > 50
    assert found["circles"] == 20
    assert found["turned"]
