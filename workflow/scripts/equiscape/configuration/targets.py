"""Requested targets: one that no rule makes is answered with what was probably meant."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

from equiscape.errors import ConfigError
from equiscape.registry import unknown

WILDCARD = re.compile(r"\{(\w+)(?:,[^{}]*)?\}")
CANDIDATES = 5000  # compared with a misspelled target at most


def check_target(target: str, rules: Mapping[str, Sequence[str]], study: Any) -> None:
    """Refuse a ``target`` that is neither a rule nor a file that a rule of the study makes.

    Args:
        target: as given on the command line.
        rules: name -> patterns of the files that the rule makes, ``{wildcards}`` included.
        study: an :class:`equiscape.study.Plan`.

    Raises:
        ConfigError: naming the part that is wrong, or the nearest target.
    """
    if target in rules:
        return
    faults = []
    for pattern in (pattern for patterns in rules.values() for pattern in patterns):
        match = _regex(pattern).fullmatch(target)
        if match is None:
            continue
        fault = _fault(target, pattern, match.groupdict(), study)
        if fault is None:
            return
        faults.append(fault)
    if faults:
        raise faults[0]
    if not Path(target).exists():
        raise _nothing_makes(target, rules, study)


def _regex(pattern: str) -> re.Pattern:
    """``pattern`` with a group for each wildcard; no wildcard of this project holds a slash."""
    seen: set[str] = set()
    parts, at = [], 0
    for match in WILDCARD.finditer(pattern):
        parts.append(re.escape(pattern[at : match.start()]))
        name = match[1]
        parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/_]+)")
        seen.add(name)
        at = match.end()
    return re.compile("".join([*parts, re.escape(pattern[at:])]))


def _fault(target: str, pattern: str, values: Mapping[str, str], study: Any) -> ConfigError | None:
    """What is wrong with the values of the wildcards, if anything is."""
    for name, value in values.items():
        known = _values(name, pattern, values, study)
        if known is not None and value not in known:
            what = {"first": "optimizer", "second": "optimizer"}.get(name, name)
            return unknown(value, known, f"the {what} of {target}")
    return None


def _values(name: str, pattern: str, values: Mapping[str, str], study: Any) -> Sequence[str] | None:
    """The values that a wildcard takes beside the others in ``values``; None for any."""
    in_grid = "{lr}" in pattern
    if name == "task":
        return list(study.tasks)
    if name in ("optimizer", "first", "second"):
        return list(study.optimizers)
    if name == "dataset":
        return list(study.datasets)
    if name == "seed":
        seeds = study.config["selection"]["seeds"] if in_grid else study.seeds
        return [str(seed) for seed in seeds]
    if name in ("lr", "wd") and values.get("optimizer") in study.optimizers:
        cells = study.grid(values["optimizer"])
        return list(dict.fromkeys(cell[0 if name == "lr" else 1] for cell in cells))
    if name == "epoch" and values.get("task") in study.tasks:
        return [str(epoch) for epoch in study.snapshots(values["task"])]
    return None


def _nothing_makes(target: str, rules: Mapping[str, Sequence[str]], study: Any) -> ConfigError:
    """The error with the nearest target."""
    files = (f for patterns in rules.values() for p in patterns for f in _expand(p, study))
    close = get_close_matches(target, [*rules, *islice(files, CANDIDATES)], n=1, cutoff=0.6)
    if not close and "/" in target:  # the patterns themselves, where the study is large
        patterns = [pattern for made in rules.values() for pattern in made]
        close = get_close_matches(target, patterns, n=1, cutoff=0.3)
    hint = f"did you mean {close[0]!r}" if close else "`snakemake --list` shows the rules"
    return ConfigError(f"{target}: no rule makes it; {hint}.")


def _filled(values: Mapping[str, str], match: re.Match[str]) -> str:
    """The value of the wildcard that was found."""
    return values[match[1]]


def _expand(pattern: str, study: Any) -> Iterable[str]:
    """Files of ``pattern``, wildcard by wildcard."""
    names = list(dict.fromkeys(match[1] for match in WILDCARD.finditer(pattern)))
    outer = [name for name in names if name not in ("lr", "wd", "epoch")]
    inner = [name for name in names if name not in outer]
    for chosen in product(*(_values(name, pattern, {}, study) or ["1"] for name in outer)):
        values = dict(zip(outer, chosen))
        for rest in product(*(_values(name, pattern, values, study) or ["0"] for name in inner)):
            filled = {**values, **dict(zip(inner, rest))}
            yield WILDCARD.sub(partial(_filled, filled), pattern)
