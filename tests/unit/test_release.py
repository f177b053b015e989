"""One version, said once."""

import re
from pathlib import Path

import yaml

import equiscape

ROOT = Path(__file__).resolve().parents[2]


def test_the_citation_names_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == equiscape.__version__


def test_the_changelog_has_the_released_version_after_what_is_unreleased():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(equiscape.__version__)} - \d{{4}}-\d\d-\d\d", headings[1])


def test_the_package_takes_its_version_from_the_library():
    project = (ROOT / "pyproject.toml").read_text()
    assert 'version = { attr = "equiscape.__version__" }' in project
    assert not re.search(r'^version = "', project, re.M)
