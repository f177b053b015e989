"""From the configuration that Snakemake read to a checked study."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from equiscape.configuration.reading import parse_config, read_config
from equiscape.configuration.schema import check_schema, with_defaults
from equiscape.configuration.targets import check_target
from equiscape.errors import ConfigError, listed
from equiscape.study import Plan

MACHINE = ("pathvars", "device", "threads", "resume", "plugins")  # keys without a study


def study(
    config: dict[str, Any],
    schema: str | Path,
    files: Iterable[str | Path] = (),
    root: str | Path = ".",
) -> Plan:
    """The study of a configuration, which is completed in place by the schema's defaults.

    Args:
        config: as Snakemake merged it.
        schema: path of ``config.schema.yaml``.
        files: the configuration files, read once more for faults that Snakemake passes over.
        root: the folder that relative local sources are relative to.

    Raises:
        ConfigError: one sentence about the first fault.
    """
    skeleton = parse_config(Path(schema).read_text(encoding="utf-8"), schema)
    refuse_file_faults(files, skeleton["properties"])
    try:
        check_schema(config, skeleton)
        config.update(with_defaults(config, skeleton))
        return Plan(config, root)
    except RecursionError:
        raise ConfigError(
            "the configuration holds itself (an alias within the value of its anchor); "
            "write the value out."
        ) from None


def refuse_file_faults(files: Iterable[str | Path], known: Iterable[str]) -> None:
    """Refuse a configuration file with a key twice, or one that is no configuration at all.

    Raises:
        ConfigError: naming the file; where targets follow ``--configfile``, saying so.
    """
    read = {Path(file): read_config(file) for file in dict.fromkeys(files)}
    for path in list(read)[1:]:
        if not set(read[path]) & set(known):
            raise ConfigError(
                f"{path} was read as a configuration, since it follows --configfile; put targets "
                f"first: snakemake TARGET --configfile {next(iter(read))}."
            )


def refuse_part_of_a_study(config: Mapping[str, Any]) -> None:
    """Refuse a given configuration that has sections of a study but no tasks.

    Raises:
        ConfigError: merged with the paper's study it would train that one.
    """
    parts = sorted(str(key) for key in config if key not in MACHINE)
    if parts:
        raise ConfigError(
            f"the configuration has {listed(parts)} but no tasks; "
            "give its tasks, or no configuration for the paper's study."
        )


def check_targets(
    words: Sequence[str],
    targets: Callable[[], Sequence[str]],
    rules: Mapping[str, Sequence[str]],
    checked: Plan,
) -> None:
    """Refuse a target that no rule makes.

    Args:
        words: of the command line.
        targets: asks Snakemake's own parser which of them are targets, which takes a while; so it
            is called only where a word is neither an option nor a target of the study.
        rules: name -> patterns of files, see :func:`equiscape.configuration.targets.check_target`.
        checked: the study.

    Raises:
        ConfigError: naming it and what was probably meant.
    """
    if not any(_doubtful(word, rules, checked) for word in words):
        return
    for target in targets():
        check_target(target, rules, checked)


def _doubtful(word: str, rules: Mapping[str, Sequence[str]], checked: Plan) -> bool:
    """Whether a word might be a target that is not there."""
    if word.startswith("-") or "=" in word or word.isdigit() or Path(word).exists():
        return False
    try:
        check_target(word, rules, checked)
    except ConfigError:
        return True
    return False
