"""The entries of a study, each checked by what its class or kind declares."""

import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from equiscape.addresses import check_address
from equiscape.configuration.kinds import DICTATED, Kind
from equiscape.configuration.naming import LONGEST
from equiscape.configuration.representations import check_representations
from equiscape.declarations import Declaration, declared
from equiscape.errors import ConfigError
from equiscape.hints import AtLeast, Distinct, PositiveInt, as_number, conform, spelled
from equiscape.models import ARCHITECTURES
from equiscape.optim import OPTIMIZERS
from equiscape.registry import target, unknown
from equiscape.settings import check
from equiscape.source import constants

NUMBER = re.compile(r"[0-9.eE+-]+")  # what a wildcard for lr or wd matches
GIVEN = ("params", "lr", "weight_decay")  # what the code gives an optimizer
COMMON = ("kind", "source", "mirrors", "sha256", "expect", "corruptions", "least_speed")
GENERATED = "generated"  # a `source` of corruptions
PYG = "pyg"  # a `source` that leaves the download to PyTorch Geometric
CHECKSUM = re.compile(r"(sha256:)?[0-9a-fA-F]{64}|md5:[0-9a-fA-F]{32}")
CORRUPTED = "equiscape.data.corrupted"
SCOPE = ("module", "seeds", "tasks")  # keys of an analysis that are no settings of its class
NONE: Mapping[str, Any] = MappingProxyType({})


def own_settings(
    entry: Mapping[str, Any], kind: Kind, key: str, plugins: Iterable[str]
) -> dict[str, Any]:
    """The settings of a data set that are its kind's own, in canonical form.

    Raises:
        ConfigError: naming the key.
    """
    own = {name: value for name, value in entry.items() if name not in COMMON}
    for name in own:
        if name not in kind.settings.settings and not kind.settings.open:
            raise unknown(name, [*kind.settings.settings, *COMMON], key)
    context = {"source": entry.get("source"), "expect": entry.get("expect") or {}}
    checked = check(own, kind.settings, key, context=context, plugins=plugins)
    check_representations(kind.settings, checked, key, {})
    return checked


def check_source(entry: Mapping[str, Any], kind: Kind, key: str, path: Path | None) -> None:
    """Check where the data of an entry come from; ``path`` is that of a local source."""
    source, sha256 = entry.get("source"), entry.get("sha256")
    if kind.embedded:
        for name in ("source", "mirrors", "sha256"):
            if entry.get(name):
                raise ConfigError(
                    f"{key}.{name}: data of kind {kind.name!r} are generated; remove it."
                )
    elif not source:
        raise ConfigError(
            f"{key}.source is missing; give a URL, an archive or a folder "
            f"for data of kind {kind.name!r}."
        )
    elif source == PYG and not kind.downloads:
        raise ConfigError(
            f"{key}.source: PyTorch Geometric does not fetch data of kind {kind.name!r}; "
            "give a URL, an archive or a folder."
        )
    _check_place(entry, key, path)
    for name in entry.get("expect") or {}:
        if name not in kind.expect:
            known = kind.expect or ["nothing for this kind of data"]
            raise unknown(name, known, f"{key}.expect")
    for name, count in (entry.get("expect") or {}).items():
        conform(count, PositiveInt, f"{key}.expect.{name}")
    if sha256 and source == PYG:
        raise ConfigError(f"{key}.sha256: what pyg fetches is several files; remove it.")


def _check_place(entry: Mapping[str, Any], key: str, path: Path | None) -> None:
    """Addresses, mirrors and checksum of a source."""
    source, sha256 = entry.get("source"), entry.get("sha256")
    mirrors = entry.get("mirrors") or []
    urls = [(f"{key}.source", source)] if source and "://" in source else []
    urls += [(f"{key}.mirrors.{i}", url) for i, url in enumerate(mirrors)]
    for where, url in urls:
        check_address(url, where)
        if where != urls[0][0] and url == source:
            raise ConfigError(f"{where}: is the source itself; remove it.")
    if mirrors and not (source and "://" in source):
        raise ConfigError(f"{key}.mirrors: the source is no address; remove them.")
    if path is not None:
        _check_local(path, f"{key}.source")
    if sha256 and not CHECKSUM.fullmatch(sha256):
        raise ConfigError(
            f"{key}.sha256: {spelled(sha256)} must be 64 hexadecimal digits, or md5: and 32."
        )
    if sha256 and path is not None and path.is_dir():
        raise ConfigError(f"{key}.sha256: a folder has no checksum; remove it.")


def _check_local(path: Path, key: str) -> None:
    """Refuse a source on this machine that is neither a file nor a folder, or cannot be read."""
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            next(path.iterdir(), None)
        elif stat.S_ISREG(kind):  # opening a pipe would wait for its writer
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{key}: {path} does not exist; give a URL, an archive or a folder."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{key}: {path} cannot be read ({reason}); give another one.") from None
    if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
        raise ConfigError(f"{key}: {path} is neither a file nor a folder; give one of these.")


