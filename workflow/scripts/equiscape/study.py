"""A study is a configuration: this module checks it and answers what the rules ask of it.

It is imported by every Snakemake process, so it imports neither torch nor numpy.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from equiscape.analyses import ANALYSES, Analysis, plugin_analysis
from equiscape.configuration import entries, folders, naming
from equiscape.configuration.entries import GENERATED, NUMBER, PYG, spell
from equiscape.configuration.kinds import DICTATED, Kind, kind_of
from equiscape.configuration.representations import check_representations
from equiscape.configuration.schema import check_schema, with_defaults
from equiscape.configuration.training import Training
from equiscape.data import CORRUPTED_FILES, reads
from equiscape.declarations import Declaration, nested
from equiscape.errors import ConfigError
from equiscape.files.archives import files_below
from equiscape.files.tables import files_named
from equiscape.hints import conform, plain
from equiscape.registry import unknown
from equiscape.settings import check, merge
from equiscape.source import plugin_files

__all__ = ["NUMBER", "Plan", "check_schema", "merge", "spell", "with_defaults"]

PATHVARS = ("results", "resources", "logs", "benchmarks")
FOLDERS = ("grid", "final", "selection", "representative", "tables", "notebooks", "figures")
RULES = ("all", "grid", "selections", "final", "analyses", "manifest", "tables", "download")
MORE_RULES = ("prepare", "corrupt", "select", "choose", "representative", "logs", "benchmarks")


class Plan:
    """The checked configuration, and everything that the rules derive from it.

    What the rules get is in canonical form: names in order (of the optimizers the baseline first),
    numbers as their types. So neither the order of keys nor their spelling makes anything stale.

    Args:
        config: validated against ``workflow/schemas/config.schema.yaml``, defaults filled in.
        root: the folder that relative local sources are relative to.

    Raises:
        ConfigError: a key refers to something that does not exist, or a setting is not what its
            class declares; the message names it.
    """

    def __init__(self, config: Mapping[str, Any], root: str | Path = "."):
        self.config = config
        self.root = Path(root)
        self.plugins = [str(self.root / folder) for folder in config.get("plugins") or []]
        self._check_top()
        self.datasets: dict[str, dict] = dict(sorted(config["datasets"].items()))
        self.tasks: dict[str, dict] = dict(sorted(config["tasks"].items()))
        first = config["report"]["baseline"]
        names = sorted(config["optimizers"], key=lambda name: (name != first, name))
        self.optimizers: dict[str, dict] = {name: config["optimizers"][name] for name in names}
        self.analyses: dict[str, Analysis] = {
            name: self._registered(name, entry or {})
            for name, entry in sorted(config["analyses"].items())
        }
        self._kinds: dict[str, Kind] = {}
        self._own: dict[str, dict] = {}
        self._corruptions: dict[str, dict | None] = {}
        self._data: dict[str, dict] = {}
        self._models: dict[str, tuple[Declaration, dict]] = {}
        self._optimizers: dict[str, dict] = {}
        for name, entry in self.datasets.items():
            self._check_dataset(name, entry)
        self.training = Training(config, self.plugins)
        for name, entry in self.tasks.items():
            self._check_task(name, entry)
        for name, entry in self.optimizers.items():
            self._check_optimizer(name, entry)
        for name in self.analyses:
            self._check_analysis(name)

    def _check_top(self) -> None:
        """What belongs to no entry: folders, names, the baseline."""
        folders.check_folders(self.config, PATHVARS, self.root)
        naming.check_lengths(self.config)
        naming.check_names(self.config, {*FOLDERS, *RULES, *MORE_RULES})
        baseline = self.config["report"]["baseline"]
        if baseline is not None and baseline not in self.config["optimizers"]:
            raise unknown(baseline, self.config["optimizers"], "report.baseline")

    def _registered(self, name: str, entry: Mapping) -> Analysis:
        """The registry's line of an analysis, or that of the plug-in its ``module`` names."""
        if "module" in entry:
            module = conform(entry["module"], str, f"analyses.{name}.module")
            return plugin_analysis(module, self.plugins, f"analyses.{name}.module")
        if name not in ANALYSES:
            raise unknown(name, ANALYSES, "analyses")
        return ANALYSES[name]

    def _check_dataset(self, name: str, entry: Mapping) -> None:
        key = f"datasets.{name}"
        kind = self._kinds[name] = kind_of(entry["kind"], f"{key}.kind", self.plugins)
        entries.check_source(entry, kind, key, self.local_source(name))
        self._own[name] = entries.own_settings(entry, kind, key, self.plugins)
        self._corruptions[name] = entries.corruption_entry(
            entry, kind, f"{key}.corruptions", self.local_source(name, corrupted=True)
        )

    def _check_task(self, name: str, entry: Mapping) -> None:
        key = f"tasks.{name}"
        if entry["dataset"] not in self.datasets:
            raise unknown(entry["dataset"], self.datasets, f"{key}.dataset")
        dataset = entry["dataset"]
        kind = self._kinds[dataset]
        self._data[name] = entries.overrides(entry, kind, key, self.plugins)
        if self._corruptions[dataset] and "points" in self._data[name]:
            raise ConfigError(
                f"{key}.data.points: the corrupted clouds have the points of the data set; "
                f"set datasets.{dataset}.points."
            )
        network = entries.architecture(entry, kind, key, self.plugins, self._own[dataset])
        entries.check_target_of(entry, kind, self._own[dataset], key)
        context = {**kind.settings.defaults(), **self._own[dataset], **self._data[name]}
        model = {}
        for grid, optimizer in itertools.product((False, True), (None, *self.optimizers)):
            if optimizer is not None and not self.optimizers[optimizer].get("training"):
                continue
            settings = self.training.check(name, kind, grid, optimizer)
            model = check(
                entry.get("model"),
                network,
                f"{key}.model",
                arguments=(*(kind.arguments or ("num_outputs",)), *DICTATED),
                context={**context, **settings},
                plugins=self.plugins,
            )
        check_representations(network, model, f"{key}.model", context)
        self._models[name] = network, model

    def _check_optimizer(self, name: str, entry: Mapping) -> None:
        key = f"optimizers.{name}"
        self._optimizers[name] = entries.optimizer_entry(entry, key, self.plugins)
        for own in self.training.shared:
            if own in (entry.get("training") or {}):
                raise ConfigError(
                    f"{key}.training.{own}: is of all optimizers; set training.{own}."
                )
        if sources := self.ranks_of(name):
            free = [other for other in self.optimizers if not self.ranks_of(other)]
            where = f"{key}.training.constraints"
            entries.check_ranks(sources, self.optimizers, free, self.analyses, where)
        for value in ("lr", "wd"):
            entries.check_grid(f"{key}.grid.{value}", entry["grid"][value], zero=value == "wd")

    def _check_analysis(self, name: str) -> None:
        settings = self.analysis_settings(name)
        entry = self.config["analyses"][name] or {}
        entries.check_scope(entry, f"analyses.{name}", self.tasks)
        entries.check_snapshots(name, self.analyses[name].over, self.analyzed_tasks(name))
        layers = [(f"analyses.{name}", {k: v for k, v in entry.items() if k not in entries.SCOPE})]
        for task, given in self.tasks.items():
            for other in given.get("analyses") or {}:
                if other not in self.analyses:
                    raise unknown(other, self.analyses, f"tasks.{task}.analyses")
            own = (given.get("analyses") or {}).get(name)
            if own is not None:
                layers.append((f"tasks.{task}.analyses.{name}", own))
        for i, (key, layer) in enumerate(layers):
            check(layer, settings, key, complete=False)
            merged = merge(layers[0][1], layer) if i else layer
            check(merged, settings, key)

    def analysis_settings(self, name: str) -> Declaration:
        """What the settings of an analysis are."""
        found = nested(self.analyses[name].module, "Settings", self.plugins)
        if found is None:
            raise ConfigError(
                f"analyses.{name}: {self.analyses[name].module} has no Settings; "
                "give it a frozen dataclass of that name."
            )
        return found

    def kind(self, dataset: str) -> Kind:
        """The kind of a data set."""
        return self._kinds[dataset]

    def _source(self, dataset: str, corrupted: bool) -> str:
        """The source of a data set, or of its corrupted clouds."""
        entry = self.datasets[dataset]
        entry = entry.get("corruptions") or {} if corrupted else entry
        source = entry.get("source")
        return source if isinstance(source, str) and source != GENERATED else ""

    def local_source(self, dataset: str, corrupted: bool = False) -> Path | None:
        """The path of a local source; None for a URL and for embedded or generated data."""
        source = self._source(dataset, corrupted)
        if not source or self.is_remote(dataset, corrupted):
            return None
        return self.root / os.path.expanduser(source)

    def is_remote(self, dataset: str, corrupted: bool = False) -> bool:
        """Whether the data set, or its corrupted clouds, must be downloaded."""
        source = self._source(dataset, corrupted)
        return "://" in source or source == PYG

    def local_files(self, dataset: str, corrupted: bool = False) -> list[Path]:
        """The files of a local source that its kind reads.

        An archive, a table and the files that it names, or some of a folder's.
        """
        path = self.local_source(dataset, corrupted)
        if path is None:
            return []
        if path.is_file():
            table = self._kinds[dataset].table if path.suffix.lower() == ".csv" else None
            return [path, *(files_named(path, table) if table and not corrupted else [])]
        patterns = self.patterns(dataset, corrupted)
        return [path / file for file in files_below(path) if reads(patterns, file)]

    def patterns(self, dataset: str, corrupted: bool = False) -> tuple[str, ...]:
        """Of the files that a data set is read from in a folder."""
        return CORRUPTED_FILES if corrupted else self._kinds[dataset].files

    def download_settings(self, dataset: str, corrupted: bool = False) -> dict:
        """What a download depends on."""
        entry = self.datasets[dataset]
        entry = {"kind": entry["kind"], **entry["corruptions"]} if corrupted else entry
        names = ("kind", "source", "mirrors", "sha256")
        return plain({k: entry[k] for k in names if entry.get(k)})

    def least_speed(self, dataset: str) -> int:
        """Bytes a second below which a download is given up; it changes no result."""
        speed = self.datasets[dataset].get("least_speed")
        return 1000 if speed is None else speed

    def corruption_settings(self, dataset: str) -> dict:
        """All that the corrupted clouds depend on beside the data they are made from."""
        chosen = {k: v for k, v in (self._corruptions[dataset] or {}).items() if k != "mirrors"}
        if chosen["source"] == GENERATED:
            return {"points": self._own[dataset].get("points"), "corruptions": chosen}
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
        return {"kind": self.datasets[dataset]["kind"], **self._own[dataset]}

    def preparation_version(self, dataset: str) -> int:
        """Version of the data set's preparation; raising it prepares its kind again."""
        return self._kinds[dataset].version

    def preparation_settings(self, dataset: str) -> dict:
        """What preparation depends on; the settings of the loader are left out."""
        kind, entry = self._kinds[dataset], self.datasets[dataset]
        kept = {k: v for k, v in self._own[dataset].items() if k not in kind.loader}
        checked = {k: entry[k] for k in ("expect", "sha256") if entry.get(k)}
        return plain({"kind": entry["kind"], **kept, **checked})

    def task_settings(self, task: str, *, grid: bool = False, optimizer: str | None = None) -> dict:
        """What a training cell depends on: the task, the study's training settings under its own.

        ``grid`` adds ``selection.training``, which lets grid cells be cheaper than final ones, and
        ``optimizer`` the training settings of its own entry. What only says how a cell is executed,
        or how it is analyzed, is left out, and so are the snapshots, which are outputs.
        """
        entry = self.tasks[task]
        kept = {k: entry[k] for k in ("architecture", "dataset", "target") if k in entry}
        kept |= {"model": self._models[task][1], "data": self._data[task]}
        return plain({**kept, "training": self.training.settings(task, grid, optimizer)})

    def ranks_of(self, optimizer: str) -> list[str]:
        """The optimizers whose ranks the constraints of this one's cells take."""
        training = self.optimizers[optimizer].get("training") or {}
        entries = [e for e in training.get("constraints") or [] if isinstance(e, Mapping)]
        return [entry["ranks_of"] for entry in entries if entry.get("ranks_of")]

    def snapshots(self, task: str) -> list[int]:
        """The epochs after which the task's final cells keep their weights, ascending."""
        return sorted(self.training.merged(task).get("snapshots") or [])

    @property
    def together(self) -> list[str]:
        """Tasks whose cells are trained in one job an optimizer, see ``training.together``."""
        return [task for task in self.tasks if self.training.merged(task).get("together")]

    def snapshot_lists(self, together: bool = False) -> list[tuple[list[int], list[str]]]:
        """Every list of snapshots with the tasks that keep them; those that keep none first.

        Of the tasks whose cells are trained together, or of the others.
        """
        lists: dict[tuple[int, ...], list[str]] = {}
        for task in (task for task in self.tasks if (task in self.together) == together):
            lists.setdefault(tuple(self.snapshots(task)), []).append(task)
        return [(list(epochs), tasks) for epochs, tasks in sorted(lists.items())]

    def analysis_task_settings(self, task: str) -> dict:
        """What an analysis needs of its task; of the training, nothing but the batch size."""
        entry = self.task_settings(task)
        entry["training"] = {"batch_size": entry["training"].get("batch_size", 32)}
        return entry

    def execution(self, task: str, setting: str) -> Any:
        """How a cell is executed, which does not change its result."""
        return self.training.execution(task, setting)

    def optimizer_settings(self, optimizer: str) -> dict:
        """Class and settings of an optimizer, without its grid: a cell knows its own lr and wd."""
        return self._optimizers[optimizer]

    def optimizer_defaults(self, optimizer: str) -> dict:
        """The declared defaults of the settings of an optimizer's class."""
        return entries.optimizer_defaults(self.optimizers[optimizer]["class"], self.plugins)

    def resources(self, task: str) -> dict:
        """The task's ``resources`` (runtime in minutes, mem_mb)."""
        return dict(self.tasks[task].get("resources") or {})

    def analysis(self, name: str, task: str | None = None) -> dict:
        """What the result of an analysis depends on: its settings, the task's own on top.

        Without ``task`` (an analysis of the whole study), the study's settings alone.
        """
        own = (self.tasks[task].get("analyses") or {}).get(name) if task else None
        merged = merge(self.config["analyses"][name], own)
        given = {key: value for key, value in merged.items() if key not in entries.SCOPE}
        checked = check(given, self.analysis_settings(name), f"analyses.{name}")
        return {k: v for k, v in checked.items() if k not in self.analysis_execution(name)}

    def analysis_execution(self, name: str) -> tuple[str, ...]:
        """Settings of an analysis that change its speed or memory alone."""
        return self.analysis_settings(name).execution

    def plugin_files(
        self,
        analysis: str | None = None,
        *,
        tasks: Iterable[str] = (),
        optimizers: Iterable[str] = (),
        dataset: str | None = None,
    ) -> list[Path]:
        """Files of plug-ins that a job runs: changing one reruns what uses it.

        Args:
            analysis: that the job runs.
            tasks: whose networks and data sets it uses.
            optimizers: that it uses.
            dataset: that it prepares.
        """
        modules = [self.analyses[analysis].module] if analysis else []
        datasets = [self.tasks[task]["dataset"] for task in tasks] + ([dataset] if dataset else [])
        modules += [self._kinds[name].target for name in datasets]
        for task in tasks:
            modules += [self._models[task][0].target, *self.training.modules(task)]
        for optimizer in optimizers:
            modules += entries.classes_of(self._optimizers[optimizer])
        return plugin_files(modules, self.plugins) if self.plugins else []

    def at_every_seed(self, name: str) -> bool:
        """Whether an analysis of one cell runs at every final seed (``seeds: all``)."""
        entry = self.config["analyses"][name] or {}
        return self.analyses[name].of_one_cell and entry.get("seeds") == "all"

    def analyzed_tasks(self, name: str) -> list[str]:
        """Tasks that an analysis has something to measure on, of those that its entry lists."""
        analysis = self.analyses[name]
        tasks = self.robust_tasks if "corrupted" in analysis.inputs else list(self.tasks)
        listed = (self.config["analyses"][name] or {}).get("tasks") or tasks
        kept = analysis.over == "snapshots"
        return [task for task in tasks if task in listed and (not kept or self.snapshots(task))]

    @property
    def optimizer_pairs(self) -> list[tuple[str, str]]:
        """Every two optimizers, and each with itself where there are seeds to compare."""
        pairs = itertools.combinations_with_replacement(self.optimizers, 2)
        return [(a, b) for a, b in pairs if a != b or len(self.seeds) > 1]

    @property
    def robust_tasks(self) -> list[str]:
        """Tasks whose data set has corrupted test clouds."""
        return [t for t in self.tasks if self.datasets[self.dataset_of(t)].get("corruptions")]
