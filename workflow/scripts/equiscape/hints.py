"""Types of settings: aliases, bounds, and the check of a value against one.

An annotation is built of ``int``, ``float``, ``bool``, ``str``, ``Literal[...]``, ``X | None``,
``list[X]``, ``tuple[X, Y]``, ``tuple[X, ...]``, ``Mapping[str, X]`` and ``Any``, or one of the
aliases below. Bounds are put on a type with ``Annotated[int, AtLeast(3), Odd()]``.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from equiscape.errors import ConfigError
from equiscape.registry import unknown


@dataclass(frozen=True)
class AtLeast:
    """``value >= bound``; of a list, of its length."""

    bound: float

    def holds(self, value: float) -> bool:
        """Whether ``value`` keeps the bound."""
        return value >= self.bound

    def __str__(self) -> str:
        return f"at least {self.bound}"


@dataclass(frozen=True)
class AtMost:
    """``value <= bound``; of a list, of its length."""

    bound: float

    def holds(self, value: float) -> bool:
        """Whether ``value`` keeps the bound."""
        return value <= self.bound

    def __str__(self) -> str:
        return f"at most {self.bound}"


@dataclass(frozen=True)
class Above:
    """``value > bound``."""

    bound: float

    def holds(self, value: float) -> bool:
        """Whether ``value`` keeps the bound."""
        return value > self.bound

    def __str__(self) -> str:
        return f"greater than {self.bound}"


@dataclass(frozen=True)
class Below:
    """``value < bound``."""

    bound: float

    def holds(self, value: float) -> bool:
        """Whether ``value`` keeps the bound."""
        return value < self.bound

    def __str__(self) -> str:
        return f"less than {self.bound}"


@dataclass(frozen=True)
class Odd:
    """An odd whole number."""

    def holds(self, value: int) -> bool:
        """Whether ``value`` keeps the bound."""
        return value % 2 == 1

    def __str__(self) -> str:
        return "odd"


@dataclass(frozen=True)
class Distinct:
    """A list without repetitions."""

    def holds(self, value: Sequence) -> bool:
        """Whether ``value`` keeps the bound."""
        return all(item not in value[:i] for i, item in enumerate(value))

    def __str__(self) -> str:
        return "without repetitions"


@dataclass(frozen=True)
class Nested:
    """A map whose keys are the settings of a dataclass of their own.

    Attributes:
        module: of the class, dotted.
        name: of the class.
        check: from a value and its key to the checked map.
    """

    module: str
    name: str
    check: Callable[[Any, str], dict[str, Any]]


@dataclass(frozen=True)
class Names:
    """A list, or the keys of a map, that names parts of a network; checked once it is known.

    Attributes:
        of: ``parameters`` (glob patterns), ``matrices`` (those that optimizers orthogonalize, see
            :mod:`equiscape.optim.groups`), ``layers`` (names of matrices without ``.weight``),
            ``sides`` (the smaller sides of matrices, of which one must be as large),
            ``group`` or ``representations`` (of that group, see :mod:`equiscape.groups`).
    """

    of: str


LARGEST = 10**9  # of whole numbers without an upper bound of their own: no machine holds more
PositiveInt = Annotated[int, AtLeast(1)]
Count = Annotated[int, AtLeast(1), AtMost(1_000_000)]  # of a cloud's points, of drawn samples
Width = Annotated[int, AtLeast(1), AtMost(65536)]  # of a layer
Depth = Annotated[int, AtLeast(1), AtMost(1000)]  # of a network
Side = Annotated[int, AtLeast(1), AtMost(65536), Names("sides")]  # the smaller one of a matrix
Matrices = Annotated[list[str], Distinct(), Names("matrices")]
Blocks = Annotated[Mapping[str, PositiveInt], Names("matrices")]  # a matrix' equal parts
NonNegativeInt = Annotated[int, AtLeast(0)]
Positive = Annotated[float, Above(0)]
NonNegative = Annotated[float, AtLeast(0)]
Fraction = Annotated[float, AtLeast(0), AtMost(1)]
Probability = Annotated[float, AtLeast(0), Below(1)]
Seed = Annotated[int, AtLeast(0), Below(2**63)]

# what a name in an annotation may mean
NAMES: dict[str, Any] = {
    "None": None,
    "Mapping": Mapping,
    "Sequence": Sequence,
    **{kind.__name__: kind for kind in (int, float, bool, str, dict, list, tuple)},
    **{word: globals()[word] for word in ("Annotated", "Any", "Literal", "Union")},
    **{
        word: globals()[word]
        for word in ("AtLeast", "AtMost", "Above", "Below", "Odd", "Distinct", "Names")
    },
    **{word: globals()[word] for word in ("PositiveInt", "NonNegativeInt", "Seed", "Positive")},
    **{word: globals()[word] for word in ("Count", "Width", "Depth", "Side", "Matrices", "Blocks")},
    **{word: globals()[word] for word in ("NonNegative", "Fraction", "Probability")},
}
WHOLE = re.compile(r"[+-]?[0-9]{1,10}")
MARKERS = (AtLeast, AtMost, Above, Below, Odd, Distinct)


def conform(value: Any, hint: Any, key: str) -> Any:
    """``value`` as ``hint`` has it: a string that spells a number becomes a float, a list a tuple.

    Args:
        value: as YAML reads it.
        hint: a type of this module.
        key: of the configuration, for the message.

    Raises:
        ConfigError: another type, out of range, NaN or infinite; the message names ``key``.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if (inner := nested_in(hint)) is not None:
        return inner.check(value, key)
    if origin is Annotated:
        checked = conform_base(value, hint, key)
        measured = len(checked) if isinstance(checked, list | tuple) else checked
        bounds = hint.__metadata__
        for bound in bounds:
            subject: Any = checked if isinstance(bound, Distinct) else measured
            if checked is not None and isinstance(bound, MARKERS) and not bound.holds(subject):
                raise refusal(value, hint, key)
        if type(checked) is int and not any(isinstance(b, AtMost | Below) for b in bounds):
            _refuse_huge(checked, key)
        return checked
    if origin in (Union, UnionType):
        return _conform_union(value, hint, arguments, key)
    if origin is Literal:
        return _conform_choice(value, arguments, key)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise refusal(value, hint, key)
        names, values = arguments if len(arguments) == 2 else (str, Any)
        checked = {}
        for name, item in value.items():
            if get_origin(names) is Literal and name not in get_args(names):
                raise unknown(str(name), map(str, get_args(names)), key)
            checked[str(name)] = conform(item, values, f"{key}.{name}")
        return checked
    if origin is tuple and arguments[-1] is not Ellipsis:
        if not isinstance(value, list | tuple) or len(value) != len(arguments):
            raise refusal(value, hint, key)
        return tuple(conform(v, h, f"{key}.{i}") for i, (v, h) in enumerate(zip(value, arguments)))
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            raise refusal(value, hint, key)
        items = [conform(v, arguments[0], f"{key}.{i}") for i, v in enumerate(value)]
        return tuple(items) if origin is tuple else items
    return conform_plain(value, hint, key)


