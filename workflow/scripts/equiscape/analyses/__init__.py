"""Analyses: what is measured at checkpoints, one module each, and the registry of them.

An analysis module has

* ``Settings``, a frozen dataclass: the settings of its entry under ``analyses`` in the
  configuration, each documented;
* ``measure(subject, settings) -> Result``: a :class:`~equiscape.analyses.subject.Subject` is a task
  and its checkpoints, a :class:`~equiscape.analyses.result.Result` plain values, a table or arrays.
  An analysis over the whole study takes a list of subjects, one a task.

Everything else (rules, paths, envelope of the result) follows from the line in the registry. This
module imports no torch, since every Snakemake process reads it.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from equiscape.errors import ConfigError

Over = Literal["representative", "final", "snapshots", "pair", "study"]


@dataclass(frozen=True)
class Analysis:
    """A line of the registry.

    Attributes:
        module: where ``Settings`` and ``measure`` are.
        over: what one result is about: ``representative`` (one checkpoint; every final seed where
            the configuration says ``seeds: all``), ``final`` (every final seed of a task and an
            optimizer), ``snapshots`` (the kept epochs of the representative; of every final seed,
            one result each, with ``seeds: all``), ``pair`` (the final seeds of
            two optimizers of a task, or of one optimizer with itself as the baseline), ``study``.
        suffix: of the result's file: ``.json``, ``.csv`` or ``.h5``.
        runtime: minutes that a job asks the cluster for.
        version: raised where the meaning of a result changes; reruns this analysis alone.
        mem_mb: host memory that a job asks for first.
        inputs: products of the task's data set that it reads too; ``corrupted`` are the corrupted
            test clouds, so the analysis passes over tasks without them.
    """

    module: str
    over: Over
    suffix: Literal[".json", ".csv", ".h5"]
    runtime: int
    version: int = 1
    mem_mb: int = 8000
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.over not in get_args(Over):
            raise ConfigError(f"{self.module}: over={self.over!r} must be one of {get_args(Over)}.")
        if self.suffix not in (".json", ".csv", ".h5"):
            raise ConfigError(f"{self.module}: suffix={self.suffix!r} must be .json, .csv or .h5.")

    @property
    def of_one_cell(self) -> bool:
        """Whether a result is about one final cell: the representative, or each of them."""
        return self.over in ("representative", "snapshots")


ANALYSES = {
    "hessian": Analysis(
        "equiscape.analyses.hessian", "representative", ".json", runtime=240, version=2
    ),
    "slice": Analysis("equiscape.analyses.slice", "representative", ".h5", runtime=240, version=2),
    "rank": Analysis("equiscape.analyses.rank", "representative", ".csv", runtime=60),
    "robustness": Analysis(
        "equiscape.analyses.robustness", "final", ".csv", runtime=60, inputs=("corrupted",)
    ),
    "truncation": Analysis("equiscape.analyses.truncation", "representative", ".csv", runtime=60),
    "symmetry": Analysis("equiscape.analyses.symmetry", "representative", ".csv", runtime=120),
    "connectivity": Analysis(
        "equiscape.analyses.connectivity", "pair", ".csv", runtime=240, version=3
    ),
    "sharpness": Analysis("equiscape.analyses.sharpness", "final", ".csv", runtime=480, version=2),
    "dynamics": Analysis(
        "equiscape.analyses.dynamics", "snapshots", ".csv", runtime=480, version=2
    ),
    "representation": Analysis("equiscape.analyses.representation", "study", ".csv", runtime=60),
    "representation-connectivity": Analysis(
        "equiscape.analyses.representation_connectivity", "study", ".csv", runtime=60
    ),
    "constrained-landscape": Analysis(
        "equiscape.analyses.constrained_landscape", "study", ".csv", runtime=60
    ),
}


def plugin_source(module: str, folders: Iterable[str | Path], key: str) -> Path:
    """The file of a plug-in's ``module`` in one of the ``plugins`` folders.

    Raises:
        ConfigError: no folder holds it; the message names ``key``.
    """
    relative = Path(*module.split(".")).with_suffix(".py")
    for folder in folders:
        if (path := Path(folder) / relative).is_file():
            return path
    raise ConfigError(f"{key}: no folder of `plugins` holds {relative}; add the folder that does.")


def plugin_analysis(module: str, folders: Iterable[str | Path], key: str) -> Analysis:
    """The line of the registry that a plug-in's module carries, read without importing it.

    The module assigns ``ANALYSIS = Analysis(__name__, over=..., suffix=..., runtime=...)`` at its
    top level, with literal keywords.

    Raises:
        ConfigError: the module is absent or has no such line.
    """
    path = plugin_source(module, folders, key)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and [ast.unparse(target) for target in node.targets] == ["ANALYSIS"]
        ):
            keywords = {str(k.arg): ast.literal_eval(k.value) for k in node.value.keywords}
            return Analysis(module, **keywords)
    raise ConfigError(
        f"{key}: {path} has no ANALYSIS = Analysis(__name__, over=..., suffix=..., runtime=...); "
        "add that line."
    )
