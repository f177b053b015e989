"""Optimizers: a registered class and its settings, built for a network by one function.

Importing this package imports no torch, so that the workflow can check names cheaply.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from equiscape.errors import ConfigError
from equiscape.registry import call, lookup

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

OPTIMIZERS = {
    "adamw": "equiscape.optim.adamw:AdamW",
    "muon": "equiscape.optim.muon:Muon",
    "sgd": "equiscape.optim.sgd:SGD",
    "lion": "equiscape.optim.lion:Lion",
    "polar-adamw": "equiscape.optim.polar_adamw:PolarAdamW",
    "shampoo": "equiscape.optim.shampoo:Shampoo",
    "soap": "equiscape.optim.soap:SOAP",
    "soap-muon": "equiscape.optim.soap_muon:SOAPMuon",
    "schedule-free-adamw": "equiscape.optim.schedule_free:ScheduleFreeAdamW",
    "switch": "equiscape.optim.switch:Switch",
}


def build_optimizer(
    model: "nn.Module", entry: Mapping[str, Any], lr: float | str, wd: float | str
) -> tuple["Optimizer", dict[str, list[str]]]:
    """The optimizer that a configuration entry describes, for all parameters of ``model``.

    A class with a true attribute ``orthogonalizes`` gets two parameter groups, split by the rule
    of :mod:`equiscape.optim.groups`; one with a true attribute ``composes`` gets the network and
    builds the entries that its ``NESTED`` settings are; every other class gets one group. Weight
    decay applies to all parameters alike, as in ``torch.optim``; it is decoupled for every class
    but ``sgd``, where it is an L2 penalty.

    Args:
        model: a network; its attribute ``non_hidden`` names its first and last layers.
        entry: ``{"class": registered name, "settings": {...}}``.
        lr, wd: learning rate and weight decay; strings are read as numbers.

    Returns:
        The optimizer, and the names of the parameters that each algorithm updates, such as
        ``{"muon": [...], "adamw": [...]}``.

    Raises:
        ConfigError: the class or a setting is unknown, or a value is out of range.
    """
    from equiscape.optim.groups import parameter_groups, skip_compiler_import

    skip_compiler_import()
    key = entry.get("key") or f"optimizers.{entry.get('name', '*')}"
    if "class" not in entry:
        raise ConfigError(f"{key}.class is missing; give one of: {', '.join(sorted(OPTIMIZERS))}.")
    cls = lookup(OPTIMIZERS, entry["class"], f"{key}.class")
    settings = {k: number(v) for k, v in (entry.get("settings") or {}).items()}
    arguments: dict[str, Any] = {"lr": float(lr), "weight_decay": float(wd)}
    if getattr(cls, "composes", False):
        arguments["params"], split = model, None
        for nested in cls.NESTED:
            if isinstance(settings.get(nested), Mapping):
                settings[nested] = {**settings[nested], "key": f"{key}.settings.{nested}"}
    else:
        arguments["params"], split = parameter_groups(model, cls, entry["class"], settings)
    try:
        optimizer = call(cls, f"{key}.settings", settings, **arguments)
        return optimizer, optimizer.split if split is None else split
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}.settings: {str(error).rstrip('.')}.") from error


def number(value: Any) -> Any:
    """``value`` as a float if it is a string that spells one: YAML 1.1 reads ``1e-8`` as text."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