def _refuse_huge(value: int, key: str) -> None:
    """Refuse a whole number that a slip of the keyboard made, before a job tries to hold it."""
    if abs(value) > LARGEST:
        raise ConfigError(f"{key}: {spelled(value)} must be at most {LARGEST}.")


def nested_in(hint: Any) -> Nested | None:
    """The settings of their own that ``hint`` stands for, if it does."""
    if get_origin(hint) is not Annotated:
        return None
    return next((bound for bound in hint.__metadata__ if isinstance(bound, Nested)), None)


def names_of(hint: Any) -> Names | None:
    """Of what ``hint`` is a list of names, if it is one."""
    if get_origin(hint) is Annotated:
        return next((mark for mark in hint.__metadata__ if isinstance(mark, Names)), None)
    if get_origin(hint) in (Union, UnionType):
        return next(filter(None, map(names_of, get_args(hint))), None)
    return None


def conform_base(value: Any, hint: Any, key: str) -> Any:
    """As :func:`conform` with the bounds left out, which the message states all the same."""
    base = get_args(hint)[0]
    try:
        return conform(value, base, key)
    except ConfigError as error:
        same = str(error).startswith(f"{key}: ")  # not about an item of a list
        raise (refusal(value, hint, key) if same else error) from None


def conform_plain(value: Any, hint: Any, key: str) -> Any:
    """A number, a text, true or false, a list or a map of any kind."""
    if hint in (None, NoneType):
        if value is not None:
            raise refusal(value, hint, key)
        return None
    if hint is float:
        number = as_number(value)
        if number is None or not math.isfinite(number):
            raise refusal(value, hint, key)
        return number
    if hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise refusal(value, hint, key)
        return value
    if hint in (bool, str, list, dict):
        if not isinstance(value, hint):
            raise refusal(value, hint, key)
        return value
    refuse_infinite(value, key)
    return value


