"""Names of parameters in a configuration, looked for in the networks before the first job.

A setting that names parameters says so by its type (:class:`equiscape.hints.Names`). What a network
calls them is known once it is built, which takes torch: so one child process builds each network
that such a setting is about, without its numbers, and a file keeps what it found.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

from equiscape import io
from equiscape.configuration.entries import declared_at
from equiscape.configuration.kinds import Kind
from equiscape.declarations import Declaration, declared
from equiscape.errors import ConfigError, DataError, listed
from equiscape.hints import Names, names_of
from equiscape.optim import OPTIMIZERS
from equiscape.registry import target, unknown
from equiscape.source import constants
from equiscape.study import Plan
from equiscape.training import CONSTRAINTS

DEFAULT_RULE = "hidden"  # of orthogonalize: no pattern
LIMIT = 120  # seconds for all networks
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Named:
    """What one setting names.

    Attributes:
        key: of the setting.
        task: whose network it is about.
        of: ``parameters``, ``matrices``, ``layers`` or ``sides``.
        values: patterns (names, of layers), each with the number that it maps to, if it does.
    """

    key: str
    task: str
    of: str
    values: Mapping[str, Any]


def refuse_unknown_names(study: Plan, folder: str | Path, keep: bool = True) -> None:
    """Refuse patterns and names of parameters that are in no network.

    Args:
        study: the checked configuration.
        folder: where the names of each network's parameters are kept.
        keep: whether newly found ones are; a dry run writes nothing.

    Raises:
        ConfigError: naming the key, the pattern and what was probably meant.
    """
    wanted = list(named(study))
    if not wanted:
        return
    found = networks(study, sorted({each.task for each in wanted}), Path(folder), keep)
    check(wanted, found)


def check(wanted: Iterable[Named], networks: Mapping[str, Shapes]) -> None:
    """Compare what settings name with the networks' parameters; tasks without are passed over.

    Raises:
        ConfigError: see :func:`refuse_unknown_names`.
    """
    known = [each for each in wanted if each.task in networks]
    for each in known:
        check_one(each, networks[each.task])
    # one of several patterns may be about another task's network, but it must be about one
    for key in dict.fromkeys(each.key for each in known if each.of == "parameters"):
        same = [each for each in known if each.key == key]
        for pattern in same[0].values:
            names = [name for each in same for name in networks[each.task]]
            if not any(fnmatchcase(name, pattern) for name in names):
                raise _no_match(key, pattern, "parameter", names, same)


def check_one(each: Named, shapes: Shapes) -> None:
    """Compare what one setting names with the parameters of its task's network."""
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if each.of == "parameters":
        if not any(fnmatchcase(name, p) for name in shapes for p in each.values):
            raise _no_match(each.key, next(iter(each.values)), "parameter", list(shapes), [each])
    elif each.of == "layers":
        layers = [name.removesuffix(".weight") for name in matrices]
        for name in each.values:
            if name not in layers:
                raise unknown(name, layers, f"{each.key} (task {each.task!r})")
    elif each.of == "sides":
        largest = max((min(shapes[name]) for name in matrices), default=0)
        for side in each.values:
            if int(side) > largest:
                raise ConfigError(
                    f"{each.key}: {side} leaves no matrix of the network of task {each.task!r}, "
                    f"whose smaller sides are at most {largest}; give a smaller one."
                )
    else:
        for pattern, count in each.values.items():
            if pattern == DEFAULT_RULE:
                continue
            matched = [n for n in matrices if fnmatchcase(n, pattern.removeprefix("!"))]
            if not matched:
                raise _no_match(each.key, pattern, "matrix", matrices, [each])
            for name in matched:
                if isinstance(count, int) and shapes[name][0] % count:
                    raise ConfigError(
                        f"{each.key}.{pattern}: {count} does not divide the {shapes[name][0]} rows "
                        f"of {name} (task {each.task!r}); give the number of equal parts that its "
                        "rows are."
                    )


def _no_match(
    key: str, pattern: str, what: str, names: Sequence[str], about: Sequence[Named]
) -> ConfigError:
    tasks = sorted({each.task for each in about})
    whose = f"task {tasks[0]!r}" if len(tasks) == 1 else f"tasks {listed(tasks)}"
    names = list(dict.fromkeys(names))
    close = get_close_matches(pattern.removeprefix("!"), names, n=3, cutoff=0.5)
    hint = f"did you mean {listed(close)}" if close else f"its names are: {listed(names)}"
    return ConfigError(f"{key}: {pattern!r} matches no {what} of the network of {whose}; {hint}.")


def named(study: Plan) -> Iterator[Named]:
    """What the settings of analyses, optimizers and constraints name."""
    for task in study.tasks:
        for name in study.analyses:
            if task in study.analyzed_tasks(name):
                own = (study.tasks[task].get("analyses") or {}).get(name) or {}
                for setting, of, value in _in(
                    study.analysis_settings(name), study.analysis(name, task)
                ):
                    key = f"tasks.{task}.analyses" if setting in own else "analyses"
                    yield Named(f"{key}.{name}.{setting}", task, of, value)
        for name in study.optimizers:
            entry, key = study.optimizer_settings(name), f"optimizers.{name}"
            for where, of, value in _of_optimizer(entry, key, study.plugins):
                yield Named(where, task, of, value)
            for where, of, value in _of_constraints(study, task, name):
                yield Named(where, task, of, value)


