"""A study is a configuration: this module checks it and answers what the rules ask of it.

It is imported by every Snakemake process, so it imports neither torch nor numpy.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from equiscape.analyses import ANALYSES, Analysis, plugin_analysis, plugin_source
from equiscape.data import CORRUPTED_FILES, KINDS, VERSIONS, reads
from equiscape.data import declared as declared_of_kind
from equiscape.errors import ConfigError
from equiscape.files.archives import files_below
from equiscape.models import ARCHITECTURES
from equiscape.optim import OPTIMIZERS, TORCH_SETTINGS
from equiscape.optim.schedules import read_schedule
from equiscape.registry import class_constant, declared_settings, module_source, unknown
from equiscape.settings import check
from equiscape.training import CONSTRAINTS, RECORDERS

EXECUTION_SETTINGS = {"resume_seconds": 300, "micro_batch": None}  # and their defaults
GIVEN = frozenset({"params", "lr", "weight_decay", "num_outputs"})  # arguments, not settings
NUMBER = re.compile(r"[0-9.eE+-]+")  # what a wildcard for lr or wd matches
GENERATED = "generated"  # a `source` of corruptions
PYG = "pyg"  # a `source` that leaves the download to PyTorch Geometric


def spell(value: str | float) -> str:
    """A grid value as it stands in a path: a string stays as the configuration spells it."""
    return value if isinstance(value, str) else repr(value)


def check_schema(config: Mapping, schema: Mapping) -> None:
    """Check ``config`` against a JSON ``schema``.

    Raises:
        ConfigError: one sentence about the most relevant fault, naming the key.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    for name in ANALYSES:
        if name in config:
            raise ConfigError(
                f"{name}: the settings of analyses stand in one map; move it to analyses.{name}."
            )
    error = best_match(Draft202012Validator(schema).iter_errors(config))
    if error is None:
        return
    key = ".".join(str(part) for part in error.absolute_path) or "the configuration"
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        raise ConfigError(f"{key}: {missing!r} is missing; give it.")
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        extra = [name for name in error.instance if name not in known]
        raise unknown(str(extra[0]), known, key)
    remedy = error.schema.get("description", "")
    remedy = f" ({remedy.rstrip('.')})" if remedy else ""
    raise ConfigError(f"{key}: {error.message}{remedy}.")


def check_settings(settings: Mapping | None, known: frozenset[str] | None, key: str) -> None:
    """Refuse a setting under ``key`` that is not ``known`` (None: not known before it is built)."""
    for name in settings or {}:
        if known is not None and name not in known - GIVEN:
            raise unknown(name, known - GIVEN, key)


