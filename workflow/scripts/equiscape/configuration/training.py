"""The `training` settings of a study: layers merged and checked, the same for all their readers."""

from collections.abc import Mapping
from typing import Any

from equiscape.configuration.kinds import Kind
from equiscape.declarations import Declaration, declared
from equiscape.errors import ConfigError
from equiscape.hints import spelled
from equiscape.optim.schedules import SCHEDULES
from equiscape.registry import target, unknown
from equiscape.settings import check, merge
from equiscape.training import CONSTRAINTS, RECORDERS

SETTINGS = "equiscape.training.settings:Settings"
OUTPUTS = ("snapshots",)  # what a cell writes beside its result, so no part of what it depends on
TASK = {"augmentation": Any}  # settings that belong to the task's data


def merge_training(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Layers of training settings over each other; a schedule of another name replaces the map."""
    merged: dict[str, Any] = {}
    for layer in layers:
        before, after = merged.get("schedule") or {}, (layer or {}).get("schedule") or {}
        if "name" in before and after.get("name", before["name"]) != before["name"]:
            merged = {key: value for key, value in merged.items() if key != "schedule"}
        merged = merge(merged, layer)
    return merged


class Training:
    """The training settings of every task: the study's, the task's own, then the grid's.

    Args:
        config: of the study.
        plugins: folders that modules may lie in.

    Raises:
        ConfigError: a setting of a layer is unknown, of another type or out of range.
    """

    def __init__(self, config: Mapping[str, Any], plugins: list[str]):
        self.plugins = plugins
        self.declaration: Declaration = declared(SETTINGS)
        self.study: dict[str, Any] = config["training"]
        self.selection: dict[str, Any] = config["selection"].get("training") or {}
        self.tasks: dict[str, dict[str, Any]] = {
            name: entry.get("training") or {} for name, entry in config["tasks"].items()
        }
        self.optimizers: dict[str, dict[str, Any]] = {
            name: entry.get("training") or {} for name, entry in config["optimizers"].items()
        }
        self._merged: dict[tuple[str, bool, str | None], dict[str, Any]] = {}
        self._checked: dict[tuple[str, bool, str | None], dict[str, Any]] = {}
        for key, layer in self._layers(None, grid=True):
            self._check_layer(key, layer)
        for optimizer, layer in self.optimizers.items():
            self._check_layer(f"optimizers.{optimizer}.training", layer)
        for task in self.tasks:
            self._check_layer(f"tasks.{task}.training", self.tasks[task])

    @property
    def shared(self) -> tuple[str, ...]:
        """Settings that all optimizers of a task have in common."""
        return (*OUTPUTS, *self.declaration.execution)

    def _layers(
        self, task: str | None, grid: bool = False, optimizer: str | None = None
    ) -> list[tuple[str, dict[str, Any]]]:
        """Keys and maps, the later on top."""
        layers = [("training", self.study)]
        if task is not None:
            layers.append((f"tasks.{task}.training", self.tasks[task]))
        if grid:
            layers.append(("selection.training", self.selection))
        if optimizer is not None:
            layers.append((f"optimizers.{optimizer}.training", self.optimizers[optimizer]))
        return layers

    def _check_layer(self, key: str, layer: Mapping[str, Any]) -> None:
        own = {name: value for name, value in layer.items() if name not in TASK}
        for name in own:
            if name not in self.declaration.settings:
                raise unknown(name, [*self.declaration.settings, *TASK], key)
        check(own, self.declaration, key, complete=False)
        for name, registry in (("recorders", RECORDERS), ("constraints", CONSTRAINTS)):
            for i, entry in enumerate(layer.get(name) or []):
                self._check_part(entry, registry, f"{key}.{name}.{i}")
        augmentation = layer.get("augmentation")
        if augmentation is not None and not isinstance(augmentation, Mapping):
            raise ConfigError(
                f"{key}.augmentation: {spelled(augmentation)} must be a map from names to values "
                "or null."
            )

    def _check_part(self, entry: Any, registry: Mapping[str, str], key: str) -> None:
        """A recorder or a constraint: its name, or a map of its name and settings."""
        settings = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f"{key}: {spelled(entry)} must be a name, or a map with a name.")
        where = target(registry, name, key)
        check(settings, declared(where, self.plugins), key, arguments=("trainer",))

    def merged(self, task: str, grid: bool = False, optimizer: str | None = None) -> dict[str, Any]:
        """All layers of a task, as they are spelled."""
        cell = (task, grid, optimizer)
        if cell not in self._merged:
            layers = self._layers(*cell)
            self._merged[cell] = merge_training(*(layer for _, layer in layers))
        return self._merged[cell]

    def check(
        self, task: str, kind: Kind, grid: bool = False, optimizer: str | None = None
    ) -> dict[str, Any]:
        """The merged settings of a task in canonical form, defaults included.

        Raises:
            ConfigError: they do not fit together; the message names the layer that says so last.
        """
        merged = self.merged(task, grid, optimizer)
        layers = self._layers(task, grid, optimizer)

        def key_of(name: str) -> str:
            """The key of the last layer that gives a setting."""
            return next((key for key, layer in reversed(layers) if name in layer), "training")

        own = {name: value for name, value in merged.items() if name not in (*TASK, *OUTPUTS)}
        if not grid:
            own |= {name: merged[name] for name in OUTPUTS if name in merged}
        if "epochs" not in own:
            raise ConfigError("training.epochs is missing; give the number of epochs.")
        settings = check(own, self.declaration, key_of("epochs"))
        schedule = self._schedule(
            merged.get("schedule"), settings, f"{key_of('schedule')}.schedule"
        )
        settings |= {"schedule": schedule} if "schedule" in merged else {}
        kept = {name: value for name, value in settings.items() if name not in self.shared}
        key, given = f"{key_of('augmentation')}.augmentation", merged.get("augmentation")
        if given and kind.augmentation is not None:
            kept["augmentation"] = check(given, kind.augmentation, key)
        elif given and key.startswith("tasks."):
            raise ConfigError(f"{key}: data of kind {kind.name!r} have none; set it to null.")
        elif "augmentation" in merged:
            kept["augmentation"] = given
        self._checked[task, grid, optimizer] = kept
        return {**self.declaration.defaults(), **settings}

    def _schedule(
        self, given: Mapping[str, Any] | None, settings: dict[str, Any], key: str
    ) -> dict[str, Any] | None:
        if given is None:
            return None
        chosen = dict(given)
        name = chosen.pop("name", "cosine")
        if not isinstance(name, str):
            raise ConfigError(f"{key}.name: {spelled(name)} must be a text.")
        schedule = declared(target(SCHEDULES, name, f"{key}.name"), self.plugins)
        checked = check(chosen, schedule, key, context={"epochs": settings["epochs"]})
        return {"name": name, **checked}

    def settings(
        self, task: str, grid: bool = False, optimizer: str | None = None
    ) -> dict[str, Any]:
        """What a cell depends on: neither execution settings nor what it writes beside.

        Those of :meth:`check`, which has to be called for the same cells before.
        """
        own = optimizer if optimizer and self.optimizers[optimizer] else None
        return self._checked[task, grid, own]

    def execution(self, task: str, setting: str) -> Any:
        """A setting that changes speed or memory only, with its default."""
        merged = self.merged(task)
        if setting in merged:
            own = check({setting: merged[setting]}, self.declaration, "training", complete=False)
            return own[setting]
        return self.declaration.defaults()[setting]

    def constraints(self, task: str, optimizer: str) -> tuple[str, list[Any]]:
        """The constraints of a cell, and the key of the layer that gives them."""
        layers = self._layers(task, optimizer=optimizer)
        key = next((key for key, layer in reversed(layers) if "constraints" in layer), "training")
        return f"{key}.constraints", self.merged(task, optimizer=optimizer).get("constraints") or []

    def modules(self, task: str, optimizer: str | None = None) -> list[str]:
        """Import paths of schedule, recorders and constraints of a task's cells."""
        merged = self.merged(task, optimizer=optimizer)
        named = [(merged.get("schedule") or {}).get("name", ""), *(merged.get("recorders") or [])]
        named += merged.get("constraints") or []
        names = [entry.get("name", "") if isinstance(entry, Mapping) else entry for entry in named]
        return [name for name in names if ":" in name]