def _in(
    declaration: Declaration, settings: Mapping[str, Any]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Setting, what it names and its values, for every setting that names parameters."""
    for name, setting in declaration.settings.items():
        marker: Names | None = names_of(setting.hint)
        if marker and settings.get(name):
            value = settings[name]
            if not isinstance(value, Mapping):
                value = dict.fromkeys(value if isinstance(value, list | tuple) else [value])
            yield name, marker.of, value


def _of_optimizer(
    entry: Mapping[str, Any], key: str, plugins: Iterable[str]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    where = target(OPTIMIZERS, entry["class"], f"{key}.class")
    declaration = declared_at(where, f"{key}.class", plugins)
    for name, of, value in _in(declaration, entry["settings"]):
        yield f"{key}.settings.{name}", of, value
    for inner in declaration.attributes.get("NESTED", ()):
        if inner in entry["settings"]:
            yield from _of_optimizer(entry["settings"][inner], f"{key}.settings.{inner}", plugins)


def _of_constraints(
    study: Plan, task: str, optimizer: str
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    key, constraints = study.training.constraints(task, optimizer)
    for i, entry in enumerate(constraints):
        if isinstance(entry, Mapping):
            where = target(CONSTRAINTS, entry["name"], f"{key}.{i}")
            for name, of, value in _in(declared(where, study.plugins), entry):
                yield f"{key}.{i}.{name}", of, value


def arguments_of(
    kind: Kind, settings: Mapping[str, Any], chosen: str | None, plugins: Iterable[str] = ()
) -> dict[str, Any] | None:
    """What data of a ``kind`` dictate to a network, as far as names of parameters depend on it.

    An argument is a setting of the kind, a constant of its module in capitals, or, where ``HEADS``
    maps targets to them, the head of the ``chosen`` target. The number of outputs changes no name.

    Returns:
        None where an argument is none of these.
    """
    says = constants(kind.target, plugins)
    targets = kind.targets_in(settings)
    chosen = chosen or (targets[0] if targets else None)
    found: dict[str, Any] = {}
    for name in kind.arguments_in(settings) or ():
        if name in settings:
            found[name] = settings[name]
        elif name.upper() in says:
            found[name] = says[name.upper()]
        elif name == "head" and isinstance(says.get("HEADS"), Mapping):
            heads = {**says["HEADS"], **(settings.get("heads") or {})}
            found[name] = heads.get(chosen, "scalar")
        elif name == "num_outputs":
            found[name] = 1 if kind.targets else 2
        else:
            return None
    return found if kind.arguments is not None else None


def network_of(study: Plan, task: str) -> dict[str, Any]:
    """What a task's network is built from: architecture, settings, what its data dictate."""
    entry, dataset = study.task_settings(task), study.dataset_of(task)
    kind = study.kind(dataset)
    settings = {**kind.settings.defaults(), **study.dataset_settings(dataset), **entry["data"]}
    return {
        "architecture": entry["architecture"],
        "settings": entry["model"],
        "arguments": arguments_of(kind, settings, entry.get("target"), study.plugins),
    }


def networks(
    study: Plan, tasks: Iterable[str], folder: Path, keep: bool = True
) -> dict[str, Shapes]:
    """Shape of every parameter of the tasks' networks, from ``folder`` or a child process.

    Tasks whose network cannot be built without its data are left out, and so are all where torch is
    not installed: their jobs say then what is wrong.
    """
    try:
        code = [io.code_hash(), metadata.version("torch")]
    except metadata.PackageNotFoundError:
        return {}
    found, missing = {}, {}
    for task in tasks:
        network = network_of(study, task)
        if network["arguments"] is None:
            continue
        files = [io.sha256(path) for path in study.plugin_files(tasks=[task])]
        path = folder / f"{io.settings_hash([network, code, files])}.json"
        try:
            found[task] = io.read_json(path, "shapes")
        except DataError:  # none yet, or damaged: they are asked for again
            missing[task] = path, network
    if missing:
        given = {task: network for task, (_, network) in missing.items()}
        for task, shapes in _built(given, study.plugins).items():
            found[task] = shapes
            if keep:
                io.write_json(missing[task][0], shapes)
    return found


def _built(networks: Mapping[str, Any], plugins: Sequence[str]) -> dict[str, Shapes]:
    """Names and shapes from a child process, which imports torch in place of this one."""
    scripts = str(Path(__file__).resolve().parents[2])
    before = os.environ.get("PYTHONPATH")
    search = os.pathsep.join([scripts, before] if before else [scripts])
    try:
        run = subprocess.run(
            [sys.executable, "-m", "equiscape.models.names"],
            input=json.dumps(
                {"networks": networks, "plugins": list(map(os.path.abspath, plugins))}
            ),
            env={**os.environ, "PYTHONPATH": search, "PYTHONUTF8": "1"},
            capture_output=True,
            encoding="utf-8",
            timeout=LIMIT,
        )
        answer = json.loads(run.stdout) if run.returncode == 0 else {}
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return {}
    return {task: found for task, found in answer.items() if io.misfit(found, "shapes") is None}
