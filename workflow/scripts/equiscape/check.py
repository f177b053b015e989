"""Check an extension before any study uses it.

::

    python -m equiscape.check architecture mylab.nets:SchNet --plugins path
    python -m equiscape.check optimizer mypackage.soap:SOAP --settings "{betas: [0.9, 0.95]}"
    python -m equiscape.check dataset mylab.data --plugins path
    python -m equiscape.check analysis mylab.measures --plugins path
    python -m equiscape.check study study.yaml

What the source shows is checked as before a study's first job; then the thing itself is built and
tried. The exit status is 0 where all holds, else 1, with one sentence.
"""

import argparse
import copy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equiscape.analyses import ANALYSES, plugin_analysis
from equiscape.configuration import entries, local, parameters, start
from equiscape.configuration.kinds import Kind, kind_of
from equiscape.configuration.reading import read_config
from equiscape.data import KINDS
from equiscape.declarations import declared, nested
from equiscape.errors import ConfigError, EquiscapeError
from equiscape.models import ARCHITECTURES
from equiscape.models import build as build_network
from equiscape.optim import build_optimizer
from equiscape.registry import is_import_path, lookup, target, unknown
from equiscape.settings import check
from equiscape.source import body_of

SCHEMA = Path(__file__).resolve().parents[2] / "schemas/config.schema.yaml"


def check_architecture(
    name: str, settings: Mapping[str, Any] | None = None, plugins: Sequence[str] = ()
) -> str:
    """Build a network for a kind of data that it reads, and try what a study asks of one.

    Raises:
        ConfigError: it does not hold the contract of :mod:`equiscape.models`.
    """
    import torch

    kind = _readable(name, plugins)
    arguments, inputs, size = _example(kind)
    torch.manual_seed(0)
    model: Any = build_network(name, arguments, settings or {}, "settings").double()
    outputs = arguments.get("num_outputs", 1)
    doubled = tuple(
        x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs
    )
    modules = dict(model.named_modules())
    for part in model.non_hidden:
        if part not in modules:
            raise unknown(part, modules, f"{name}: non_hidden")
    seen: dict[str, Any] = {}
    layers = model.representations()
    for key, module in layers.items():
        if module not in modules.values():
            raise ConfigError(f"{name}: representations() gives {key!r}, which is no submodule.")
        module.register_forward_hook(lambda _, __, out, key=key: seen.__setitem__(key, out))
    model.eval()
    out = model(*doubled)
    if tuple(out.shape) != (size, outputs) or not out.isfinite().all():
        raise ConfigError(f"{name}: forward gives {tuple(out.shape)}, not ({size}, {outputs}).")
    for key in layers:
        value = seen.get(key)
        value = value[0] if isinstance(value, tuple) else value
        if not isinstance(value, torch.Tensor) or value.dim() not in (2, 3):
            raise ConfigError(
                f"{name}: the layer {key!r} of representations() gives no tensor of 2 or 3 axes."
            )
    _check_matrices(name, model)
    _check_second_derivatives(name, model, doubled)
    count = sum(p.numel() for p in model.parameters())
    return f"{name} reads data of kind {kind.name}: {count} parameters, {len(layers)} layers"


def _check_matrices(name: str, model: Any) -> None:
    """Refuse a learned matrix that is no 2-D weight of a linear map or an embedding."""
    from torch import nn

    kinds = (nn.Linear, nn.Embedding)
    known = {id(m.weight) for m in model.modules() if isinstance(m, kinds)}
    for key, parameter in model.named_parameters():
        if parameter.dim() >= 2 and id(parameter) not in known:
            raise ConfigError(
                f"{name}: {key} {tuple(parameter.shape)} is no weight of an nn.Linear or "
                "nn.Embedding, so Muon and the ranks would miss it; use one."
            )


def _check_second_derivatives(name: str, model: Any, inputs: tuple) -> None:
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = model(*inputs).square().mean()
    first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    total: Any = sum(g.square().sum() for g in first if g is not None)
    try:
        second = torch.autograd.grad(total, parameters, allow_unused=True)
    except RuntimeError as error:
        raise ConfigError(f"{name}: it has no second derivatives ({error}).") from error
    if not all(g.isfinite().all() for g in second if g is not None):
        raise ConfigError(f"{name}: a second derivative is not finite.")


