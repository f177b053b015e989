"""An extension of griffe: what docstrings say in reStructuredText, said in Markdown."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":[a-z]+:`([^`]+)`")
TABLE = re.compile(r"^=+(?:  +=+)+\n(.*?)^=+(?:  +=+)+$", re.M | re.S)


def markdown(text: str, path: str, module: str) -> str:
    """A docstring with its roles as links, its literal blocks and tables as Markdown has them.

    Args:
        text: of the docstring.
        path: of the object that it documents, which names in it may be relative to.
        module: that the object is in.
    """

    def link(match: re.Match) -> str:
        name = match[1].removeprefix("~")
        target = name if name.startswith("equiscape.") else f"{module}.{name}"
        if not name.startswith("equiscape.") and name[:1].islower() and "." not in name:
            target = f"{path if path != module else module}.{name}"
        shown = name.rpartition(".")[2] if match[1].startswith("~") else name
        return f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'

    def table(match: re.Match) -> str:
        starts = [m.start() for m in re.finditer("=+", match[0].splitlines()[0])]
        rows: list[list[str]] = []
        for line in match[1].splitlines():
            cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
            if cells[0] or not rows:
                rows.append(cells)
            else:
                rows[-1] = [f"{old} {new}".strip() for old, new in zip(rows[-1], cells)]
        lines = ["| " + " | ".join([" "] * len(starts)) + " |", "|" + " - |" * len(starts)]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])

    text = TABLE.sub(table, text)
    text = ROLE.sub(link, text)
    return re.sub(r"^(\s*)::$", r"\1", re.sub(r"::$", ":", text, flags=re.M), flags=re.M)


class Docstrings(griffe.Extension):
    """Turns every docstring that is read into Markdown."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            within = obj if obj.is_class else obj.parent if obj.parent is not None else obj
            module = obj.path if obj.is_module else obj.module.path
            obj.docstring.value = markdown(obj.docstring.value, within.path, module)
