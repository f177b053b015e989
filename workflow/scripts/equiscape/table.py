"""Tables that a job writes, without pandas: its import takes longer than many a job's work."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table:
    """A tidy table of plain values.

    Attributes:
        columns: their names.
        rows: one value a column each; None or NaN where there is none.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> "Table":
        """Rows given as column -> value; a column that a row lacks is None there."""
        names = tuple(columns)
        return cls(names, tuple(tuple(row.get(name) for name in names) for row in rows))

    @classmethod
    def of_values(cls, rows: Iterable[Sequence[Any]], columns: Iterable[str]) -> "Table":
        """Rows given as values in the order of the columns."""
        return cls(tuple(columns), tuple(map(tuple, rows)))

    def __len__(self) -> int:
        return len(self.rows)

    def after(self, **values: Any) -> "Table":
        """The table behind columns that have one value throughout; those that it has stay as is."""
        new = {name: value for name, value in values.items() if name not in self.columns}
        head = tuple(new.values())
        return Table((*new, *self.columns), tuple((*head, *row) for row in self.rows))

    def frame(self) -> "pd.DataFrame":
        """As a data frame."""
        import pandas as pd

        return pd.DataFrame(list(self.rows), columns=list(self.columns))
