"""The registry of the report's pages; it imports neither pandas nor matplotlib.

A new analysis adds a module with its ``PAGE``, a notebook of the same name in
``workflow/notebooks``, and a line here.
"""

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from equiscape.report.manifest import Manifest
from equiscape.report.page import Page, declared

PAGES = {
    "accuracy": "equiscape.report.pages.accuracy",
    "classes": "equiscape.report.pages.classes",
    "claims": "equiscape.report.pages.claims",
    "statistics": "equiscape.report.pages.statistics",
    "selection": "equiscape.report.pages.selection",
    "learning": "equiscape.report.pages.learning",
    "hessian": "equiscape.report.pages.hessian",
    "spectrum": "equiscape.report.pages.spectrum",
    "slice": "equiscape.report.pages.slice",
    "connectivity": "equiscape.report.pages.connectivity",
    "rank": "equiscape.report.pages.rank",
    "interventions": "equiscape.report.pages.interventions",
    "settings": "equiscape.report.pages.settings",
    "robustness": "equiscape.report.pages.robustness",
    "molecules": "equiscape.report.pages.molecules",
    "dynamics": "equiscape.report.pages.dynamics",
    "sharpness": "equiscape.report.pages.sharpness",
    "permutations": "equiscape.report.pages.permutations",
    "representation_paths": "equiscape.report.pages.representation_paths",
    "symmetry": "equiscape.report.pages.symmetry",
}
"""Name of a page and of its notebook -> its module."""

declaration = lru_cache(declared)


def pages(manifest: Manifest) -> dict[str, Page]:
    """The pages that have something to show for this study, by name."""
    known = {name: declaration(module) for name, module in PAGES.items()}
    return {name: page for name, page in known.items() if page.is_made(manifest)}


def tables(manifest: Manifest) -> dict[str, str]:
    """Stem of every table of the study -> its caption."""
    return {
        stem: caption for page in pages(manifest).values() for stem, caption in page.tables.items()
    }


def inputs(manifest: Manifest, name: str) -> list[Path]:
    """Every product that the page ``name`` reads, each once."""
    page = pages(manifest)[name]
    return table_inputs(manifest) if page.collects else page.inputs(manifest)


def table_inputs(manifest: Manifest) -> list[Path]:
    """Every product that a table of the study is made from, each once."""
    made = [page for page in pages(manifest).values() if page.tables]
    return list(dict.fromkeys(path for page in made for path in page.inputs(manifest)))


def module(name: str) -> Any:
    """The module of the page ``name``: its functions load, tabulate, describe and draw."""
    return import_module(PAGES[name])
