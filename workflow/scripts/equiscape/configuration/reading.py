"""Configuration files, read strictly: every fault ends in one sentence with its line."""

from pathlib import Path
from typing import Any

import yaml

from equiscape.errors import ConfigError

LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is installed


def read_config(path: str | Path) -> dict[str, Any]:
    """The map in a configuration file.

    Raises:
        ConfigError: it is absent, a folder, not UTF-8, not YAML, more than one document or no map,
            or a key is given twice; the message names file and line.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a configuration file.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist; give a configuration file (targets stand before --configfile)."
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"line {line} of {path} is not UTF-8; save the file as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give another file.") from None
    return parse_config(text, path)


def parse_config(text: str, path: str | Path) -> dict[str, Any]:
    """As :func:`read_config`, of a text; ``path`` is for messages."""
    try:
        loader = LOADER(text)
        if not loader.check_node():
            raise ConfigError(f"{path} is empty; give a study.")
        node = loader.get_node()
        if loader.check_node():
            raise ConfigError(f"{path} holds more than one document; give one study a file.")
        _refuse_repetitions(node, path, set())
        config = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(_fault(error, text, path)) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as YAML ({error}); correct it.") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path} holds no map of keys to values at its top; give a study.")
    return config


def _refuse_repetitions(node: yaml.Node, path: str | Path, seen: set[int]) -> None:
    """Refuse a key that a map holds twice, of which PyYAML would take the last in silence."""
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    lines: dict[str, int] = {}
    for item in node.value:
        key, value = item if isinstance(node, yaml.MappingNode) else (None, item)
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise ConfigError(
                    f"line {line} of {path} gives {key.value!r} a second time, after line "
                    f"{lines[key.value]}; keep one."
                )
            lines[key.value] = line
        _refuse_repetitions(value, path, seen)


def _fault(error: Any, text: str, path: str | Path) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{path} holds a character that YAML forbids; save it as plain text."
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f"line {mark.line + 1} of {path} is indented by a tab; use spaces."
    return f"line {mark.line + 1} of {path} is not YAML ({error.problem}); correct it."
