"""The manifest: which products a report reads, where they are, and what it makes of them.

A rule writes the manifest (``<results>/report.json``) from the study's configuration; every table
and notebook gets its path and nothing else of the configuration. The module imports only the
standard library and :mod:`equiscape.io`, so a Snakefile can ask it for a notebook's inputs and
figures at no cost.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equiscape.errors import ConfigError, DataError
from equiscape.io import read_json, write_json

FORMAT = 1
MOLECULES = ("qm9", "zinc", "peptides-func", "molecules-generated")
"""Kinds of data whose tasks stand in the table ``molecules``."""


@dataclass(frozen=True)
class Manifest:
    """The study as a report sees it.

    Attributes:
        results: root of the products.
        tasks: name -> ``{architecture, dataset, kind, target, corruptions}``, in the order of the
            configuration; ``corruptions`` is ``None``, ``"generated"`` or ``"published"``.
        optimizers: name -> ``{class}``, in the order of the configuration, which also orders the
            colours.
        seeds: of the final cells.
        baseline: the optimizer that gains and ratios are taken against.
        reference: folder of the published figures.
    """

    results: Path
    tasks: dict[str, dict[str, Any]]
    optimizers: dict[str, dict[str, Any]]
    seeds: list[int]
    baseline: str
    reference: Path = field(default=Path("workflow/reference"))

    @classmethod
    def from_study(cls, study: Any, results: str | Path, reference: str | Path) -> "Manifest":
        """The manifest of an :class:`equiscape.study.Study` whose products are in ``results``."""
        tasks = {}
        for name, entry in study.tasks.items():
            dataset = study.datasets[entry["dataset"]]
            corruptions = dataset.get("corruptions")
            if corruptions:
                corruptions = "generated" if corruptions["source"] == "generated" else "published"
            tasks[name] = {
                "architecture": entry["architecture"],
                "dataset": entry["dataset"],
                "kind": dataset["kind"],
                "target": entry.get("target"),
                "corruptions": corruptions or None,
            }
        optimizers = {name: {"class": entry["class"]} for name, entry in study.optimizers.items()}
        return cls(
            results=Path(results),
            tasks=tasks,
            optimizers=optimizers,
            seeds=list(study.seeds),
            baseline=study.config["report"]["baseline"] or next(iter(optimizers)),
            reference=Path(reference),
        )

    @classmethod
    def read(cls, path: str | Path) -> "Manifest":
        """Read what :meth:`write` wrote.

        Raises:
            DataError: the file is absent, damaged, or of another format.
        """
        data = read_json(path)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise DataError(f"{path} is not a report manifest; delete it and rerun its rule.")
        try:
            return cls.from_dict(data)
        except KeyError as error:
            raise DataError(f"{path} has no {error}; delete it and rerun its rule.") from None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Manifest":
        """The inverse of :meth:`to_dict`."""
        if data["baseline"] not in data["optimizers"]:
            raise ConfigError(
                f"report.baseline: {data['baseline']!r} is not an optimizer of this study; "
                f"name one of {', '.join(data['optimizers'])}."
            )
        return cls(
            results=Path(data["results"]),
            tasks=data["tasks"],
            optimizers=data["optimizers"],
            seeds=data["seeds"],
            baseline=data["baseline"],
            reference=Path(data["reference"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return {
            "format": FORMAT,
            "results": str(self.results),
            "reference": str(self.reference),
            "baseline": self.baseline,
            "seeds": self.seeds,
            "optimizers": self.optimizers,
            "tasks": self.tasks,
        }

    def write(self, path: str | Path) -> None:
        """Write it as JSON, atomically."""
        write_json(path, self.to_dict())

    @property
    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every (task, optimizer), tasks first."""
        return ((task, optimizer) for task in self.tasks for optimizer in self.optimizers)

    @property
    def robust_tasks(self) -> list[str]:
        """Tasks whose data set has corrupted test clouds."""
        return [name for name, task in self.tasks.items() if task.get("corruptions")]

    @property
    def molecular_tasks(self) -> list[str]:
        """Tasks on molecules or graphs."""
        return [name for name, task in self.tasks.items() if task["kind"] in MOLECULES]

    # Paths of the products, as the design lays them out.

    def final(self, task: str, optimizer: str, seed: int, file: str = "metrics.json") -> Path:
        """A file of a final cell."""
        return self.results / "final" / f"{task}_{optimizer}" / f"seed{seed}" / file

    def selection(self, task: str, optimizer: str) -> Path:
        """The chosen learning rate and weight decay, with the whole grid."""
        return self.results / "selection" / f"{task}_{optimizer}.json"

    def representative(self, task: str, optimizer: str) -> Path:
        """The seed that the analyses run on."""
        return self.results / "representative" / f"{task}_{optimizer}.json"

    def hessian(self, task: str, optimizer: str) -> Path:
        """Eigenvalues and trace at the representative."""
        return self.results / "hessian" / f"{task}_{optimizer}.json"

    def slice(self, task: str, optimizer: str) -> Path:
        """The loss on a plane through the representative."""
        return self.results / "slice" / f"{task}_{optimizer}.h5"

    def rank(self, task: str, optimizer: str) -> Path:
        """Stable and effective ranks at the representative."""
        return self.results / "rank" / f"{task}_{optimizer}.csv"

    def robustness(self, task: str, optimizer: str) -> Path:
        """Accuracy on corrupted test clouds."""
        return self.results / "robustness" / f"{task}_{optimizer}.csv"

    def finals(self, file: str = "metrics.json") -> list[Path]:
        """``file`` of every final cell."""
        return [self.final(t, o, s, file) for t, o in self.pairs for s in self.seeds]

    def every(self, product: Callable[[str, str], Path], tasks: list | None = None) -> list[Path]:
        """One product of every pair, e.g. ``manifest.every(manifest.hessian)``."""
        return [product(t, o) for t, o in self.pairs if tasks is None or t in tasks]


