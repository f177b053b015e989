"""The final cells on the study's page: outcome, settings, provenance and log of each."""

import html
import json
from pathlib import Path
from typing import Any

import equiscape
from equiscape.io import read_json
from equiscape.report.html import block
from equiscape.report.load import number, spelled
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import significant

LOG_LINES = 40
"""Lines at the end of a log that the page shows."""


def table(manifest: Manifest) -> str:
    """Every final cell with its outcome, as Markdown."""
    rows = [
        "| cell | lr | wd | status | epochs | seconds | memory (MB) | device |",
        "|:-|:-|:-|:-|:-|:-|:-|:-|",
    ]
    for task, optimizer in manifest.pairs:
        for seed in manifest.seeds:
            data = read_json(manifest.final(task, optimizer, seed), "metrics")
            device = (data.get("provenance") or {}).get("device", "")
            rows.append(
                f"| {task} {optimizer} seed {seed} | {spelled(data['lr'])} | "
                f"{spelled(data['wd'])} | {data['status']} | {data['epochs']} | "
                f"{significant(number(data.get('seconds')), 3)} | "
                f"{significant(number(data.get('peak_memory_mb')), 3)} | {device} |"
            )
    return "\n".join(rows)


def details(manifest: Manifest, root: Path) -> str:
    """A folded part for each final cell: settings, provenance, checksums, the end of its log.

    Args:
        root: folder of the page, which the links start from.
    """
    return "\n".join(
        _cell(manifest, root, task, optimizer, seed)
        for task, optimizer in manifest.pairs
        for seed in manifest.seeds
    )


def _cell(manifest: Manifest, root: Path, task: str, optimizer: str, seed: int) -> str:
    folder = f"final/{task}_{optimizer}/seed{seed}"
    data = read_json(manifest.final(task, optimizer, seed), "metrics")
    settings = {
        "task": manifest.tasks[task],
        "optimizer": manifest.optimizers[optimizer],
        **{key: data.get(key) for key in ("lr", "wd", "seed", "status", "steps", "parameters")},
    }
    log = f"logs/{folder}.log"
    lines = (
        (root / log).read_text("utf-8", "replace").splitlines() if (root / log).is_file() else []
    )
    told = "\n".join(lines[-LOG_LINES:])
    shown = {"settings": settings, "scores": data.get("at"), "sha256": data.get("sha256")}
    shown["provenance"] = data.get("provenance")
    parts = [
        f"<details><summary>{html.escape(f'{task} {optimizer} seed {seed}')}</summary>",
        f'<p class="soft"><a href="{folder}/metrics.json">metrics.json</a>, '
        f'<a href="{folder}/history.csv">history.csv</a>, <a href="{log}">log</a> (beside this '
        "page)</p>",
        *(_pre(name, value) for name, value in shown.items() if value),
        f"<h5>{'last lines of the log' if len(lines) > LOG_LINES else 'log'}</h5>"
        f"<pre>{html.escape(told)}</pre>"
        if told
        else f"<p>No log lies at {html.escape(log)}.</p>",
        "</details>",
    ]
    return "\n".join(parts)


def _pre(name: str, value: Any) -> str:
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    return f"<h5>{name}</h5><pre>{html.escape(text)}</pre>"


def origins(manifest: Manifest) -> tuple[list[str], dict[str, set[str]]]:
    """Revisions of the code, and package -> versions, of all final cells."""
    revisions: set[str] = set()
    packages: dict[str, set[str]] = {}
    for path in manifest.products("metrics"):
        came = read_json(path, "metrics").get("provenance") or {}
        revisions.add(came.get("revision", "unknown"))
        for package, version in (came.get("versions") or {}).items():
            packages.setdefault(package, set()).add(version)
    return sorted(revisions), packages


def versions(revisions: list[str], packages: dict[str, set[str]]) -> str:
    """What :func:`origins` found, as Markdown."""
    lines = [f"- Code: `{', '.join(revisions)}`"]
    lines += [f"- {name}: {', '.join(sorted(found))}" for name, found in sorted(packages.items())]
    return "\n".join(lines)


def citation(revisions: list[str]) -> str:
    """How to cite the software, at the ``revisions`` of the cells, and the study that it reruns."""
    entries = f"""@software{{equiscape,
  title  = {{Equiscape: how the optimizer shapes what equivariant and geometric networks learn}},
  author = {{{{The Equiscape contributors}}}},
  version = {{{equiscape.__version__}}},
  year   = {{2026}},
  note   = {{revision {", ".join(revisions)}}}
}}
@misc{{optimizer-shapes,
  title  = {{How the Optimizer Shapes Learned Solutions in Equivariant Neural Networks}},
  year   = {{2026}},
  note   = {{arXiv 2605.27662}}
}}"""
    return (
        block(
            f"Cite the software, version {equiscape.__version__} at the revision that made these "
            "cells, and the study that it reruns (arXiv 2605.27662). The entries for BibTeX:"
        )
        + f"<pre>{html.escape(entries)}</pre>"
    )
