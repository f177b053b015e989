"""The Markdown that the tables' texts use, as HTML: headings, lists, tables, emphasis, code."""

import html
import re
from base64 import b64encode
from pathlib import Path

SEPARATOR = re.compile(r"\|[\s:|-]+\|")
INLINE = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"(?<![\w*])\*([^*]+)\*(?![\w*])"), r"<em>\1</em>"),
)
LONG = 44
"""Cells with more characters may wrap."""


def inline(text: str) -> str:
    """A line's text, escaped, with code and emphasis."""
    text = html.escape(text, quote=False)
    for pattern, made in INLINE:
        text = pattern.sub(made, text)
    return text


def block(text: str, level: int = 3) -> str:
    """A Markdown text as HTML; its first heading becomes one of ``level``."""
    made = []
    for part in re.split(r"\n\s*\n", text.strip()):
        lines = part.strip().split("\n")
        heading = re.match(r"(#+) (.*)", lines[0])
        if heading:
            depth = min(level + len(heading[1]) - 1, 6)
            made.append(f"<h{depth}>{inline(heading[2])}</h{depth}>")
            lines = lines[1:]
        if not lines:
            continue
        if lines[0].startswith("|"):
            made.append(table(lines))
        elif all(line.startswith("- ") for line in lines):
            made.append(items([line[2:] for line in lines]))
        else:
            made.append(f"<p>{inline(' '.join(lines))}</p>")
    return "\n".join(made)


def items(lines: list[str], name: str = "") -> str:
    """A list."""
    kind = f' class="{name}"' if name else ""
    return f"<ul{kind}>" + "".join(f"<li>{inline(line)}</li>" for line in lines) + "</ul>"


def table(lines: list[str]) -> str:
    """A pipe table; every heading is a button that sorts by its column."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
        for line in lines
        if not SEPARATOR.fullmatch(line.strip())
    ]
    head = "".join(f'<th scope="col"><button>{inline(c)}</button></th>' for c in rows[0])
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=long' if len(c) > LONG else ''}>{inline(c)}</td>" for c in row)
        + "</tr>"
        for row in rows[1:]
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def data_uri(path: Path, kind: str) -> str:
    """A file's bytes inside the page."""
    return f"data:{kind};base64,{b64encode(path.read_bytes()).decode()}"