def _readable(name: str, plugins: Sequence[str]) -> Kind:
    """A kind of data with samples at hand that a network reads.

    Raises:
        ConfigError: there is none.
    """
    errors = []
    for kind in (kind_of(name, "kind", plugins) for name in KINDS):
        if kind.example is None:
            continue
        try:
            entries.architecture({"architecture": name}, kind, "", plugins)
            return kind
        except ConfigError as error:
            errors.append(str(error).removeprefix(".architecture: "))
    raise ConfigError(errors[0])


def _example(kind: Kind) -> tuple[dict[str, Any], tuple, int]:
    """What a kind dictates to a network, the inputs of a small batch, and its size."""
    if kind.samples == "graphs":
        return _graphs()
    target = {"target": kind.targets[0]} if kind.targets else {}
    return _prepared(kind, {"kind": kind.name, **(kind.example or {}), **target})


def _prepared(kind: Kind, entry: dict[str, Any]) -> tuple[dict[str, Any], tuple, int]:
    """The same of a data set that needs no source, prepared and loaded."""
    import torch

    module = lookup(KINDS, kind.name, "kind")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "example.h5"
        module.prepare({"name": "example", **entry}, None, path)
        dataset = module.load(path, torch.device("cpu"), entry)
    plan = dataset.plan("train", 4)
    batch = dataset.gather("train", plan[0])
    arguments = dataset.model_arguments()
    if kind.arguments is not None and set(arguments) != set(kind.arguments):
        raise ConfigError(f"{kind.name}: model_arguments() gives {', '.join(arguments)}.")
    if kind.inputs is not None and len(batch.inputs) != len(kind.inputs):
        raise ConfigError(f"{kind.name}: a batch has {len(batch.inputs)} inputs, not INPUTS.")
    return arguments, batch.inputs, batch.size


def _graphs() -> tuple[dict[str, Any], tuple, int]:
    """Three rings of five nodes with typed nodes and edges and random-walk encodings."""
    import torch

    ring = torch.arange(5)
    edges = torch.stack([torch.cat([ring, (ring + 1) % 5]), torch.cat([(ring + 1) % 5, ring])])
    generator = torch.Generator().manual_seed(0)
    features = torch.randint(4, (15, 2), generator=generator)
    arguments = {"num_outputs": 2, "node_categories": [4, 4], "edge_categories": [3]}
    inputs = (
        features,
        torch.cat([edges + 5 * i for i in range(3)], dim=1),
        torch.randint(3, (30, 1), generator=generator),
        torch.rand(15, 3, generator=generator),
        torch.arange(3).repeat_interleave(5),
        3,
    )
    return arguments | {"walk_steps": 3}, inputs, 3


def check_optimizer(
    name: str, settings: Mapping[str, Any] | None = None, plugins: Sequence[str] = ()
) -> str:
    """Build an optimizer, step with it, and resume from its state.

    Raises:
        ConfigError: it does not hold the contract of :mod:`equiscape.optim`.
    """
    import torch
    from torch import nn

    entry = {"class": name, "settings": dict(settings or {})}
    entries.optimizer_entry(entry, "optimizer", plugins)

    def step(model: Any, optimizer: Any, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        optimizer.zero_grad(set_to_none=True)
        model(torch.randn(8, 12, generator=generator)).square().mean().backward()
        optimizer.step()

    def made() -> tuple[Any, Any]:
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3))
        model.non_hidden = ("2",)
        optimizer, _ = build_optimizer(model, entry, 1e-3, 1e-2)
        if hasattr(optimizer, "plan"):
            optimizer.plan(4)
        return model, optimizer

    model, optimizer = made()
    before = [p.detach().clone() for p in model.parameters()]
    step(model, optimizer, 1)
    after = list(model.parameters())
    if not all(p.isfinite().all() for p in after):
        raise ConfigError(f"{name}: a step makes a parameter infinite.")
    if any(torch.equal(a, b) for a, b in zip(before, after)):
        raise ConfigError(f"{name}: a step leaves a parameter as it was.")
    other, resumed = made()
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer, 2)
    step(other, resumed, 2)
    if any(not torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters())):
        raise ConfigError(f"{name}: its state_dict does not hold all that a step depends on.")
    return f"{name} steps, and resumes from its state"


