"""Groups and representations that settings name, compared with those that there are."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from equiscape.declarations import Declaration
from equiscape.errors import ConfigError
from equiscape.hints import names_of

if TYPE_CHECKING:
    from equiscape.groups import Group


def check_representations(
    declaration: Declaration, given: Mapping[str, Any], key: str, data: Mapping[str, Any]
) -> None:
    """Refuse a group that there is not, or a representation that a group does not have.

    Args:
        declaration: of the settings.
        given: those that the configuration gives, and no others.
        key: of their map, for the error.
        data: all settings of the data set, which names the group.

    Raises:
        ConfigError: naming the key, and what the group has.
    """
    marks = {name: names_of(setting.hint) for name, setting in declaration.settings.items()}
    asked = {name: mark.of for name, mark in marks.items() if mark is not None and name in given}
    if "group" in asked.values():  # the others name representations of it, by default too
        asked = {name: mark.of for name, mark in marks.items() if mark is not None}
    values = {**declaration.defaults(), **data, **given}
    named = [name for name, of in asked.items() if of == "representations"]
    if not named:
        return
    from equiscape.groups import parse_representation

    try:
        group = _group(values["group"])
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from None
    for name in named:
        texts = values[name]
        if isinstance(texts, str):
            parse_representation(group, texts, f"{key}.{name}")
        else:
            for i, text in enumerate(texts):
                parse_representation(group, text, f"{key}.{name}.{i}")


@lru_cache
def _group(name: str) -> "Group":
    from equiscape.groups import parse_group

    return parse_group(name)
