"""Names that a configuration is free to choose, as far as files and rules allow."""

from collections.abc import Iterable, Mapping
from typing import Any

from equiscape.errors import ConfigError
from equiscape.hints import spelled

LONGEST = 60
"""Letters of a name or of a grid's number: a file's name of at most 255 holds three and more."""


def check_lengths(config: Mapping[str, Any]) -> None:
    """Refuse names that make no file: a name of a file holds three of them."""
    for section in ("tasks", "optimizers", "datasets", "analyses"):
        for name in config[section]:
            if len(name) > LONGEST:
                raise ConfigError(
                    f"{section}: the name {spelled(name)} has {len(name)} letters; "
                    f"choose one of at most {LONGEST}."
                )


def check_names(config: Mapping[str, Any], taken: Iterable[str]) -> None:
    """Refuse names under which two rules would make one file.

    Args:
        config: the study.
        taken: names of rules and of folders of results, which no analysis may have.
    """
    for name in config["optimizers"]:
        base = name.removesuffix(".choice")
        if base != name:
            raise ConfigError(
                f"optimizers.{name}: a name may not end in .choice, as a file of {base!r} would; "
                "choose another."
            )
    for name in config["datasets"]:
        if name.endswith("-corrupted"):
            raise ConfigError(
                f"datasets.{name}: a name may not end in -corrupted, as a file of "
                f"{name.removesuffix('-corrupted')!r} would; choose another."
            )
    for name in config["analyses"]:
        if name in taken:
            raise ConfigError(f"analyses.{name}: the workflow uses this name; choose another.")