def check_dataset(
    name: str, settings: Mapping[str, Any] | None = None, plugins: Sequence[str] = ()
) -> str:
    """Read what a kind of data declares; one that needs no source is prepared and loaded.

    Raises:
        ConfigError: it does not hold the contract of :mod:`equiscape.data`.
    """
    kind = kind_of(name, "dataset", plugins)
    functions = {getattr(line, "name", "") for line in body_of(kind.target, plugins)[1]}
    functions |= set(_imported(kind.target, plugins))
    for needed in ("prepare", "load"):
        if needed not in functions:
            raise ConfigError(f"{name} has no {needed}(); see docs/extending.md.")
    own = check(settings, kind.settings, "settings", plugins=plugins, complete=kind.embedded)
    if not kind.embedded:
        return f"{name} declares {len(kind.settings.settings)} settings; it was not prepared"
    entry = {"kind": name, **own, **({"target": kind.targets[0]} if kind.targets else {})}
    _, inputs, size = _prepared(kind, entry)
    return f"{name} is prepared and loaded: batches of {len(inputs)} inputs, {size} samples"


def _imported(where: str, plugins: Sequence[str]) -> list[str]:
    return list(body_of(where.partition(":")[0], plugins)[0].imports)


def check_analysis(
    name: str, settings: Mapping[str, Any] | None = None, plugins: Sequence[str] = ()
) -> str:
    """Read what an analysis declares.

    Raises:
        ConfigError: it does not hold the contract of :mod:`equiscape.analyses`.
    """
    line = ANALYSES.get(name) or plugin_analysis(name, plugins, "analysis")
    declaration = nested(line.module, "Settings", plugins)
    measure = declared(f"{line.module}:measure", plugins)
    if declaration is None:
        raise ConfigError(f"{name} has no Settings; give it a frozen dataclass of that name.")
    if len(measure.settings) != 2:
        raise ConfigError(f"{name}: measure takes (subject, settings).")
    check(settings, declaration, "settings", plugins=plugins)
    return f"{name} is over {line.over}, with {len(declaration.settings)} settings"


def check_study(path: str, settings: Any = None, plugins: Sequence[str] = ()) -> str:
    """Check a study's file as before its first job, the names of parameters in it included.

    Raises:
        ConfigError: one sentence about the first fault.
    """
    checked = start.study(read_config(path), SCHEMA, [path])
    local.check_local_files(checked)
    with tempfile.TemporaryDirectory() as folder:
        parameters.refuse_unknown_names(checked, folder)
    tasks, optimizers = len(checked.tasks), len(checked.optimizers)
    return f"{path} is a study of {tasks} tasks and {optimizers} optimizers"


CHECKS = {
    "architecture": check_architecture,
    "optimizer": check_optimizer,
    "dataset": check_dataset,
    "analysis": check_analysis,
    "study": check_study,
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one check from the command line; 0 where all holds."""
    parser = argparse.ArgumentParser(
        prog="python -m equiscape.check", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("what", choices=CHECKS)
    parser.add_argument("name", help="a registered name, an import path, or a study's file")
    parser.add_argument("--plugins", nargs="*", default=[], help="folders to import from")
    parser.add_argument("--settings", default="{}", help="settings, as YAML")
    given = parser.parse_args(words)
    sys.path[1:1] = given.plugins
    import yaml

    try:
        settings = yaml.safe_load(given.settings)
        if given.what == "architecture" and not is_import_path(given.name):
            target(ARCHITECTURES, given.name, "architecture")
        print(CHECKS[given.what](given.name, settings, given.plugins))
    except (EquiscapeError, yaml.YAMLError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
