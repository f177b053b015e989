"""The study's skeleton checked against its JSON schema, in this project's own words."""

import math
from collections.abc import Mapping
from typing import Any

from equiscape.errors import ConfigError
from equiscape.hints import spelled
from equiscape.registry import unknown

NOUNS = {
    "integer": "a whole number",
    "number": "a finite number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a map from names to values",
    "null": "null",
}
BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "greater than",
    "exclusiveMaximum": "less than",
}


def check_schema(config: Mapping, schema: Mapping) -> None:
    """Check ``config`` against a JSON ``schema``.

    Raises:
        ConfigError: one sentence about the most relevant fault, naming the key.
    """
    from jsonschema.exceptions import best_match

    _refuse_odd_keys(config, "")
    error = best_match(_validator(schema).iter_errors(config))
    if error is None:
        return
    key = ".".join(str(part) for part in error.absolute_path) or "the configuration"
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        raise ConfigError(f"{key}: {missing!r} is missing; give it.")
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        extra = [name for name in error.instance if name not in known]
        raise unknown(str(extra[0]), known, key)
    raise ConfigError(f"{key}: {spelled(error.instance)} must be {_wanted(error)}.")


def _refuse_odd_keys(value: Any, key: str) -> None:
    """Refuse a key that is no text, such as the ``on`` or ``1`` of YAML 1.1."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str):
                where = key or "the configuration"
                raise ConfigError(f"{where}: the key {spelled(name)} must be a text; quote it.")
            _refuse_odd_keys(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for inner in value:
            _refuse_odd_keys(inner, key)


def _validator(schema: Mapping) -> Any:
    """JSON schema's own, but 8.0 is no whole number and NaN no number."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    def whole(_: Any, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def number(checker: Any, value: Any) -> bool:
        return whole(checker, value) or (isinstance(value, float) and math.isfinite(value))

    types = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": whole, "number": number})
    return extend(Draft202012Validator, type_checker=types)(schema)


def _wanted(error: Any) -> str:
    """What a value should be, in words that follow "must be"."""
    schema, remedy = error.schema, ""
    if "pattern" in schema and "description" in schema:
        return schema["description"].rstrip(".")
    if error.validator == "minProperties":
        return "a map with at least one entry"
    if error.validator == "uniqueItems":
        return "a list without repetitions"
    if error.validator == "minItems":
        return f"a list of at least {error.validator_value}"
    if "enum" in schema:
        return f"one of: {', '.join(map(str, schema['enum']))}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    words = " or ".join(NOUNS[kind] for kind in kinds) or "as its description says"
    bounds = [f"{word} {schema[bound]}" for bound, word in BOUNDS.items() if bound in schema]
    words = ", ".join([words, " and ".join(bounds)] if bounds else [words])
    if isinstance(error.instance, float) and error.instance.is_integer() and "integer" in kinds:
        remedy = f"; write {int(error.instance)}"
    described = schema.get("description", "").rstrip(".")
    return f"{words}{f' ({described})' if described else ''}{remedy}"


def with_defaults(config: Mapping, schema: Mapping) -> dict[str, Any]:
    """``config`` with the schema's defaults for the keys at its top that are absent."""
    defaults = {
        name: inner["default"]
        for name, inner in schema["properties"].items()
        if "default" in inner and name not in config
    }
    return {**config, **defaults}
