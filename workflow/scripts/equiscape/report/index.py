"""The study's one page: what was found, what to distrust, every figure and table, in one file."""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from equiscape.errors import DataError
from equiscape.io import atomic_path, read_json
from equiscape.report import cells, pages, style, titles
from equiscape.report.html import block, data_uri, items
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import significant

ASSETS = Path(__file__).parent / "assets"
FEW = 5
"""Fewer seeds than these are called few."""


def highlights(manifest: Manifest) -> list[str]:
    """What the pages of the study found, computed sentence by sentence."""
    return _collect(manifest, "highlights")


def warnings(manifest: Manifest) -> list[str]:
    """What of the study is not to be relied on."""
    found = []
    kinds = {task["kind"] for task in manifest.tasks.values() if task["generated"]}
    if kinds:
        found.append(
            f"The data are generated stand-ins ({', '.join(sorted(kinds))}): the figures show how "
            "the workflow works and settle nothing about real data."
        )
    if len(manifest.seeds) < FEW:
        found.append(
            f"There are {len(manifest.seeds)} final seeds; the page on statistics says what so few "
            "can show."
        )
    tied = [
        f"{task} with {optimizer}"
        for task, optimizer in manifest.pairs
        if manifest.representative(task, optimizer).exists()
        and read_json(manifest.representative(task, optimizer), "representative")["tied"]
    ]
    if tied and len(manifest.seeds) > 2:
        found.append(f"Several seeds are equally near the mean (the first is taken): {tied}.")
    elif tied:
        found.append(
            "With two seeds both are equally near the mean, so the representative that is analyzed "
            "is simply the first."
        )
    return [*found, *_collect(manifest, "warnings")]


def _collect(manifest: Manifest, name: str) -> list[str]:
    found: list[str] = []
    for page in pages.pages(manifest):
        collect = getattr(pages.module(page), name, None)
        found += collect(manifest) if collect else []
    return found


