"""What to say of a choice at an end of its grid; imports no pandas, so a Snakefile can use it."""

from collections.abc import Mapping
from typing import Any

NAMES = {"lr": "learning rate", "wd": "weight decay"}


def edge_sentences(selection: Mapping[str, Any]) -> list[str]:
    """One sentence for a learning rate or weight decay at an end of its grid, with what to add.

    Args:
        selection: content of ``selection/{task}_{optimizer}.json``.
    """
    found = []
    for name, title in NAMES.items():
        edge = (selection.get("edges") or {}).get(name) or {}
        if end := {"low": "lowest", "high": "highest"}.get(edge.get("end", "")):
            found.append(
                f"{selection['task']} with {selection['optimizer']}: the chosen {title} "
                f"{selection[name]} is the {end} of its grid; add {' '.join(edge['add'])} to "
                f"optimizers.{selection['optimizer']}.grid.{name}."
            )
    return found
