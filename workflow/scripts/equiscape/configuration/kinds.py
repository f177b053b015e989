"""What a kind of data says of itself, read from its source."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from equiscape.data import KINDS
from equiscape.declarations import Declaration, declared, nested
from equiscape.registry import target
from equiscape.source import body_of, constants

NOTHING = Declaration("")
DICTATED = ("normals",)  # a data set's settings that its networks are given too, where true


@dataclass(frozen=True)
class Kind:
    """A kind of data.

    Attributes:
        name: as the configuration gives it.
        target: ``"module"`` or ``"module:Class"``.
        settings: of its entry in ``datasets``, beyond those that every kind has.
        version: of its prepared file.
        embedded: whether it needs no source.
        loader: settings that only loading depends on.
        overrides: settings that a task may override under ``data``.
        files: patterns of the files that it reads, relative to a source folder.
        arguments: what the data dictates to a network; None where the kind does not say.
        inputs: of a network's ``forward``; None where the kind does not say.
        targets: what a task may choose from, or the setting whose keys these are; None where the
            kind does not say.
        samples: what a sample is.
        learns: what is learned of it.
        example: settings of a small data set to try a network on; None where there are none.
        table: the column that names files in a CSV; None where no table may be a source.
        expect: what ``expect`` may count.
        corruptible: whether it may have ``corruptions``.
        downloads: whether it fetches its own files (``source: pyg``).
        augmentation: of ``training.augmentation``; None where there is none.
    """

    name: str
    target: str
    settings: Declaration
    version: int
    embedded: bool
    loader: tuple[str, ...]
    overrides: tuple[str, ...]
    files: tuple[str, ...]
    arguments: tuple[str, ...] | None
    inputs: tuple[str, ...] | None
    targets: tuple[str, ...] | str | None
    samples: str
    learns: str
    example: dict[str, Any] | None
    table: str | None
    expect: tuple[str, ...]
    corruptible: bool
    downloads: bool
    augmentation: Declaration | None

    def arguments_in(self, settings: Mapping[str, Any]) -> tuple[str, ...] | None:
        """What a data set with these ``settings`` dictates to a network."""
        if self.arguments is None:
            return None
        return (*self.arguments, *(name for name in DICTATED if settings.get(name)))

    def targets_in(self, settings: Mapping[str, Any]) -> tuple[str, ...] | None:
        """What a task may choose from, of a data set with these ``settings``."""
        named = isinstance(self.targets, str)
        return tuple(settings[str(self.targets)]) if named else cast(Any, self.targets)


def kind_of(name: str, key: str, plugins: Iterable[str | Path] = ()) -> Kind:
    """The kind of data that ``name``, given under ``key``, stands for.

    Raises:
        ConfigError: it is neither registered nor importable.
    """
    return _kind(name, target(KINDS, name, key), tuple(str(folder) for folder in plugins))


@lru_cache
def _kind(name: str, where: str, plugins: tuple[str, ...]) -> Kind:
    says: dict[str, Any] = constants(where, plugins)
    functions = {getattr(line, "name", "") for line in body_of(where, plugins)[1]}
    augmentation = says.get("AUGMENTATION")
    loader = tuple(says.get("LOADER", ()))
    return Kind(
        name=name,
        target=where,
        settings=nested(where, "Settings", plugins) or NOTHING,
        version=says.get("VERSION", 1),
        embedded=bool(says.get("EMBEDDED", False)),
        loader=loader,
        overrides=tuple(says.get("OVERRIDES", loader)),
        files=tuple(says.get("FILES", ("**/*",))),
        arguments=says.get("ARGUMENTS"),
        inputs=says.get("INPUTS"),
        targets=says.get("TARGETS"),
        samples=says.get("SAMPLES", ""),
        learns=says.get("LEARNS", "classes"),
        example=says.get("EXAMPLE"),
        table=says.get("TABLE"),
        expect=tuple(says.get("EXPECT", ())),
        corruptible=bool(says.get("CORRUPTIBLE", False)),
        downloads="download" in functions,
        augmentation=declared(augmentation, plugins) if augmentation else None,
    )
