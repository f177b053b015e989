"""Hooks of mkdocs: pages of the repository that lie outside ``docs/``, and links to them.

README.md is the site's first page. Whatever a page links to joins the site under its path in the
repository: a Markdown file as a page, any other file as it is.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = ("*.md", "docs/**/*.md", "config/*.md", "benchmarks/*.md")
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=(?:#[^)\s]*)?\))")
FENCE = re.compile(r"^(```.*?^```)", re.M | re.S)


def place(path: Path) -> str:
    """Where a file of the repository lies on the site, before mkdocs renames it."""
    base = DOCS if path.is_relative_to(DOCS) else ROOT
    return path.relative_to(base).as_posix()


def targets(page: Path, text: str) -> dict[str, Path]:
    """Every relative link of a page that leads to a file of the repository -> that file."""
    found = {}
    for link in LINK.findall(FENCE.sub("", text)):
        path = (page.parent / link).resolve()
        path = path / "README.md" if path.is_dir() else path
        if "://" not in link and path.is_file() and path.is_relative_to(ROOT):
            found[link] = path
    return found


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the repository and all that they link to."""
    waiting = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        if files.get_file_from_path(place(page)) is None:
            files.append(File.generated(config, place(page), abs_src_path=str(page)))
        if page.suffix != ".md":
            continue
        for path in targets(page, page.read_text(encoding="utf-8")).values():
            if path not in seen:
                seen.add(path)
                waiting.append(path)
    return files


def on_page_markdown(text: str, page: Any, config: Any, files: Files) -> str:
    """Point the links of a page to where their files lie on the site."""
    source = ROOT / page.file.src_uri
    source = source if source.is_file() else DOCS / page.file.src_uri
    known = targets(source, text)
    folder = os.path.dirname(page.file.src_uri)

    def moved(match: re.Match) -> str:
        path = known.get(match[1])
        return match[1] if path is None else os.path.relpath(place(path), folder or ".")

    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(moved, part) for part in parts)
