"""A column of a table or an array of a file, and which of its rows are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Cells of a text that say that there is nothing.
MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "null"})


@dataclass(frozen=True)
class Column:
    """Values ``(n, ...)`` of one name.

    Attributes:
        what: How messages call it: where it is from, and its name.
        values: Numbers, or an object array of strings; of rows that are not there, anything.
        present: Which rows are there, boolean ``(n,)``.
        first: Number of the first row in messages: 1 in a table, 0 in an array.
        cells: What a table has, for writing it again; None: the values.
    """

    what: str
    values: np.ndarray
    present: np.ndarray
    first: int
    cells: Sequence[Any] | None = None

    @property
    def is_text(self) -> bool:
        """Whether the values are strings."""
        return self.values.dtype.kind == "O"

    @property
    def is_image(self) -> bool:
        """Whether the values are bytes of pixels, 0..255."""
        return self.values.dtype == np.uint8 and self.values.ndim >= 3

    def at(self, row: int) -> str:
        """The column and a row of it, for a message."""
        return f"{self.what}, row {row + self.first}"

    def numbers(self) -> np.ndarray:
        """The values as floats ``(n, ...)``.

        Raises:
            ValueError: If one of them is no number, or infinite; its row is named.
        """
        if self.is_text:
            for row in np.flatnonzero(self.present).tolist():
                if not _is_number(self.values[row]):
                    raise ValueError(f"{self.at(row)}: got {self.values[row]!r}, expected a number")
            values = np.array([float(v) if p else np.nan for v, p in self._pairs()])
        else:
            values = self.values.astype(np.float64)
        infinite = ~np.isfinite(values).reshape(len(values), -1).all(axis=1) & self.present
        if infinite.any():
            row = int(infinite.argmax())
            raise ValueError(f"{self.at(row)}: got NaN or infinity, expected a finite number")
        return values

    def names(self) -> list[str | None]:
        """The values as names of classes; None where there is none.

        Raises:
            ValueError: If a row has more than one value.
        """
        if self.values.ndim > 1:
            raise ValueError(
                f"{self.what}: got rows of the shape {self.values.shape[1:]}, expected one class"
            )
        return [class_name(v) if p else None for v, p in self._pairs()]

    def _pairs(self) -> Any:
        return zip(self.values, self.present, strict=True)


def class_name(value: Any) -> str:
    """A class's name: of whole numbers the digits.

    Example:
        >>> class_name(2.0), class_name("red")
        ('2', 'red')
    """
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def column_of_cells(what: str, cells: Sequence[Any]) -> Column:
    """A table's column: numbers, if all cells that are there are numbers, else strings.

    Args:
        cells: Strings and numbers; None, NaN and words of `MISSING` where there is nothing.

    Raises:
        ValueError: If a cell is something else, or most are numbers and one is none.

    Example:
        >>> column_of_cells("column 'age'", ["31", "", "4.5"]).values
        array([31. ,  nan,  4.5])
    """
    present = np.array([_is_there(cell) for cell in cells], dtype=bool)
    for row in np.flatnonzero(present).tolist():
        if not isinstance(cells[row], str | int | float | np.number | np.bool_):
            raise ValueError(
                f"{what}, row {row + 1}: got a {type(cells[row]).__name__}, expected a number or "
                "a text"
            )
    is_number = [_is_number(cell) for cell, there in zip(cells, present, strict=True) if there]
    if all(is_number):
        values = np.array([float(c) if p else np.nan for c, p in zip(cells, present, strict=True)])
        return Column(what, values, present, 1, cells)
    texts = np.empty(len(cells), dtype=object)
    texts[:] = [str(cell).strip() if p else "" for cell, p in zip(cells, present, strict=True)]
    column = Column(what, texts, present, 1, cells)
    if 2 * sum(is_number) > len(is_number):
        column.numbers()  # which names the cell that is none
    return column


def _is_there(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell.strip() not in MISSING
    # NaN, and pandas' NaT, differ from themselves; its NA has no truth value.
    return cell is not None and type(cell).__name__ != "NAType" and bool(cell == cell)


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
