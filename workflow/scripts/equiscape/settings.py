"""Settings: declared once, in the class that they belong to, and checked the same way everywhere.

A class that the configuration describes declares its settings as annotated attributes of a frozen
dataclass, or as annotated parameters of its ``__init__``::

    @dataclass(frozen=True)
    class Settings:
        samples: PositiveInt | None = None
        resolution: Annotated[int, AtLeast(3), Odd()] = 41
        CONSTRAINTS = (("resolution < 1000", "resolution must be below 1000"),)
        EXECUTION = ("samples_at_once",)  # changes speed or memory only: reruns nothing

:func:`check` reads that from the source, so that a configuration is checked before any job starts,
in a process that never imports torch; :func:`read` makes the object by the same check in a job.
Types are those of :mod:`equiscape.hints`.
"""

import ast
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, get_args

from equiscape.declarations import Declaration, declared, declared_in
from equiscape.errors import ConfigError
from equiscape.hints import (
    Above,
    AtLeast,
    AtMost,
    Below,
    Blocks,
    Count,
    Depth,
    Distinct,
    Fraction,
    Matrices,
    Names,
    NonNegative,
    NonNegativeInt,
    Odd,
    Positive,
    PositiveInt,
    Probability,
    Seed,
    Side,
    Width,
    conform,
    merge,
    nested_in,
    plain,
    refuse_infinite,
    spelled,
)
from equiscape.registry import unknown

__all__ = [
    "Above",
    "AtLeast",
    "AtMost",
    "Below",
    "Blocks",
    "Count",
    "Declaration",
    "Depth",
    "Distinct",
    "Fraction",
    "Matrices",
    "Names",
    "NonNegative",
    "NonNegativeInt",
    "Odd",
    "Positive",
    "PositiveInt",
    "Probability",
    "Seed",
    "Side",
    "Width",
    "check",
    "conform",
    "declaration_of",
    "declared",
    "merge",
    "plain",
    "read",
]
T = TypeVar("T")


def check(
    settings: Mapping[str, Any] | None,
    target: str | Declaration,
    key: str,
    *,
    arguments: Iterable[str] = (),
    context: Mapping[str, Any] | None = None,
    plugins: Iterable[str | Path] = (),
    complete: bool = True,
) -> dict[str, Any]:
    """The ``settings`` under ``key``, checked against what ``target`` declares.

    Args:
        settings: a map of the configuration; None is an empty one.
        target: ``"module:Class"``, ``"module:function"``, or a declaration.
        key: of the map, such as ``tasks.egnn.model``; begins every message.
        arguments: names that the code gives itself, so that the configuration must not.
        context: values that the constraints may name beside the settings; a constraint that names
            something else, or a setting whose default is not spelled in the source, is passed over.
        plugins: folders that the target's module may lie in.
        complete: whether all settings without a default must be there.

    Returns:
        The settings in canonical form: keys in order, numbers as their types, lists for tuples.

    Raises:
        ConfigError: a setting is unknown, missing, of another type or out of range.
    """
    declaration = target if isinstance(target, Declaration) else declared(target, plugins)
    return plain(checked(settings, declaration, key, arguments, context, complete))


def read(
    cls: Callable[..., T], settings: Mapping[str, Any] | None, key: str, **arguments: Any
) -> T:
    """``cls(**arguments, **settings)`` after :func:`check`; ``cls`` may also be a function.

    Args:
        cls: its module is one with a source file.
        settings: a map of the configuration.
        key: of the map; begins every message.
        arguments: what the code gives; the constraints may name them.

    Raises:
        ConfigError: a setting is unknown, missing, of another type or out of range.
    """
    declaration = declaration_of(cls)
    values = checked(settings, declaration, key, arguments, arguments)
    for name, value in values.items():
        hint = declaration.settings[name].hint if name in declaration.settings else Any
        for inner in filter(None, map(nested_in, (hint, *get_args(hint)))):
            if isinstance(value, Mapping):
                values[name] = getattr(import_module(inner.module), inner.name)(**value)
    return cls(**arguments, **values)