def corruption_entry(
    entry: Mapping[str, Any], kind: Kind, key: str, path: Path | None
) -> dict[str, Any] | None:
    """``corruptions`` of a data set in canonical form; None where there are none.

    Raises:
        ConfigError: naming the key.
    """
    given = entry.get("corruptions")
    if not given:
        return None
    if not kind.corruptible:
        raise ConfigError(f"{key}: only clouds can be corrupted, not {kind.name!r}; remove it.")
    checked = check(given, declared(f"{CORRUPTED}:Settings"), key)
    generated = checked["source"] == GENERATED
    if entry.get("normals") and not generated:
        raise ConfigError(
            f"{key}.source: the published clouds have no normals; give `generated`, or set "
            "normals of the data set to false."
        )
    if generated:
        known = constants("equiscape.data.corruptions").get("CORRUPTIONS")
        for name in ("mirrors", "sha256"):
            if checked.get(name):
                raise ConfigError(f"{key}.{name}: the clouds are generated; remove it.")
    else:
        known = constants(CORRUPTED).get("PUBLISHED")
        _check_place(checked, key, path)
    for i, name in enumerate(checked.get("names") or []):
        if known is not None and name not in known:
            raise unknown(name, known, f"{key}.names.{i}")
    return checked


def architecture(
    task: Mapping[str, Any],
    kind: Kind,
    key: str,
    plugins: Iterable[str],
    own: Mapping[str, Any] = NONE,
) -> Declaration:
    """The declaration of a task's network, which must suit its data.

    Args:
        task: its entry.
        kind: of its data.
        key: of its entry.
        plugins: folders that the network's module may lie in.
        own: settings of its data set.

    Raises:
        ConfigError: naming the key.
    """
    name = task["architecture"]
    where = f"{key}.architecture"
    network = declared_at(target(ARCHITECTURES, name, where), where, plugins)
    for member, need in (
        ("forward", "forward(*inputs) -> [size, num_outputs]"),
        ("non_hidden", "self.non_hidden, the names of its first and last layers"),
        ("representations", "representations(), its layers by name"),
    ):
        if network.known and network.members and member not in network.members:
            raise ConfigError(f"{where}: {name} has no {member}; give it {need}.")
    data = f"data of kind {kind.name!r}"
    if kind.arguments is not None and not network.open:
        strange = [a for a in kind.arguments if a not in network.settings]
        if strange:
            raise ConfigError(
                f"{where}: {name} does not read {data}, which come with {', '.join(strange)}; "
                "choose another of the two."
            )
    for given in DICTATED:
        if own.get(given) and given not in network.settings and not network.open:
            raise ConfigError(
                f"{where}: {given} of {task['dataset']} mean nothing to {name}, which takes none; "
                f"set datasets.{task['dataset']}.{given} to false, or choose another network."
            )
    if kind.inputs is not None and network.inputs is not None:
        least, most = network.inputs
        if not least <= len(kind.inputs) <= most:
            raise ConfigError(
                f"{where}: {name} does not read {data}, whose batches are "
                f"({', '.join(kind.inputs)}); choose another of the two."
            )
    if kind.arguments is not None:
        needed = [
            n
            for n, setting in network.settings.items()
            if setting.required and n not in kind.arguments and n not in (task.get("model") or {})
        ]
        if needed and kind.inputs is not None:
            raise ConfigError(
                f"{where}: {name} needs {', '.join(needed)}, which {data} do not come with; "
                f"choose another of the two, or give it under {key}.model."
            )
    return network


def declared_at(where: str, key: str, plugins: Iterable[str]) -> Declaration:
    """As :func:`equiscape.declarations.declared`, with ``key`` before a fault."""
    try:
        return declared(where, plugins)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None


def check_target_of(task: Mapping[str, Any], kind: Kind, own: Mapping[str, Any], key: str) -> None:
    """Check which of its data set's targets a task learns; ``own`` are the data set's settings."""
    chosen, known = task.get("target"), kind.targets_in(own)
    if known is None:
        return
    if chosen is None:
        if len(known) > 1:
            raise ConfigError(
                f"{key}.target is missing; give one of: {', '.join(map(str, known))}."
            )
    elif not known:
        raise ConfigError(
            f"{key}.target: data of kind {kind.name!r} have nothing to choose from; remove it."
        )
    elif chosen not in known:
        raise unknown(str(chosen), known, f"{key}.target")


def overrides(
    task: Mapping[str, Any], kind: Kind, key: str, plugins: Iterable[str]
) -> dict[str, Any]:
    """``data`` of a task, the loader's settings that it overrides, in canonical form."""
    given = task.get("data") or {}
    for name in given:
        if name not in kind.overrides:
            raise unknown(name, kind.overrides or ["nothing for this kind of data"], f"{key}.data")
    return check(given, kind.settings, f"{key}.data", complete=False, plugins=plugins)