def merge(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Maps laid over each other, maps within them too; a later null or value replaces."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in (layer or {}).items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge(merged[key], value) if both else deepcopy(value)
    return merged


class Study:
    """The checked configuration, and everything that the rules derive from it.

    Args:
        config: validated against ``workflow/schemas/config.schema.yaml``, defaults filled in.
        root: the folder that relative local sources are relative to.

    Raises:
        ConfigError: a key refers to something that does not exist; the message names it.
    """

    def __init__(self, config: Mapping[str, Any], root: str | Path = "."):
        self.config = config
        self.root = Path(root)
        self.tasks: dict[str, dict] = dict(config["tasks"])
        self.optimizers: dict[str, dict] = dict(config["optimizers"])
        self.datasets: dict[str, dict] = dict(config["datasets"])
        self.plugins = [str(self.root / folder) for folder in config.get("plugins") or []]
        self.analyses: dict[str, Analysis] = {
            name: self._registered(name, entry or {}) for name, entry in config["analyses"].items()
        }
        self._check()

    def _registered(self, name: str, entry: Mapping) -> Analysis:
        """The registry's line of an analysis, or that of the plug-in its ``module`` names."""
        if "module" in entry:
            return plugin_analysis(entry["module"], self.plugins, f"analyses.{name}.module")
        if name not in ANALYSES:
            raise unknown(name, ANALYSES, "analyses")
        return ANALYSES[name]

    def _check(self) -> None:
        for name, entry in self.datasets.items():
            key = f"datasets.{name}"
            if entry["kind"] not in KINDS:
                raise unknown(entry["kind"], KINDS, f"{key}.kind")
            embedded = declared_of_kind(entry["kind"], "EMBEDDED", False)
            if not embedded and not entry.get("source"):
                raise ConfigError(
                    f"{key}.source is missing; give a URL, an archive or a folder "
                    f"for data of kind {entry['kind']!r}."
                )
            for corrupted, where in ((False, key), (True, f"{key}.corruptions")):
                path = self.local_source(name, corrupted)
                if path is not None and not path.exists():
                    raise ConfigError(
                        f"{where}.source: {path} does not exist; "
                        "give a URL, an archive or a folder."
                    )
        for name, entry in self.tasks.items():
            self._check_task(name, entry)
        for name, entry in self.optimizers.items():
            self._check_optimizer(name, entry)
        baseline = self.config["report"]["baseline"]
        if baseline is not None and baseline not in self.optimizers:
            raise unknown(baseline, self.optimizers, "report.baseline")

    def _check_task(self, name: str, entry: Mapping) -> None:
        if entry["architecture"] not in ARCHITECTURES:
            raise unknown(entry["architecture"], ARCHITECTURES, f"tasks.{name}.architecture")
        if entry["dataset"] not in self.datasets:
            raise unknown(entry["dataset"], self.datasets, f"tasks.{name}.dataset")
        dataset = self.datasets[entry["dataset"]]
        if dataset.get("corruptions") and "points" in (entry.get("data") or {}):
            raise ConfigError(
                f"tasks.{name}.data.points: the corrupted clouds have the points of the data set; "
                f"set datasets.{entry['dataset']}.points."
            )
        known = declared_settings(ARCHITECTURES[entry["architecture"]])
        check_settings(entry.get("model"), known, f"tasks.{name}.model")
        for grid, optimizer in itertools.product((False, True), (None, *self.optimizers)):
            training = self.task_settings(name, grid=grid, optimizer=optimizer)["training"]
            where = "selection.training" if grid else "training"
            if optimizer is not None and not self.optimizers[optimizer].get("training"):
                continue
            where = where if optimizer is None else f"optimizers.{optimizer}.training"
            own = {k: v for k, v in training.items() if k != "augmentation"}
            own |= {} if grid else {"snapshots": self.snapshots(name)}
            check(own, "equiscape.training.settings:Settings", where)
            read_schedule(training.get("schedule"), training["epochs"], f"{where}.schedule")
            for key, known in (("recorders", RECORDERS), ("constraints", CONSTRAINTS)):
                for entry in training.get(key) or []:
                    given = entry if isinstance(entry, str) else entry.get("name", "")
                    if given not in known and ":" not in given:
                        raise unknown(given, known, f"{where}.{key}")

    def _check_optimizer(self, name: str, entry: Mapping) -> None:
        key = f"optimizers.{name}"
        self._check_class(key, entry)
        for own in ("snapshots", *EXECUTION_SETTINGS):
            if own in (entry.get("training") or {}):
                raise ConfigError(
                    f"{key}.training.{own}: is of all optimizers; set training.{own}."
                )
        for source in self.ranks_of(name):
            where = f"{key}.training.constraints"
            if source not in self.optimizers:
                raise unknown(source, self.optimizers, f"{where}: ranks_of")
            if self.ranks_of(source):
                raise ConfigError(
                    f"{where}: {source!r} is itself held to ranks; name an optimizer that is free."
                )
            if "rank" not in self.analyses:
                raise ConfigError(f"{where}: ranks_of needs the analysis rank; add analyses.rank.")
        for value in ("lr", "wd"):
            self._check_grid(f"{key}.grid.{value}", entry["grid"][value], zero=value == "wd")

    def _check_class(self, key: str, entry: Any) -> None:
        """A class of optimizer and its settings, the entries among them included."""
        if not isinstance(entry, Mapping) or "class" not in entry:
            raise ConfigError(f"{key}.class is missing; give one of: {', '.join(OPTIMIZERS)}.")
        if entry["class"] not in OPTIMIZERS:
            raise unknown(entry["class"], OPTIMIZERS, f"{key}.class")
        target, settings = OPTIMIZERS[entry["class"]], entry.get("settings") or {}
        known = declared_settings(target) or TORCH_SETTINGS.get(entry["class"])
        check_settings(settings, known, f"{key}.settings")
        module, _, name = target.partition(":")
        own = module.startswith("equiscape.")
        for nested in class_constant(module_source(module), name, "NESTED", ()) if own else ():
            self._check_class(f"{key}.settings.{nested}", settings.get(nested))

    @staticmethod
    def _check_grid(key: str, values: list, zero: bool) -> None:
        """Refuse what is no number, negative, or there twice."""
        seen: dict[float, str] = {}
        for spelled in map(spell, values):
            try:
                number = float(spelled)
            except ValueError:
                number = None
            if number is None or (number == number and not NUMBER.fullmatch(spelled)):
                raise ConfigError(f"{key}: {spelled!r} is not a number such as 1e-3.")
            if not 0 <= number < float("inf") or (number == 0 and not zero):
                sign = "zero or positive" if zero else "positive"
                raise ConfigError(f"{key}: {spelled} must be {sign}.")
            if number in seen:
                raise ConfigError(f"{key}: {seen[number]} and {spelled} are the same; keep one.")
            seen[number] = spelled

    def check_target(self, target: str) -> None:
        """Refuse a requested file of a task or an optimizer that the study does not have.

        Raises:
            ConfigError: naming it, where Snakemake would say only that no rule makes the file.
        """
        folders = "|".join(["grid", "final", "selection", "representative", *self.analyses])
        match = re.search(rf"(?:^|/)(?:{folders})/([^/_]+)_([^/]+?)(?:/|\.\w+$|$)", target)
        if match is None:
            return
        if match[1] not in self.tasks:
            raise unknown(match[1], self.tasks, f"the task of {target}")
        if match[2].removesuffix(".choice") not in self.optimizers:
            raise unknown(match[2], self.optimizers, f"the optimizer of {target}")

    def _source(self, dataset: str, corrupted: bool) -> str:
        """The source of a data set, or of its corrupted clouds."""
        entry = self.datasets[dataset]
        entry = entry.get("corruptions") or {} if corrupted else entry
        source = entry.get("source") or ""
        return "" if source == GENERATED else source

    def local_source(self, dataset: str, corrupted: bool = False) -> Path | None:
        """The path of a local source; None for a URL and for embedded or generated data."""
        source = self._source(dataset, corrupted)
        if not source or self.is_remote(dataset, corrupted):
            return None
        return self.root / Path(source).expanduser()

    def is_remote(self, dataset: str, corrupted: bool = False) -> bool:
        """Whether the data set, or its corrupted clouds, must be downloaded."""
        source = self._source(dataset, corrupted)
        return "://" in source or source == PYG

    def local_files(self, dataset: str, corrupted: bool = False) -> list[Path]:
        """The files of a local source that its kind reads: the archive, or some of the folder's."""
        path = self.local_source(dataset, corrupted)
        if path is None or path.is_file():
            return [] if path is None else [path]
        kind = self.datasets[dataset]["kind"]
        patterns = CORRUPTED_FILES if corrupted else declared_of_kind(kind, "FILES", ("**/*",))
        return [path / file for file in files_below(path) if reads(patterns, file)]

    def download_settings(self, dataset: str, corrupted: bool = False) -> dict:
        """What a download depends on."""
        entry = self.datasets[dataset]
        entry = {"kind": entry["kind"], **entry["corruptions"]} if corrupted else entry
        return {k: entry[k] for k in ("kind", "source", "mirrors", "sha256") if entry.get(k)}

    def corruption_settings(self, dataset: str) -> dict:
        """All that the corrupted clouds depend on beside the data they are made from."""
        entry = self.datasets[dataset]
        chosen = {k: v for k, v in entry["corruptions"].items() if k != "mirrors"}
        if chosen["source"] == GENERATED:
            return {"points": entry.get("points"), "corruptions": chosen}
        chosen = {k: v for k, v in chosen.items() if k in ("names", "severities", "sha256")}
        return {"corruptions": {**chosen, "source": "published"}}

    def grid(self, optimizer: str) -> Iterator[tuple[str, str, int]]:
        """(lr, wd, seed) of every grid cell, spelled as in the configuration."""
        grid = self.optimizers[optimizer]["grid"]
        seeds = self.config["selection"]["seeds"]
        return itertools.product(map(spell, grid["lr"]), map(spell, grid["wd"]), seeds)

    @property
    def seeds(self) -> list[int]:
        """The seeds of the final cells."""
        return list(self.config["final"]["seeds"])

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every (task, optimizer)."""
        return list(itertools.product(self.tasks, self.optimizers))

    def dataset_of(self, task: str) -> str:
        """The name of the task's data set."""
        return self.tasks[task]["dataset"]

    def dataset_settings(self, dataset: str) -> dict:
        """What loading depends on; where the bytes lie does not change what they are."""
        skip = {"source", "mirrors", "sha256", "expect", "corruptions", "least_speed"}
        return {k: v for k, v in self.datasets[dataset].items() if k not in skip}

    def preparation_version(self, dataset: str) -> int:
        """Version of the data set's preparation; raising it prepares its kind anew."""
        return VERSIONS[self.datasets[dataset]["kind"]]

    def preparation_settings(self, dataset: str) -> dict:
        """What preparation depends on, so that a loader's setting does not prepare anew."""
        kind = self.datasets[dataset]["kind"]
        skip = {"source", "mirrors", "corruptions", "least_speed"}
        skip |= {*declared_of_kind(kind, "LOADER", ())}
        return {k: v for k, v in self.datasets[dataset].items() if k not in skip}

    def task_settings(self, task: str, *, grid: bool = False, optimizer: str | None = None) -> dict:
        """What a training cell depends on: the task, the study's training settings under its own.

        ``grid`` adds ``selection.training``, which lets grid cells be cheaper than final ones, and
        ``optimizer`` the training settings of its own entry. What only says how a cell is executed,
        or how it is analysed, is left out.
        """
        entry = {k: v for k, v in self.tasks[task].items() if k not in ("analyses", "resources")}
        training = merge(
            self._training(task),
            self.config["selection"].get("training") if grid else {},
            self.optimizers[optimizer].get("training") if optimizer else {},
        )
        left_out = {*EXECUTION_SETTINGS, "snapshots"}  # which are outputs, see snapshot_lists
        entry["training"] = {k: v for k, v in training.items() if k not in left_out}
        return entry

    def ranks_of(self, optimizer: str) -> list[str]:
        """The optimizers whose ranks the constraints of this one's cells take."""
        training = self.optimizers[optimizer].get("training") or {}
        entries = [e for e in training.get("constraints") or [] if isinstance(e, Mapping)]
        return [entry["ranks_of"] for entry in entries if entry.get("ranks_of")]

    def snapshots(self, task: str) -> list[int]:
        """The epochs after which the task's final cells keep their weights, ascending."""
        return sorted(self._training(task).get("snapshots") or [])

    def snapshot_lists(self) -> list[tuple[list[int], list[str]]]:
        """Every list of snapshots with the tasks that keep them; those that keep none first."""
        lists: dict[tuple[int, ...], list[str]] = {}
        for task in self.tasks:
            lists.setdefault(tuple(self.snapshots(task)), []).append(task)
        return [(list(epochs), tasks) for epochs, tasks in sorted(lists.items())]

    def analysis_task_settings(self, task: str) -> dict:
        """What an analysis needs of its task; of the training, nothing but the batch size."""
        entry = self.task_settings(task)
        entry["training"] = {"batch_size": entry["training"].get("batch_size", 32)}
        return entry

    def execution(self, task: str, setting: str) -> Any:
        """How a cell is executed, which does not change its result: see EXECUTION_SETTINGS."""
        return self._training(task).get(setting, EXECUTION_SETTINGS[setting])

    def _training(self, task: str) -> dict:
        return merge(self.config["training"], self.tasks[task].get("training"))

    def optimizer_settings(self, optimizer: str) -> dict:
        """Class and settings of an optimizer, without its grid: a cell knows its own lr and wd."""
        entry = self.optimizers[optimizer]
        return {"class": entry["class"], "settings": dict(entry.get("settings") or {})}

    def resources(self, task: str) -> dict:
        """The task's ``resources`` (runtime in minutes, mem_mb)."""
        return dict(self.tasks[task].get("resources") or {})

    def analysis(self, name: str, task: str | None = None) -> dict:
        """What the result of an analysis depends on: its settings, the task's own on top.

        Without ``task`` (an analysis of the whole study), the study's settings alone.
        """
        own = (self.tasks[task].get("analyses") or {}).get(name) if task else None
        merged = merge(self.config["analyses"][name], own)
        skip = {"seeds", "module", *self.analysis_execution(name)}
        return {key: value for key, value in merged.items() if key not in skip}

    def analysis_execution(self, name: str) -> tuple[str, ...]:
        """Settings of an analysis that change its speed or memory alone."""
        return class_constant(self.analysis_source(name), "Settings", "EXECUTION", ())

    def analysis_source(self, name: str) -> Path:
        """The file of an analysis's module."""
        module = self.analyses[name].module
        if module.startswith("equiscape."):
            return module_source(module)
        return plugin_source(module, self.plugins, f"analyses.{name}.module")

    def plugin_files(self, name: str) -> list[Path]:
        """The file of an analysis that a plug-in brings: changing it reruns the analysis."""
        return [] if name in ANALYSES else [self.analysis_source(name)]

    def at_every_seed(self, name: str) -> bool:
        """Whether an analysis of checkpoints runs at every final seed (``seeds: all``)."""
        entry = self.config["analyses"][name] or {}
        return self.analyses[name].over == "representative" and entry.get("seeds") == "all"

    def analyzed_tasks(self, name: str) -> list[str]:
        """Tasks that an analysis has something to measure on."""
        analysis = self.analyses[name]
        tasks = self.robust_tasks if "corrupted" in analysis.inputs else list(self.tasks)
        return [t for t in tasks if analysis.over != "snapshots" or self.snapshots(t)]

    @property
    def optimizer_pairs(self) -> list[tuple[str, str]]:
        """Every two optimizers, and each with itself where there are seeds to compare."""
        names = list(self.optimizers)
        pairs = itertools.combinations_with_replacement(names, 2)
        return [(a, b) for a, b in pairs if a != b or len(self.seeds) > 1]

    @property
    def robust_tasks(self) -> list[str]:
        """Tasks whose data set has corrupted test clouds."""
        return [t for t in self.tasks if self.datasets[self.dataset_of(t)].get("corruptions")]