def tables(manifest: Manifest) -> list[str]:
    """Stems of the tables that :func:`equiscape.report.tables.write_tables` makes of a study."""
    names = ["accuracy", "hessian", "rank", "rank_summary"]
    if manifest.robust_tasks:
        names.append("robustness")
    if manifest.molecular_tasks:
        names.append("molecules")
    return names


def table_inputs(manifest: Manifest) -> list[Path]:
    """Every product that the tables read."""
    return [
        *manifest.finals(),
        *manifest.every(manifest.hessian),
        *manifest.every(manifest.rank),
        *manifest.every(manifest.robustness, manifest.robust_tasks),
    ]


def notebooks(manifest: Manifest) -> list[str]:
    """The notebooks that have something to show for this study."""
    names = ["accuracy", "learning", "hessian", "slice", "rank"]
    if manifest.robust_tasks:
        names.append("robustness")
    if manifest.molecular_tasks:
        names.append("molecules")
    return names


def notebook_inputs(manifest: Manifest, notebook: str) -> list[Path]:
    """The products that a notebook reads, beside the manifest and the published figures."""
    return {
        "accuracy": lambda: [*manifest.finals(), *manifest.every(manifest.selection)],
        "learning": lambda: [*manifest.finals(), *manifest.finals("history.csv")],
        "hessian": lambda: manifest.every(manifest.hessian),
        "slice": lambda: manifest.every(manifest.slice),
        "rank": lambda: manifest.every(manifest.rank),
        "robustness": lambda: [
            *manifest.finals(),
            *manifest.every(manifest.robustness, manifest.robust_tasks),
        ],
        "molecules": lambda: manifest.finals(),  # its table is a part of the accuracy table
    }[notebook]()


def notebook_figures(manifest: Manifest, notebook: str) -> list[str]:
    """Stems of the figures that a notebook writes, each as ``.pdf`` and ``.png``."""
    return {
        "accuracy": ["accuracy", "selection"],
        "learning": ["learning_score", "learning_loss"],
        "hessian": ["hessian", "spectrum"],
        "slice": ["cuts", *(f"slice_{task}" for task in manifest.tasks)],
        "rank": ["rank", *(f"rank_{task}" for task in manifest.tasks)],
        "robustness": ["robustness", "robustness_severity"],
        "molecules": ["molecules"],
    }[notebook]


CATEGORIES = {
    "accuracy": "Accuracy",
    "learning": "Accuracy",
    "hessian": "Landscape",
    "slice": "Landscape",
    "rank": "Spectra",
    "robustness": "Robustness",
    "molecules": "Molecules",
}
"""Notebook -> where its figures stand in ``snakemake --report``."""


def figure_entry(notebook: str, figure: str) -> dict[str, Any]:
    """How ``snakemake --report`` lists a figure: caption (a file's stem), category and labels."""
    stem, _, task = figure.partition("_")
    per_task = notebook in ("slice", "rank") and bool(task)
    caption = figure
    if per_task:
        caption = {"slice": "slice", "rank": "rank_layers"}[notebook]
    return {
        "caption": caption,
        "category": CATEGORIES[notebook],
        "labels": {
            "figure": (stem if per_task else figure).replace("_", " "),
            "task": task if per_task else "all",
        },
    }
