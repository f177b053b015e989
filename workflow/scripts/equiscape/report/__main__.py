"""Print a study's accuracy table and where its figures are: ``python -m equiscape.report ROOT``."""

import sys
from pathlib import Path
from typing import Any

from equiscape.errors import EquiscapeError
from equiscape.report.manifest import Manifest
from equiscape.report.pages import accuracy, selection


def main(arguments: list[str]) -> int:
    """Read ``ROOT/report.json`` and print the table; returns the exit status."""
    if len(arguments) != 1:
        print("usage: python -m equiscape.report ROOT  (the folder of a study's results)")
        return 2
    root = Path(arguments[0])
    streams: list[Any] = [sys.stdout, sys.stderr]
    if hasattr(sys.stdout, "reconfigure"):  # a terminal that has no ± prints a ? for it
        for stream in streams:
            stream.reconfigure(errors="replace")
    try:
        manifest = Manifest.read(root / "report.json")
        print(accuracy.console(manifest))
        edges = selection.edges(selection.table(manifest))
        if edges:
            print("\nChosen at an edge of the grid, so the optimum may lie beyond:")
            print("\n".join(f"  {line}" for line in edges))
    except EquiscapeError as error:
        print(error, file=sys.stderr)
        return 1
    index = root / "index.html"
    if index.exists():
        print(f"\nthe study's page: {index.resolve()}")
    print(f"\nfigures    {root / 'figures'}/*.png and *.pdf")
    print(f"notebooks  {root / 'notebooks'}/*.html")
    print(f"tables     {root / 'tables'}/*.md and *.csv")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
