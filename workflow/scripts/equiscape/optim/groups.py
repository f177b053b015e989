"""Which parameters an orthogonalizing optimizer takes, and which it leaves to AdamW.

Settings of such an optimizer's entry:

- ``min_side``: by default it takes every 2-D parameter that lies in no submodule named by
  ``model.non_hidden`` (first and last layers), belongs to no :class:`torch.nn.Embedding` (a row is
  looked up, not multiplied by) and has no side shorter than this (orthogonalizing a 1 x H row only
  normalizes it).
- ``orthogonalize``: patterns of names, such as ``["edges.*.weight"]``, that say it instead. They
  are read in order; one that begins with ``!`` takes names away; ``hidden`` stands for the default
  rule's choice, so ``[hidden, "!edges.3.*"]`` is the default without one layer. Only 2-D
  parameters are ever chosen.
- ``blocks``: patterns of names to a number: the rows of such a matrix are that many matrices of
  equal height, orthogonalized one by one. A map whose output is one part a degree of a steerable
  feature is such a stack: each part has a basis of its own, and ``polar([A; B])`` mixes them.

Everything else goes to AdamW: biases, norms, embeddings, first and last layers and thin matrices.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import Optimizer

from equiscape.errors import ConfigError, listed

MIN_SIDE = 8
DEFAULT_RULE = "hidden"


def split_parameters(
    model: nn.Module, min_side: int = MIN_SIDE, patterns: Sequence[str] | None = None
) -> dict[str, list[str]]:
    """Divide the names of a network's parameters between Muon and AdamW.

    Args:
        model: the network; its attribute ``non_hidden`` names its first and last layers.
        min_side: of the default rule, see the module.
        patterns: instead of the default rule, see the module.

    Returns:
        ``{"muon": names, "adamw": names}``, each in the network's own order.

    Raises:
        ConfigError: a pattern matches no matrix.
    """
    outside = tuple(f"{name}." for name in getattr(model, "non_hidden", ()))
    embedding = tuple(
        f"{name}." for name, module in model.named_modules() if isinstance(module, nn.Embedding)
    )
    shapes = {name: p.shape for name, p in model.named_parameters()}
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    chosen = {
        name
        for name in matrices
        if min(shapes[name]) >= min_side and not f"{name}.".startswith(outside + embedding)
    }
    if patterns is not None:
        chosen = _select(patterns, matrices, chosen)
    return {
        "muon": [name for name in shapes if name in chosen],
        "adamw": [name for name in shapes if name not in chosen],
    }


def _select(patterns: Sequence[str], matrices: list[str], hidden: set[str]) -> set[str]:
    """The names that the patterns leave chosen."""
    if isinstance(patterns, str):
        raise ConfigError(f"orthogonalize: {patterns!r} must be a list of patterns.")
    chosen: set[str] = set()
    for pattern in patterns:
        if pattern == DEFAULT_RULE:
            chosen |= hidden
            continue
        matched = set(_matching(pattern.removeprefix("!"), matrices, "orthogonalize"))
        chosen = chosen - matched if pattern.startswith("!") else chosen | matched
    return chosen


def _matching(pattern: str, matrices: list[str], key: str) -> list[str]:
    matched = [name for name in matrices if fnmatchcase(name, pattern)]
    if not matched:
        raise ConfigError(
            f"{key}: {pattern!r} matches no matrix of the network; its matrices are: "
            f"{listed(matrices)}."
        )
    return matched


def count_blocks(
    model: nn.Module, names: Sequence[str], blocks: Mapping[str, int] | None
) -> list[int] | None:
    """For each of ``names``, how many matrices its rows are; None where all are one.

    Raises:
        ConfigError: a pattern matches no matrix, or a number does not divide the rows.
    """
    if not blocks:
        return None
    shapes = {name: p.shape for name, p in model.named_parameters() if p.ndim == 2}
    counts = dict.fromkeys(names, 1)
    for pattern, count in blocks.items():
        key = f"blocks.{pattern}"
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(f"{key}: {count!r} must be a positive whole number.")
        for name in _matching(pattern, list(shapes), "blocks"):
            if shapes[name][0] % count:
                raise ConfigError(
                    f"{key}: {count} does not divide the {shapes[name][0]} rows of {name}; "
                    "give the number of equal parts that its rows are."
                )
            if name in counts:
                counts[name] = count
    return [counts[name] for name in names]


def parameter_groups(
    model: nn.Module, cls: type[Optimizer], name: str, settings: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """The parameter groups that ``cls`` expects, and the names that each algorithm updates.

    ``settings`` loses what says which matrices where ``cls`` orthogonalizes.
    """
    parameters = dict(model.named_parameters())
    if not getattr(cls, "orthogonalizes", False):
        return [{"params": list(parameters.values())}], {name: list(parameters)}
    min_side = int(settings.pop("min_side", MIN_SIDE))
    split = split_parameters(model, min_side, settings.pop("orthogonalize", None))
    split = {getattr(cls, "algorithm", "muon"): split["muon"], "adamw": split["adamw"]}
    blocks = settings.pop("blocks", None)
    groups = []
    for algorithm, names in split.items():
        if not names:
            continue
        group: dict[str, Any] = {
            "params": [parameters[name] for name in names],
            "algorithm": algorithm,
        }
        if algorithm != "adamw":
            counts = count_blocks(model, names, blocks)
            group |= {"blocks": counts} if counts else {}
        groups.append(group)
    return groups, split


def skip_compiler_import() -> None:
    """Keep ``torch.optim`` from importing torch's compiler, which costs a job two seconds.

    Some methods of :class:`torch.optim.Optimizer` are wrapped so that the compiler, were it ever
    used, would not trace them; the wrapper imports the compiler on its first call. It first looks
    for a cached result on the function it wraps, so putting the function itself there skips the
    import. Where torch has no such wrapper, or compiles already, nothing happens.
    """
    import sys

    if "torch._dynamo" in sys.modules:
        return
    for method in vars(Optimizer).values():
        inner = getattr(method, "__wrapped__", None)
        if inner is not None and getattr(method, "__module__", "") == Optimizer.__module__:
            inner.__dict__.setdefault("__dynamo_disable", inner)
