"""Lazy registries: a name maps to ``"module:attribute"``, imported only when it is asked for.

So adding an architecture, an optimizer or a data set is one new file and one registry line, and
a job never imports what its task does not use.
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from equiscape.errors import ConfigError, first_line, listed


def unknown(name: str, known: Iterable[str], key: str) -> ConfigError:
    """The error for a ``name`` given under config ``key`` that is none of the ``known`` ones."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}" if close else f"known are: {listed(known, 60)}"
    return ConfigError(f"{key}: {name!r} is unknown; {hint}.")


def lookup(registry: Mapping[str, str], name: str, key: str) -> Any:
    """Import and return what ``registry[name]`` points to.

    ``"package.module"`` gives the module, ``"package.module:attribute"`` the attribute. A ``name``
    of that form, which no registered name has, is imported itself.

    Raises:
        ConfigError: ``name`` is neither registered nor can it be imported; the message names
            ``key``.
    """
    module, _, attribute = target(registry, name, key).partition(":")
    try:
        loaded = import_module(module)
        return getattr(loaded, attribute) if attribute else loaded
    except (ImportError, AttributeError) as error:
        reason = first_line(error)
        raise ConfigError(
            f"{key}: {name} cannot be imported ({reason}); name its folder under plugins, "
            "or install it."
        ) from error


def target(registry: Mapping[str, str], name: str, key: str) -> str:
    """What a ``name`` given under config ``key`` stands for: an entry, or an import path itself.

    Raises:
        ConfigError: it is neither; the message names ``key`` and the known names.
    """
    if name in registry:
        return registry[name]
    if is_import_path(name):
        return name
    raise unknown(name, registry, key)


def is_import_path(name: str) -> bool:
    """Whether ``name`` reads ``package.module:Name``, or ``package.module`` for a module."""
    module, colon, attribute = name.partition(":")
    words = [*module.split("."), *(attribute.split(".") if colon else ())]
    return (bool(colon) or "." in module) and all(word.isidentifier() for word in words)


def call(function: Callable, key: str, settings: Mapping[str, Any], **arguments: Any) -> Any:
    """As :func:`equiscape.settings.read`, with its arguments in another order."""
    from equiscape.settings import read

    return read(function, settings, key, **arguments)