def as_number(value: Any) -> float | None:
    """The float that ``value`` is or spells; None for anything else.

    YAML 1.1 reads ``1e-8`` as text, so a text that spells a number is one.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and (value != value.strip() or "_" in value):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def refuse_infinite(value: Any, key: str) -> None:
    """Refuse NaN and infinity anywhere in ``value``."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            refuse_infinite(inner, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            refuse_infinite(inner, f"{key}.{i}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}: {spelled(value)} must be a finite number.")


def _conform_union(value: Any, hint: Any, members: tuple, key: str) -> Any:
    if value is None and any(member in (None, NoneType) for member in members):
        return None
    members = tuple(member for member in members if member not in (None, NoneType))
    errors = []
    for member in members:
        try:
            return conform(value, member, key)
        except ConfigError as error:
            errors.append(error)
    if len(members) == 1 and isinstance(value, Mapping) and "is unknown" in str(errors[0]):
        raise errors[0] from None
    inner = [error for error in errors if not str(error).startswith(f"{key}: ")]
    if inner:
        raise inner[0] from None
    raise refusal(value, hint, key) from None


def _conform_choice(value: Any, choices: tuple, key: str) -> Any:
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return value
    named = [choice for choice in choices if isinstance(choice, str)]
    close = get_close_matches(str(value), named, n=1)
    hint = f"; did you mean {close[0]!r}" if close else ""
    raise ConfigError(f"{key}: {spelled(value)} must be {describe(Literal[choices])}{hint}.")


def refusal(value: Any, hint: Any, key: str) -> ConfigError:
    """The sentence that ``value`` is not what ``hint`` asks for."""
    remedy = ""
    whole = _asks_for_whole(hint)
    if whole and isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST:
        remedy = f"; write {int(value)}"
    elif whole and isinstance(value, str) and WHOLE.fullmatch(value):
        remedy = f"; write {int(value)} without quotes"
    return ConfigError(f"{key}: {spelled(value)} must be {describe(hint)}{remedy}.")


def _asks_for_whole(hint: Any) -> bool:
    return hint is int or any(_asks_for_whole(a) for a in get_args(hint) if a is not hint)


def spelled(value: Any) -> str:
    """``value`` as YAML spells it, in one line of bounded length."""
    names = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return names[value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "infinity" if value > 0 else "-infinity"
    try:
        text = repr(value)
    except ValueError:  # Python spells no integer of thousands of digits
        return f"a number of {value.bit_length()} bits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def describe(hint: Any) -> str:
    """``hint`` in words that follow "must be"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        base = get_args(hint)[0]
        marks = [m for m in hint.__metadata__ if isinstance(m, MARKERS)]
        bounds = " and ".join(map(str, marks))
        if get_origin(base) in (list, tuple, Sequence):
            kept = [str(m) if isinstance(m, Distinct) else f"{m} of them" for m in marks]
            return f"{describe(base)} ({', '.join(kept)})" if kept else describe(base)
        return f"{describe(base)}, {bounds}" if bounds else describe(base)
    if origin in (Union, UnionType):
        ordered = sorted(arguments, key=lambda member: member in (None, NoneType))
        return " or ".join(describe(member) for member in ordered)
    if origin is Literal:
        return f"one of: {', '.join(spelled(c) if c is None else str(c) for c in arguments)}"
    if hint is dict or (origin is not None and issubclass(origin, Mapping)):
        return "a map from names to values"
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)} values, each {describe(arguments[0])}"
    if origin in (list, tuple, Sequence):
        return f"a list, each value {describe(arguments[0])}"
    words: dict[Any, str] = {
        int: "a whole number",
        float: "a finite number",
        bool: "true or false",
        str: "a text",
    }
    return {**words, list: "a list", None: "null", NoneType: "null"}.get(hint, "given")


def merge(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Maps laid over each other, maps within them too; a later null or value replaces."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in (layer or {}).items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge(merged[key], value) if both else deepcopy(value)
    return merged


def plain(value: Any) -> Any:
    """``value`` in canonical form: keys in order, tuples as lists; so spelling changes nothing."""
    if isinstance(value, Mapping):
        return {key: plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
