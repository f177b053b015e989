"""The manifest: the study as a report sees it, and where its products are.

A rule writes the manifest (``<results>/report.json``) from the study's configuration; every table
and notebook gets its path and nothing else of the configuration. The module imports only the
standard library and :mod:`equiscape.io`, so a Snakefile can ask it for paths at no cost.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

from equiscape.errors import ConfigError, DataError
from equiscape.io import fitting, read_json, write_json

FORMAT = 3
REFERENCE = Path(__file__).resolve().parents[3] / "reference"
"""The published figures that come with the workflow."""
MOLECULAR = ("molecules", "graphs")
"""Samples whose tasks stand in the table ``molecules``."""
CELL_FILES = {
    "metrics": "metrics.json",
    "history": "history.csv",
    "predictions": "predictions.npz",
}
"""Files of a final cell that a page may read."""


@dataclass(frozen=True)
class Manifest:
    """The study as a report sees it.

    Attributes:
        results: root of the products.
        tasks: name -> ``{architecture, dataset, kind, samples, learns, generated, target,
            corruptions}``, in the order of the configuration; ``samples`` and ``learns`` are what
            the kind of data declares, ``generated`` whether it stands in for real data, and
            ``corruptions`` is ``None``, ``"generated"`` or ``"published"``.
        optimizers: name -> ``{class, settings, training, defaults}``, the latter three where the
            entry has them (defaults: of settings that an optimizer of its class gives), in the
            order of the configuration, which also orders the colors.
        seeds: of the final cells.
        analyses: name -> ``{over, suffix, tasks, seeds}``: what an analysis is made of
            (``representative``, ``final``, ``snapshots``, ``pair``, ``study``), how its files end,
            its tasks, and ``"all"`` where it runs at every final seed.
        baseline: the optimizer that gains and ratios are taken against.
        reference: folder of the published figures.
    """

    results: Path
    tasks: dict[str, dict[str, Any]]
    optimizers: dict[str, dict[str, Any]]
    seeds: list[int]
    analyses: dict[str, dict[str, Any]]
    baseline: str
    reference: Path = REFERENCE
    _listed: dict[str, list[Path]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def from_study(cls, study: Any, results: str | Path, reference: str | Path) -> "Manifest":
        """The manifest of an :class:`equiscape.study.Plan` whose products are in ``results``."""
        tasks = {}
        for name, entry in study.tasks.items():
            dataset = study.datasets[entry["dataset"]]
            corruptions = dataset.get("corruptions")
            if corruptions:
                corruptions = "generated" if corruptions["source"] == "generated" else "published"
            kind = study.kind(entry["dataset"])
            tasks[name] = {
                "architecture": entry["architecture"],
                "dataset": entry["dataset"],
                "kind": kind.name,
                "samples": kind.samples,
                "learns": kind.learns,
                "generated": kind.embedded,
                "target": entry.get("target"),
                "corruptions": corruptions or None,
            }
        optimizers = {
            name: {key: entry[key] for key in ("class", "settings", "training") if entry.get(key)}
            for name, entry in study.optimizers.items()
        }
        for name, entry in optimizers.items():
            given = {key for other in optimizers.values() if other["class"] == entry["class"]
                     for key in other.get("settings", {})}  # fmt: skip
            usual = study.optimizer_defaults(name)
            if given & usual.keys():
                entry["defaults"] = {key: usual[key] for key in usual if key in given}
        return cls(
            results=Path(results),
            tasks=tasks,
            optimizers=optimizers,
            seeds=list(study.seeds),
            analyses=_analyses(study),
            baseline=study.config["report"]["baseline"] or next(iter(optimizers)),
            reference=Path(reference),
        )

    @classmethod
    def read(cls, path: str | Path) -> "Manifest":
        """Read what :meth:`write` wrote; the results are those beside it, wherever it lies now.

        Raises:
            DataError: the file is absent, damaged, or of another format.
        """
        data = read_json(path, "versioned")
        if data["format"] != FORMAT:
            raise DataError(
                f"{path} is of format {data['format']}, and this version of Equiscape reads "
                f"{FORMAT}; make it again with --forcerun manifest, or read it with the version "
                "that wrote it."
            )
        manifest = cls.from_dict(fitting(path, data, "report"))
        here = manifest.reference.is_dir()
        return replace(
            manifest,
            results=Path(path).parent,
            reference=manifest.reference if here else REFERENCE,
        )

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
            analyses=data["analyses"],
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
            "analyses": self.analyses,
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
    def rivals(self) -> list[str]:
        """The optimizers other than the baseline."""
        return [name for name in self.optimizers if name != self.baseline]

    @property
    def varied(self) -> list[str]:
        """Classes of which two optimizers differ in their settings and in nothing else."""
        found: dict[str, list] = {}
        for entry in self.optimizers.values():
            if not entry.get("training"):
                settings = entry.get("settings") or {}
                mine = found.setdefault(entry["class"], [])
                mine += [settings] if settings not in mine else []
        return [name for name, settings in found.items() if len(settings) > 1]

    @property
    def robust_tasks(self) -> list[str]:
        """Tasks whose data set has corrupted test clouds."""
        return [name for name, task in self.tasks.items() if task.get("corruptions")]

    @property
    def class_tasks(self) -> list[str]:
        """Tasks that name the class of a sample."""
        return [name for name, task in self.tasks.items() if task["learns"] == "classes"]

    @property
    def molecular_tasks(self) -> list[str]:
        """Tasks on molecules or graphs."""
        return [name for name, task in self.tasks.items() if task["samples"] in MOLECULAR]

    def only(self, *analyses: str) -> "Manifest":
        """The same study with those of its tasks alone that all of these analyses have.

        Names of no analysis of the study take none away.
        """
        listed = [self.analyses[name]["tasks"] for name in analyses if name in self.analyses]
        chosen = {n: t for n, t in self.tasks.items() if all(n in tasks for tasks in listed)}
        return self if len(chosen) == len(self.tasks) else replace(self, tasks=chosen)

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

    def analysis(self, name: str) -> list["Product"]:
        """Every file of an analysis, tasks first; none where the study does not list it."""
        entry = self.analyses.get(name)
        if entry is None:
            return []
        root, suffix, over = self.results / name, entry["suffix"], entry["over"]
        if over == "study":
            return [Product(root / f"study{suffix}")]
        found = []
        for task in [name for name in self.tasks if name in entry["tasks"]]:
            if over == "pair":
                found += [
                    Product(root / f"{task}_{first}_{second}{suffix}", task, first, second=second)
                    for first, second in combinations_with_replacement(self.optimizers, 2)
                    if first != second or len(self.seeds) > 1
                ]
                continue
            for optimizer in self.optimizers:
                cell = f"{task}_{optimizer}"
                if entry.get("seeds") == "all":
                    found += [
                        Product(root / cell / f"seed{seed}{suffix}", task, optimizer, seed)
                        for seed in self.seeds
                    ]
                else:
                    found.append(Product(root / f"{cell}{suffix}", task, optimizer))
        return found

    def representatives(self, name: str) -> list["Product"]:
        """The files of an analysis at the representatives alone, whatever other seeds it has."""
        return [
            Product(self.results / name / f"{product.path.parent.name}{product.path.suffix}",
                    product.task, product.optimizer)
            if product.seed is not None else product
            for product in self.analysis(name)
            if product.seed in (None, self.seeds[0])
        ]  # fmt: skip

    def has(self, name: str) -> bool:
        """Whether the study has files of one kind, see :meth:`products`."""
        return name in (*CELL_FILES, "selection", "representative") or bool(self.analysis(name))

    def products(self, name: str) -> list[Path]:
        """Every file of one kind: ``metrics``, ``history``, ``selection`` or an analysis.

        Listed once: every Snakemake process asks for the same lists again and again.
        """
        if name not in self._listed:
            self._listed[name] = self._products(name)
        return list(self._listed[name])

    def _products(self, name: str) -> list[Path]:
        if name in CELL_FILES:
            return [
                self.final(t, o, s, CELL_FILES[name]) for t, o in self.pairs for s in self.seeds
            ]
        if name == "selection":
            return [self.selection(task, optimizer) for task, optimizer in self.pairs]
        if name == "representative":
            return [self.representative(task, optimizer) for task, optimizer in self.pairs]
        found = self.analysis(name)
        if self.analyses.get(name, {}).get("seeds") == "all":
            found = [*found, *self.representatives(name)]
        return [product.path for product in found]


@dataclass(frozen=True)
class Product:
    """A file of an analysis and what it was measured on; None where a part does not apply."""

    path: Path
    task: str | None = None
    optimizer: str | None = None
    seed: int | None = None
    second: str | None = None


def _analyses(study: Any) -> dict[str, dict[str, Any]]:
    """The analyses of a study, as the manifest holds them; those without any task are left out."""
    found = {}
    for name, analysis in study.analyses.items():
        tasks = study.analyzed_tasks(name)
        if tasks:
            found[name] = {
                "over": analysis.over,
                "suffix": analysis.suffix,
                "tasks": tasks,
                "seeds": "all" if study.at_every_seed(name) else None,
            }
    return found
