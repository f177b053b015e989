"""The documentation, built and opened from its folder in Chromium, without a network."""

import shutil
import subprocess
from pathlib import Path

import pytest
from chromium import probed

ROOT = Path(__file__).resolve().parents[2]

PROBE = """<script>
window.errors = [];
window.addEventListener("error", (e) => window.errors.push(String(e.message)), true);
window.addEventListener("load", () => setTimeout(() => {
  const input = document.querySelector(".md-search__input");
  input.focus();
  input.value = "lanczos";
  input.dispatchEvent(new Event("input", { bubbles: true }));
  input.dispatchEvent(new KeyboardEvent("keyup", { bubbles: true }));
  setTimeout(() => {
    const root = document.documentElement, images = [...document.images];
    const links = [...document.querySelectorAll(".md-search-result__link")];
    const out = document.createElement("pre");
    out.id = "probe";
    out.textContent = JSON.stringify({
      errors: window.errors,
      broken: images.filter((i) => !i.complete || i.naturalWidth === 0).length,
      overflow: root.scrollWidth - root.clientWidth,
      foreign: [...document.querySelectorAll("script[src], link[rel=stylesheet], img")]
        .map((e) => e.src || e.href).filter((u) => !/^(file|data):/.test(u)),
      found: links.map((a) => a.getAttribute("href")),
    });
    document.body.append(out);
  }, 1500);
}, 1000));
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A copy of the site that `make docs` builds."""
    run = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    return Path(shutil.copytree(ROOT / "site", tmp_path_factory.mktemp("docs") / "site"))


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("page", ["index.html", "analyses.html", "api/landscape.html"])
def test_the_site_works_from_its_folder(site, tmp_path, page, width):
    probe = (site / page).with_name("probe.html")
    text = (site / page).read_text(encoding="utf-8")
    probe.write_text(text.replace("<head>", f"<head>{PROBE}", 1), encoding="utf-8")
    seen, messages = probed(probe, tmp_path / "profile", width, 8000)
    assert "CONSOLE" not in messages, messages[-2000:]
    assert (seen["errors"], seen["broken"], seen["foreign"]) == ([], 0, [])
    assert seen["overflow"] <= 0
    assert any("landscape.html" in link for link in seen["found"])  # the search knows the API