def optimizer_entry(entry: Mapping[str, Any], key: str, plugins: Iterable[str]) -> dict[str, Any]:
    """Class and canonical settings of an optimizer.

    Raises:
        ConfigError: naming the key.
    """
    if not isinstance(entry, Mapping) or "class" not in entry:
        raise ConfigError(f"{key}.class is missing; give one of: {', '.join(sorted(OPTIMIZERS))}.")
    for name in entry:
        if name not in ("class", "settings", "grid", "training"):
            raise unknown(str(name), ["class", "settings"], key)
    name = str(entry["class"])
    found = declared_at(target(OPTIMIZERS, name, f"{key}.class"), f"{key}.class", plugins)
    for argument in GIVEN:
        if argument not in found.settings and not found.open:
            raise ConfigError(
                f"{key}.class: {name} does not take {argument}; "
                "give a class with params, lr and weight_decay."
            )
    where = f"{key}.settings"
    settings = check(entry.get("settings"), found, where, arguments=GIVEN, plugins=plugins)
    for inner in found.attributes.get("NESTED", ()):
        if inner in settings:
            settings[inner] = optimizer_entry(settings[inner], f"{where}.{inner}", plugins)
    return {"class": name, "settings": settings}


def check_ranks(
    sources: Iterable[str],
    optimizers: Iterable[str],
    free: Iterable[str],
    analyses: Iterable[str],
    key: str,
) -> None:
    """Refuse constraints that take ranks of an optimizer which cannot give them.

    Args:
        sources: whose ranks are taken.
        optimizers: of the study.
        free: those of them that are held to no ranks themselves.
        analyses: of the study.
        key: of the constraints, for the error.
    """
    for source in sources:
        if source not in optimizers:
            raise unknown(str(source), optimizers, f"{key}: ranks_of")
        if source not in free:
            raise ConfigError(
                f"{key}: {source!r} is itself held to ranks; name an optimizer that is free."
            )
        if "rank" not in analyses:
            raise ConfigError(f"{key}: ranks_of needs the analysis rank; add analyses.rank.")


def optimizer_defaults(name: str, plugins: Iterable[str]) -> dict[str, Any]:
    """The declared defaults of a class's settings, without learning rate and weight decay."""
    found = declared_at(target(OPTIMIZERS, name, "class"), "class", plugins).defaults()
    return {key: value for key, value in found.items() if key not in GIVEN}


def classes_of(entry: Mapping[str, Any]) -> list[str]:
    """Import paths among the class of an optimizer and those that it is made of."""
    inner = (value for value in entry["settings"].values() if isinstance(value, Mapping))
    names = [name for value in inner if "class" in value for name in classes_of(value)]
    return [name for name in [entry["class"], *names] if ":" in name]


def spell(value: str | float) -> str:
    """A grid value as it stands in a path: a string stays as the configuration spells it."""
    return value if isinstance(value, str) else repr(value)


def check_grid(key: str, values: list, zero: bool) -> None:
    """Refuse what is no number, negative, or there twice."""
    seen: dict[float, str] = {}
    for text in map(spell, values):
        number = as_number(text)
        if number is None or (number == number and not NUMBER.fullmatch(text)):
            raise ConfigError(f"{key}: {spelled(text)} is not a number such as 1e-3.")
        if not 0 <= number < float("inf") or (number == 0 and not zero):
            sign = "zero or positive" if zero else "positive"
            sign = "finite" if number == float("inf") else sign
            raise ConfigError(f"{key}: {text[:LONGEST]} must be {sign}.")
        if len(text) > LONGEST or text[0] in "+-":  # it becomes part of a folder's name
            how = "shorter" if len(text) > LONGEST else "without a sign"
            raise ConfigError(
                f"{key}: {text[:LONGEST]} must be spelled {how}; write {abs(number):g}."
            )
        if number in seen:
            raise ConfigError(f"{key}: {seen[number]} and {text} are the same; keep one.")
        seen[number] = text


def check_scope(entry: Mapping[str, Any], key: str, tasks: Iterable[str]) -> None:
    """Refuse keys of an analysis that say wrongly where it runs.

    Args:
        entry: of ``analyses``.
        key: of the entry, for the error.
        tasks: of the study.
    """
    if entry.get("seeds", "representative") not in ("representative", "all"):
        raise ConfigError(f"{key}.seeds: {entry['seeds']!r} must be one of: representative, all.")
    if "tasks" in entry:
        known = list(tasks)
        listed = conform(
            entry["tasks"], Annotated[list[str], AtLeast(1), Distinct()], f"{key}.tasks"
        )
        for i, task in enumerate(listed):
            if task not in known:
                raise unknown(task, known, f"{key}.tasks.{i}")


def check_snapshots(analysis: str, over: str, tasks: list[str]) -> None:
    """Refuse an analysis over snapshots where none of its tasks keeps any."""
    if over == "snapshots" and not tasks:
        raise ConfigError(
            f"analyses.{analysis}: measures snapshots, and no task that it runs on keeps any; set "
            "training.snapshots."
        )