def write_index(manifest: Manifest, output: str | Path) -> None:
    """Write the page from the products, and the tables and figures that lie beside ``output``.

    Everything is inside the file, images, tables, data of the interactive views and scripts, so
    that it reads the same from a disk without a network; links lead to the files beside it.

    Raises:
        DataError: a table or figure is missing.
    """
    root = Path(output).parent
    made = pages.pages(manifest)
    revisions, packages = cells.origins(manifest)
    groups: dict[str, list[str]] = {}
    for name, page in made.items():
        groups.setdefault(page.category, []).append(name)
    sections = [
        f'<section id="{_slug(category)}"><h2>{html.escape(category)}</h2>'
        + "\n".join(_page(manifest, root, name) for name in names)
        + "</section>"
        for category, names in groups.items()
    ]
    names = list(titles.optimizer_titles(manifest).values())
    title = f"{' and '.join(names) if len(names) < 3 else f'{len(names)} optimizers'} on " + (
        f"{len(manifest.tasks)} tasks" if len(manifest.tasks) > 1 else next(iter(manifest.tasks))
    )
    links = "".join(f'<li><a href="#{_slug(c)}">{html.escape(c)}</a></li>' for c in groups)
    text = TEMPLATE.format(
        title=html.escape(title),
        css=(ASSETS / "page.css").read_text(encoding="utf-8"),
        js=(ASSETS / "page.js").read_text(encoding="utf-8"),
        about=_about(manifest),
        links=links,
        findings=items(highlights(manifest), "findings")
        or "<p>There is one optimizer, so nothing is compared.</p>",
        warnings=items(warnings(manifest)),
        sections="\n".join(sections),
        interactive=INTERACTIVE,
        cells=block(cells.table(manifest)),
        details=cells.details(manifest, root),
        versions=block(cells.versions(revisions, packages)),
        citation=cells.citation(revisions),
        data=json.dumps(interactive(manifest), separators=(",", ":")).replace("</", "<\\/"),
    )
    with atomic_path(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _slug(text: str) -> str:
    return text.lower().replace(" ", "-")


def _page(manifest: Manifest, root: Path, name: str) -> str:
    """One page's figures and tables, with a link to its notebook."""
    page = pages.pages(manifest)[name]
    parts = [f'<h3 id="page-{name}">{html.escape(page.title)}</h3>']
    for stem, entry in page.outputs(manifest).items():
        path = root / "figures" / f"{stem}.png"
        if not path.exists():
            raise DataError(f"{path} does not exist; run the rule that writes it first.")
        task = entry["labels"]["task"]
        about = f"{manifest_title(manifest, task)}: " if task != "all" else ""
        caption = html.escape(about + entry["caption"])
        parts.append(
            f'<figure><img src="{data_uri(path, "image/png")}" alt="{caption}">'
            f'<figcaption>{caption} <a href="figures/{stem}.pdf">PDF</a></figcaption></figure>'
        )
    for stem in page.tables:
        path = root / "tables" / f"{stem}.md"
        if not path.exists():
            raise DataError(f"{path} does not exist; run the rule that writes it first.")
        csv = path.with_suffix(".csv")
        body = block(path.read_text(encoding="utf-8"), 4)
        if stem == "rank":  # one row per layer: folded away
            body = f"<details><summary>Layer by layer</summary>{body}</details>"
        parts.append(
            body + f'<p class="soft"><a download="{stem}.csv" href="{data_uri(csv, "text/csv")}">'
            f'{stem}.csv</a> (all digits), <a href="tables/{stem}.tex">LaTeX</a></p>'
        )
    parts.append(
        f'<p class="soft">How to read this: <a href="notebooks/{name}.html">notebook</a>.</p>'
    )
    return "\n".join(parts)


def manifest_title(manifest: Manifest, task: str) -> str:
    """The title of a task of the study."""
    return titles.task_title(task, manifest.tasks[task])


def _about(manifest: Manifest) -> str:
    names = titles.optimizer_titles(manifest)
    tasks = ", ".join(titles.task_titles(manifest).values())
    datasets = dict.fromkeys(task["dataset"] for task in manifest.tasks.values())
    data = ", ".join(map(titles.dataset_title, datasets))
    rivals = [names[name] for name in manifest.rivals]
    compared = (
        f"{', '.join(rivals)} against {names[manifest.baseline]}"
        if rivals
        else (names[manifest.baseline])
    )
    return html.escape(
        f"{compared}; networks: {tasks}; data: {data}; {len(manifest.seeds)} final seeds an "
        "optimizer, each with the learning rate and weight decay that were best on validation data."
    )


def interactive(manifest: Manifest) -> dict[str, Any]:
    """What the interactive views draw: loss surfaces and spectra by task and optimizer."""
    names, tasks = titles.optimizer_titles(manifest), titles.task_titles(manifest)
    data: dict[str, Any] = {"surfaces": {}, "spectra": {}, "format": {}}
    made = pages.pages(manifest)
    if "slice" in made:
        slices = pages.module("slice")
        measured = slices.load(manifest)
        for task, title in tasks.items():
            planes = {o: measured[task, o] for o in names if (task, o) in measured}
            if not planes:
                continue
            shared = slices.levels(list(planes.values()))
            data["surfaces"][title] = {
                "low": float(shared[0]),
                "high": float(shared[-1]),
                "planes": {names[o]: _plane(plane) for o, plane in planes.items()},
            }
            chance = np.isfinite(max(plane.chance for plane in planes.values()))
            end = significant(float(shared[-1]), 3)
            data["format"][title] = f"the loss of chance, {end}" if chance else f"a loss of {end}"
    if "hessian" in made:
        measured = pages.module("hessian").load(manifest)
        color = style.colors(manifest)
        for task, title in tasks.items():
            series = {}
            for optimizer, name in names.items():
                if found := measured.get((task, optimizer)):
                    pairs = [_finite(pair) for pair in found[0]["eigenvalues"]]
                    series[name] = {"color": color[optimizer], "pairs": pairs}
            if series:
                data["spectra"][title] = series
    return data


def _plane(plane: Any) -> dict[str, Any]:
    loss = [
        [float(f"{value:.4g}") if np.isfinite(value) else None for value in row]
        for row in plane.loss
    ]
    return {
        "x": plane.x.tolist(),
        "y": plane.y.tolist(),
        "loss": loss,
        "center": significant(plane.center, 3),
    }


def _finite(pair: dict[str, Any]) -> dict[str, Any]:
    keys = ("value", "low", "high")
    numbers = {key: pair[key] if np.isfinite(pair[key]) else 0.0 for key in keys}
    return {**numbers, "converged": pair["converged"]}


INTERACTIVE = """<section id="interactive" class="interactive"><h2>Turn it yourself</h2>
<h3>Loss surface</h3>
<p class="soft">Drag, or use the arrow keys. Height and color are the logarithm of the training
loss; what lies above the loss of chance is cut off. All optimizers of a task share the scale.</p>
<div id="surface" class="views"></div>
<h3>Leading eigenvalues</h3>
<p class="soft">Point at a marker for its value and interval; hollow ones have not converged.</p>
<div id="spectrum"></div></section>"""

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Equiscape: {title}</title>
<link rel="icon" href="data:,">
<style>
{css}</style></head>
<body>
<header><h1>Does the optimizer change the solution? {title}</h1><p>{about}</p></header>
<nav aria-label="sections"><ul><li><a href="#findings">Findings</a></li>
<li><a href="#warnings">What to distrust</a></li>{links}
<li><a href="#interactive">Interactive</a></li><li><a href="#cells">Cells</a></li>
<li><a href="#cite">Cite</a></li></ul></nav>
<main>
<section id="findings"><h2>What was found</h2>{findings}</section>
<section id="warnings" class="warnings"><h2>What to distrust</h2>{warnings}</section>
{sections}
{interactive}
<section id="cells"><h2>Cells, logs and settings</h2>
<details><summary>Every final cell in a table</summary>{cells}</details>
<details><summary>Versions</summary>{versions}</details>
<h3>Settings, provenance and log of each final cell</h3>
{details}</section>
<section id="cite"><h2>How to cite</h2>
{citation}</section>
</main>
<footer><p>Made by Equiscape from the files beside this page.</p></footer>
<script type="application/json" id="data">{data}</script>
<script>
{js}</script>
</body></html>
"""
