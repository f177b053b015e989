"""What a page of the report declares about itself: the products it reads and what it makes.

A page is a module of :mod:`equiscape.report.pages` with an assignment ``PAGE = Page(...)`` of
literals. :func:`declared` reads it from the source, so that a Snakefile can ask for a page's inputs
and outputs without importing pandas or matplotlib.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from equiscape.errors import ConfigError
from equiscape.report.manifest import Manifest

PER_TASK = "_{task}"


@dataclass(frozen=True)
class Page:
    """A page of the report: one notebook, the tables and figures that belong to it.

    Attributes:
        title: heading of the page.
        category: where its figures stand in ``snakemake --report`` and in the study's page.
        reads: what it reads: ``"metrics"``, ``"history"`` and ``"selection"`` of the training
            cells, or the name of an analysis. A page is made where the study has all of them.
        tables: stem of a table -> its caption.
        figures: stem of a figure -> its caption; a stem that ends in ``_{task}`` stands for one
            figure per task.
        tasks: ``"all"``, ``"classes"`` (of clouds), ``"molecular"`` (molecules and graphs) or
            ``"robust"`` (with corrupted test clouds); a page without any such task is not made.
        collects: whether it also reads what the other pages with tables read, where they are made.
        varied: whether it is made only where a class of optimizers stands with several settings.
    """

    title: str
    category: str
    reads: tuple[str, ...]
    tables: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    tasks: str = "all"
    collects: bool = False
    varied: bool = False

    def is_made(self, manifest: Manifest) -> bool:
        """Whether the study has what the page reads."""
        if self.varied and not manifest.varied:
            return False
        return bool(self.chosen_tasks(manifest)) and all(manifest.has(name) for name in self.reads)

    def chosen_tasks(self, manifest: Manifest) -> list[str]:
        """The tasks that the page is about, of those that all analyses that it reads have."""
        manifest = manifest.only(*self.reads)
        if self.tasks == "molecular":
            return manifest.molecular_tasks
        if self.tasks == "classes":
            return manifest.class_tasks
        return manifest.robust_tasks if self.tasks == "robust" else list(manifest.tasks)

    def inputs(self, manifest: Manifest) -> list[Path]:
        """Every product that the page's tables and figures read."""
        return [path for name in self.reads for path in manifest.products(name)]

    def outputs(self, manifest: Manifest) -> dict[str, dict[str, Any]]:
        """Stem of every figure -> ``{caption, category, labels}`` as ``report()`` takes them."""
        entries = {}
        for stem, caption in self.figures.items():
            kind = stem.removesuffix(PER_TASK)
            tasks = self.chosen_tasks(manifest) if stem.endswith(PER_TASK) else ["all"]
            for task in tasks:
                entries[stem.replace("{task}", task)] = {
                    "caption": caption,
                    "category": self.category,
                    "labels": {"figure": kind.replace("_", " "), "task": task},
                }
        return entries


def declared(module: str) -> Page:
    """The page that ``module`` declares, read from its source without importing it.

    Raises:
        ConfigError: the module does not exist, or has no ``PAGE = Page(...)`` of literals.
    """
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.origin:
        raise ConfigError(f"the report's page {module} cannot be imported; correct its path.")
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and any(isinstance(name, ast.Name) and name.id == "PAGE" for name in node.targets)
            and isinstance(node.value, ast.Call)
        ):
            try:
                return Page(**{str(k.arg): ast.literal_eval(k.value) for k in node.value.keywords})
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"PAGE of {module} is not Page(...) of literals ({error}); see {__name__}."
                ) from None
    raise ConfigError(f"{module} has no PAGE = Page(...); see {__name__}.")
