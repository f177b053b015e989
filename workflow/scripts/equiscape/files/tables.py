"""CSV tables that name files."""

import csv
import io
from pathlib import Path

from equiscape.errors import DataError, first_line


def read_table(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV in UTF-8: column -> text without blanks around it; empty cells left out.

    Raises:
        DataError: it cannot be read, has no rows, or lacks one of the ``columns``.
    """
    try:
        text = table.read_bytes().decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{table} cannot be read ({first_line(error)}).") from None
    if not rows or not set(columns) <= set(rows[0]):
        wanted = " and ".join(columns)
        raise DataError(f"{table} lacks the columns {wanted}; give them in its first line.")
    return [
        {name: cell.strip() for name, cell in row.items() if name and cell and cell.strip()}
        for row in rows
    ]


def files_named(table: Path, column: str) -> list[Path]:
    """The files that a table names, relative to its folder, of those that exist; each once."""
    try:
        names = dict.fromkeys(row.get(column, "") for row in read_table(table, (column,)))
    except DataError:
        return []  # what reads it says why
    paths = [table.parent / name.replace("\\", "/") for name in names if name]
    return [path for path in paths if path.is_file()]
