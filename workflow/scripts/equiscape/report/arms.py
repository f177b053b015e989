"""Which settings of a class of optimizers a study varies, and by which of its optimizers.

Read from the manifest: one optimizer of the class is its default,
each other one changes a setting of it.
"""

from dataclasses import dataclass
from typing import Any

from equiscape.report.manifest import Manifest


@dataclass(frozen=True)
class Level:
    """An optimizer on an axis: the value of the setting, and how it is written."""

    optimizer: str
    value: Any
    label: str


@dataclass(frozen=True)
class Axis:
    """A setting of a class and the optimizers that change it.

    Attributes:
        name: the setting.
        optimizer_class: of the configuration.
        default: the optimizer that changes no setting.
        levels: all of them with the default, in the order of their values where these are numbers,
            else of the configuration with the default first.
    """

    name: str
    optimizer_class: str
    default: str
    levels: tuple[Level, ...]

    @property
    def numeric(self) -> bool:
        """Whether every value is a number of its own."""
        values = [level.value for level in self.levels]
        return all(_is_number(value) for value in values) and len(set(values)) == len(values)


def axes(manifest: Manifest) -> list[Axis]:
    """Every setting that the study varies, in the order of the configuration.

    An optimizer that changes several settings stands on the axis of the first that is no number
    (else of the first), with the others in its label. Those that are trained in another way than
    the default (``training`` of their entry) are left out.
    """
    return [axis for name in manifest.varied for axis in _axes(manifest, name)]


def _axes(manifest: Manifest, name: str) -> list[Axis]:
    entries = [entry for entry in manifest.optimizers.values() if entry["class"] == name]
    defaults = {k: _value(v) for k, v in (entries[0].get("defaults") or {}).items()}
    settings = {
        optimizer: defaults | {k: _value(v) for k, v in (entry.get("settings") or {}).items()}
        for optimizer, entry in manifest.optimizers.items()
        if entry["class"] == name and not entry.get("training")
    }
    plain = [optimizer for optimizer, values in settings.items() if values == defaults]
    known = [*plain, *(o for o in settings if o == manifest.baseline), *settings]
    default = known[0]
    found: dict[str, list[Level]] = {}
    for optimizer, values in settings.items():
        base = settings[default]
        changed = {key: values.get(key) for key in {**base, **values} if values.get(key)
                   != base.get(key)}  # fmt: skip
        if not changed:
            continue
        axis = next((key for key, value in changed.items() if not _is_number(value)), None)
        axis = axis or next(iter(changed))
        others = [f"{key} {_text(value)}" for key, value in changed.items() if key != axis]
        label = ", ".join([_text(changed[axis]), *others])
        value = changed[axis] if not others else label
        found.setdefault(axis, []).append(Level(optimizer, value, label))
    made = []
    for axis, levels in found.items():
        usual = settings[default].get(axis)
        mine = (Level(default, usual, _text(usual)), *levels)
        made.append(Axis(axis, name, default, _ordered(mine)))
    return made


def _ordered(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    if all(_is_number(level.value) for level in levels):
        return tuple(sorted(levels, key=lambda level: level.value))
    return levels


def _value(value: Any) -> Any:
    """A value that compares: numbers that YAML left as text, lists as tuples."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return tuple(map(_value, value)) if isinstance(value, list | tuple) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
