"""Bring the tables of a page about a study up to date with the study's results.

    python benchmarks/record.py benchmarks/real-shapes.md [results/real-shapes]

Between ``<!-- table: NAME -->`` and ``<!-- end of table -->`` the page gets ``tables/NAME.md`` of
the results, its headings one level lower. What stands outside is left as it is.
"""

import argparse
import re
from pathlib import Path

MARKED = re.compile(r"<!-- table: (?P<name>\w+) -->\n.*?<!-- end of table -->", re.DOTALL)


def updated(page: str, tables: Path) -> str:
    """The page with every marked table as it stands in the folder ``tables``.

    Raises:
        FileNotFoundError: the study has no such table.
        ValueError: the page marks no table.
    """

    def table(found: re.Match) -> str:
        text = (tables / f"{found['name']}.md").read_text(encoding="utf-8").strip()
        lower = re.sub(r"^#", "##", text, flags=re.MULTILINE)
        return f"<!-- table: {found['name']} -->\n\n{lower}\n\n<!-- end of table -->"

    text, count = MARKED.subn(table, page)
    if not count:
        raise ValueError("the page has no <!-- table: NAME --> with its <!-- end of table -->.")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument(
        "results", type=Path, nargs="?", help="default: results/ and the page's name"
    )
    arguments = parser.parse_args()
    results = arguments.results or Path("results") / arguments.page.stem
    page = arguments.page.read_text(encoding="utf-8")
    arguments.page.write_text(updated(page, results / "tables"), encoding="utf-8")


if __name__ == "__main__":
    main()