@cache
def declaration_of(cls: Callable) -> Declaration:
    """The declaration of a class or function that is at hand, from its source."""
    module = sys.modules[cls.__module__]
    return declared_in(cls.__module__, Path(str(module.__file__)), cls.__qualname__)


def checked(
    settings: Mapping[str, Any] | None,
    declaration: Declaration,
    key: str,
    arguments: Iterable[str] = (),
    context: Mapping[str, Any] | None = None,
    complete: bool = True,
) -> dict[str, Any]:
    """As :func:`check`, with tuples and the order of keys as they are declared and given."""
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(f"{key}: {settings!r} must be a map from names to values.")
    found: dict[str, Any] = {}
    arguments = set(arguments)
    known = {name for name in declaration.settings if name not in arguments}
    for name, value in (settings or {}).items():
        if name in known:
            found[name] = conform(value, declaration.settings[name].hint, f"{key}.{name}")
        elif declaration.open and name not in arguments:
            refuse_infinite(value, f"{key}.{name}")
            found[name] = value
        else:
            raise unknown(str(name), known, key)
    for name in sorted(known - set(found)):
        if complete and declaration.settings[name].required:
            raise ConfigError(f"{key}.{name} is missing; give it.")
    values = {**declaration.defaults(), **(context or {}), **found}
    for expression, sentence in declaration.constraints:
        if evaluate(expression, values) is False:
            raise ConfigError(f"{key}{constraint_message(sentence, values, declaration)}.")
    return found


def constraint_message(sentence: str, values: Mapping[str, Any], declaration: Declaration) -> str:
    """``sentence`` after a key; ``{name}`` stands for a value.

    Its first word may be a setting, or with dots an item of one: its value is then given too.
    """
    filled = sentence.format_map({name: spelled(value) for name, value in values.items()})
    first, _, rest = filled.partition(" ")
    name, *within = first.split(".")
    if name in declaration.settings:
        value = values.get(name)
        for item in within:
            value = value.get(item) if isinstance(value, Mapping) else None
        return f".{first}: {spelled(value)} {rest}"
    return f": {filled}"


def evaluate(expression: str, values: Mapping[str, Any]) -> Any:
    """The value of an ``expression`` over ``values``; None where it names anything else.

    Numbers, texts, lists, arithmetic, comparisons, ``and``, ``or``, ``not``, ``... if ... else``,
    items of lists, ``len``, ``min``, ``max``, ``sum``, ``abs``, ``any`` and ``all`` are understood.

    Raises:
        ValueError: anything else.
    """
    try:
        return _value(_expression(expression), values)
    except (LookupError, TypeError, ZeroDivisionError):
        return None


@lru_cache
def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _sum(values: Any) -> Any:
    """Of a list, or of a map's values."""
    return sum(values.values() if isinstance(values, Mapping) else values)


def _min(*values: Any) -> Any:
    """Of the arguments, of a list, or of a map's values."""
    first = values[0]
    return min(first.values()) if isinstance(first, Mapping) else min(*values)


FUNCTIONS: dict[str, Callable] = {f.__name__: f for f in (len, max, abs, any, all)}
FUNCTIONS |= {"sum": _sum, "min": _min}
OPERATORS: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
    ast.Not: operator.not_,
    ast.USub: operator.neg,
}


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.Tuple | ast.List):
        return [_value(item, values) for item in node.elts]
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.operand, values))
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left, values), _value(node.right, values))
    if isinstance(node, ast.BoolOp):
        decided = isinstance(node.op, ast.Or)  # what ends the search
        for item in node.values:
            if bool(found := _value(item, values)) == decided:
                return found
        return found
    if isinstance(node, ast.Compare):
        left = _value(node.left, values)
        for compare, item in zip(node.ops, node.comparators):
            right = _value(item, values)
            if not OPERATORS[type(compare)](left, right):
                return False
            left = right
        return True
    if isinstance(node, ast.IfExp):
        return _value(node.body if _value(node.test, values) else node.orelse, values)
    if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
        return _value(node.value, values)[_value(node.slice, values)]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in FUNCTIONS:
        return FUNCTIONS[ast.unparse(node.func)](*(_value(item, values) for item in node.args))
    raise ValueError(f"{ast.unparse(node)} is not understood in a constraint on settings.")
