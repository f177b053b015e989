"""Which parameters an orthogonalising optimizer takes, and which it leaves to AdamW."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

MIN_SIDE = 8


def split_parameters(model: nn.Module, min_side: int = MIN_SIDE) -> dict[str, list[str]]:
    """Divide the names of a network's parameters between Muon and AdamW.

    Muon takes every 2-D parameter that

    - lies in no submodule named by ``model.non_hidden`` (first and last layers),
    - belongs to no :class:`torch.nn.Embedding` (a row is looked up, not multiplied by), and
    - has no side shorter than ``min_side`` (orthogonalising a 1 x H row only normalises it).

    AdamW takes the rest: biases, norms, embeddings, first and last layers and thin matrices.

    Returns:
        ``{"muon": names, "adamw": names}``, each in the network's own order.
    """
    outside = tuple(f"{name}." for name in getattr(model, "non_hidden", ()))
    embedding = tuple(
        f"{name}." for name, module in model.named_modules() if isinstance(module, nn.Embedding)
    )
    split: dict[str, list[str]] = {"muon": [], "adamw": []}
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim == 2 and min(parameter.shape) >= min_side
        hidden = hidden and not f"{name}.".startswith(outside + embedding)
        split["muon" if hidden else "adamw"].append(name)
    return split


def parameter_groups(
    model: nn.Module, cls: type[Optimizer], name: str, settings: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """The parameter groups that ``cls`` expects, and the names that each algorithm updates.

    ``settings`` loses ``min_side`` where ``cls`` orthogonalises.
    """
    parameters = dict(model.named_parameters())
    if not getattr(cls, "orthogonalises", False):
        return [{"params": list(parameters.values())}], {name: list(parameters)}
    split = split_parameters(model, int(settings.pop("min_side", MIN_SIDE)))
    groups = [
        {"params": [parameters[name] for name in names], "algorithm": algorithm}
        for algorithm, names in split.items()
        if names
    ]
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
