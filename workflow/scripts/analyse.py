"""Run one analysis of the registry at the checkpoints that its rule names."""

import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from equiscape import io
from equiscape.analyses.partial import Partial
from equiscape.analyses.result import envelope, write
from equiscape.analyses.subject import load_subject
from equiscape.registry import call
from equiscape.runtime import conclude, job, resolve_device
from equiscape.settings import merge

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    name: str,
    module: str,
    version: int,
    over: str,
    tasks: list[dict],
    optimizers: list[str],
    settings: dict,
    execution: dict,
    files: list[dict],
    device: str,
    output: str,
    resume: str,
    started: float,
) -> None:
    """Load the subjects, measure them and write the result in its envelope.

    ``settings`` are those that the result depends on; ``execution`` changes speed and memory only.
    ``files`` holds, for each of the ``tasks``, the arguments of ``load_subject``. Stages that are
    finished are kept in the folder ``resume`` until all are.
    """
    where = resolve_device(device)
    analysis = import_module(module)
    checked = call(analysis.Settings, f"analyses.{name}", {**settings, **execution})
    subjects = [load_subject(task, device=where, **each) for task, each in zip(tasks, files)]
    partial = Partial(
        resume,
        {
            "analysis": [name, module, version, settings, execution, tasks],
            # not their bytes: those are read, and compared with their records, where they are used
            "files": [
                [str(path), path.stat().st_size, path.stat().st_mtime_ns]
                for subject, each in zip(subjects, files)
                for path in (
                    *(checkpoint.path for checkpoint in subject.checkpoints),
                    *subject.inputs.values(),
                    Path(each["data"]),
                )
            ],
            "code": io.code_hash(module),
            "device": [str(where), torch.__version__],
        },
    )
    subjects = [replace(subject, partial=partial) for subject in subjects]
    result = None
    if any(subject.checkpoints for subject in subjects):
        result = analysis.measure(subjects if over == "study" else subjects[0], checked)
    seconds = time.monotonic() - started
    head = envelope(
        name, version, subjects, optimizers, settings, where, seconds, [*tasks, settings]
    )
    write(output, result, head)
    partial.discard()
    conclude(result.summary() if result else "every cell diverged")


def files_of(snakemake: Any) -> list[dict]:
    """For each task of the job, the files that its subject is loaded from."""
    inputs = snakemake.input
    each: list[dict] = []
    for i, (task, data) in enumerate(zip(snakemake.params.tasks, inputs.data)):
        mine = f"/final/{task['name']}_"
        each.append(
            {
                "data": data,
                "choice": inputs.choice[0] if inputs.choice else None,
                "checkpoints": [path for path in inputs.checkpoints if mine in f"/{path}"],
                "metrics": [path for path in inputs.metrics if mine in f"/{path}"],
                "inputs": {name: inputs[name][i] for name in snakemake.params.inputs},
            }
        )
    return each


def execution_of(snakemake: Any) -> dict[str, Any]:
    """What changes only speed or memory: read from the configuration, so that it reruns nothing."""
    tasks = snakemake.config["tasks"]
    layers = [snakemake.config["analyses"]]
    layers += [tasks[task["name"]].get("analyses") for task in snakemake.params.tasks]
    merged = merge(*((layer or {}).get(snakemake.params.analysis) for layer in layers))
    return {key: merged[key] for key in snakemake.params.execution if key in merged}


if __name__ == "__main__":
    with job(snakemake) as start:
        main(
            name=snakemake.params.analysis,
            module=snakemake.params.module,
            version=snakemake.params.version,
            over=snakemake.params.over,
            tasks=snakemake.params.tasks,
            optimizers=snakemake.params.optimizers,
            settings=snakemake.params.settings,
            execution=execution_of(snakemake),
            files=files_of(snakemake),
            device=snakemake.resources.device,
            output=snakemake.output.result,
            resume=snakemake.resources.resume,
            started=start,
        )
