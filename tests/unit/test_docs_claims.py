"""What the pages name is there: links, anchors, targets of make, files, keys, blocks of code."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from equiscape.declarations import declared

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "config/*.md")
    for path in ROOT.glob(pattern)
)
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
FOLDERS = "docs|config|profiles|envs|workflow|tests|benchmarks"
HISTORY = {"CHANGELOG.md", *(path.name for path in ROOT.glob("benchmarks/*.md"))}


def prose(text):
    """A page without its blocks of code."""
    return BLOCK.sub("", text)


def blocks(text, *languages):
    return [code for language, code in BLOCK.findall(text) if language in languages]


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    found = []
    for heading in re.findall(r"^#+ (.*)$", prose(page.read_text()), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.append(re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-"))
    return found


@EVERY_PAGE
def test_links_lead_to_files_and_headings(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", prose(page.read_text())):
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name} links to {target}#{anchor}"


@EVERY_PAGE
def test_targets_of_make_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = page.read_text()
    named = re.findall(r"`make ([a-z][\w-]*)", prose(text))
    for code in blocks(text, "", "bash", "text"):
        named += re.findall(r"^make ([a-z][\w-]*)", code, re.M)
    assert set(named) <= targets


@EVERY_PAGE
def test_blocks_of_code_can_be_read(page):
    text = page.read_text()
    for code in blocks(text, "python"):
        if ">>>" not in code:
            ast.parse(code)
    for code in blocks(text, "yaml"):
        assert yaml.safe_load(code) is not None


@EVERY_PAGE
def test_files_and_modules_that_are_named_exist(page):
    if page.name in HISTORY:
        return  # they tell what was
    text = page.read_text()
    for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", prose(text)):
        assert "NAME" in path or (ROOT / path).exists(), f"{page.name} names {path}"
    for code in blocks(text, "", "bash", "text"):
        for path in re.findall(r"--(?:configfile|profile)[ =]([\w./-]+)", code):
            assert path == "mine.yaml" or (ROOT / path).exists(), f"{page.name} names {path}"
    for module in re.findall(r"python -m (equiscape[\w.]*)", text):
        assert find_spec(module), f"{page.name} names {module}"


@pytest.fixture(scope="module")
def known():
    """Keys of each part of a configuration: of its schema, and of the classes concerned."""
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())

    def properties(entry):
        if "$ref" in entry:
            entry = schema["$defs"][entry["$ref"].rpartition("/")[2]]
        inner = entry.get("additionalProperties")
        return {*entry.get("properties", {}), *(properties(inner) if inner else ())}

    found = {section: properties(entry) for section, entry in schema["properties"].items()}
    found["training"] |= set(declared("equiscape.training.settings:Settings").settings)
    return found


def keys(text):
    """(section, key) of every dotted key of a configuration that a page names."""
    sections = "datasets|tasks|training|optimizers|analyses|selection|final"
    for name in re.findall(rf"`((?:{sections})\.[\w.<>*-]+)(?::[^`]*)?`", prose(text)):
        section, *parts = name.split(".")
        if section in ("datasets", "tasks", "optimizers", "analyses"):
            parts = parts[1:]  # the name of an entry
        if parts and section != "analyses":
            yield section, parts[0], name


@EVERY_PAGE
def test_keys_of_the_configuration_exist(page, known):
    if page.name in HISTORY:
        return
    for section, key, name in keys(page.read_text()):
        assert key in known[section], f"{page.name} names {name}"


def test_the_keys_are_found(known):
    named = {name for page in PAGES for _, _, name in keys(page.read_text())}
    assert {"training.snapshots", "datasets.<name>.source"} <= named
    assert "snapshots" in known["training"]
    assert "source" in known["datasets"]
    assert "snapshot" not in known["training"]


def test_studies_on_the_pages_have_the_sections_of_a_study(known):
    studies = [
        study
        for page in PAGES
        for code in blocks(page.read_text(), "yaml")
        if {"datasets", "tasks"} <= set(study := yaml.safe_load(code))
    ]
    assert len(studies) >= 2
    for study in studies:
        assert set(study) <= set(known)


def test_every_registered_name_is_on_the_page_that_lists_it():
    from equiscape.analyses import ANALYSES
    from equiscape.models import ARCHITECTURES
    from equiscape.optim import OPTIMIZERS
    from equiscape.optim.schedules import SCHEDULES

    readme = (ROOT / "README.md").read_text()
    for registry in (ANALYSES, ARCHITECTURES, OPTIMIZERS, SCHEDULES):
        assert not {name for name in registry if f"`{name}`" not in readme}
    headings = anchors(ROOT / "docs/analyses.md")
    assert not {name for name in ANALYSES if name not in headings}


def test_every_analysis_and_every_figure_is_explained():
    from equiscape.analyses import ANALYSES
    from equiscape.report.pages import PAGES, declaration

    page = (ROOT / "docs/analyses.md").read_text()
    parts = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    for name in ANALYSES:
        assert re.search(r"\*Reading the figure|no figure", parts[name]), name
        assert "*Conclude*" in parts[name], name
        assert "*Do not conclude*" in parts[name], name
        assert re.search(r"^    \S| Σ |\| definition \|", parts[name], re.M), f"{name}: no formula"
    figures = {stem for module in PAGES.values() for stem in declaration(module).figures}
    told = page + (ROOT / "docs/permutations.md").read_text()
    assert not {stem for stem in figures if f"`{stem}`" not in told}
