"""Tables: ``.csv`` and ``.parquet``, read and written."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvae_fast.data.optional import needed
from mvae_fast.data.own.column import Column, column_of_cells
from mvae_fast.files import write_bytes

#: Suffixes of tables.
TABLES = (".csv", ".parquet")


def read_table(path: Path) -> dict[str, Column]:
    """The columns of a table by name, in order.

    Raises:
        ValueError: If it is no table; what is wrong is named.
        ImportError: If it is a ``.parquet`` file and the extra ``tables`` is not installed.
    """
    cells = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    if not cells or not next(iter(cells.values())):
        raise ValueError(f"{path}: got no rows, expected a header and at least one row")
    return {
        name: column_of_cells(f"{path.name}: column {name!r}", column)
        for name, column in cells.items()
    }


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns as ``.csv`` or ``.parquet``, by the suffix; None is an empty cell."""
    buffer = io.BytesIO()
    if path.suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        buffer.write(text.getvalue().encode())
    else:
        typed = {name: _of_one_type(cells) for name, cells in columns.items()}
        _pandas(path).DataFrame(typed).to_parquet(buffer)
    write_bytes(path, buffer.getvalue())


def cells_of(values: np.ndarray) -> list[Any]:
    """Numbers ``(n,)`` as cells, with the digits that they have; None for NaN.

    Example:
        >>> cells_of(np.array([0.1, np.nan], dtype=np.float32)), cells_of(np.array([3, 4]))
        ([0.1, None], [3, 4])
    """
    if values.dtype.kind != "f":
        return values.tolist()
    return [None if np.isnan(value) else float(str(value)) for value in values]


def _of_one_type(cells: Sequence[Any]) -> Sequence[Any]:
    """Cells of a CSV, which are strings, as numbers where all are numbers."""
    if not any(isinstance(cell, str) for cell in cells):
        return cells
    column = column_of_cells("", cells)
    values = column.values.tolist()
    return [value if there else None for value, there in zip(values, column.present, strict=True)]


def _read_csv(path: Path) -> dict[str, list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: got {error.reason}, expected text in UTF-8") from None
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        lines = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from None
    lines = [line for line in lines if line]
    names = lines[0] if lines else []
    for place, name in enumerate(names):
        if not name or name in names[:place]:
            raise ValueError(
                f"{path}: got the name {name!r} for column {place + 1}, expected a name that no "
                "other column has"
            )
    for row, line in enumerate(lines[1:], 1):
        if len(line) != len(names):
            raise ValueError(
                f"{path}: row {row}: got {len(line)} cells, expected {len(names)}, as in the header"
            )
    return {name: [line[place] for line in lines[1:]] for place, name in enumerate(names)}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    pandas = _pandas(path)
    try:
        frame = pandas.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    for name, dtype in frame.dtypes.items():
        if getattr(dtype, "kind", "") in "mM":  # times are texts, as in a CSV
            frame[name] = frame[name].astype(str).where(frame[name].notna(), None)
    return {str(name): frame[name].tolist() for name in frame.columns}


def _pandas(path: Path) -> Any:
    needed("pyarrow", str(path), "tables")
    return needed("pandas", str(path), "tables")
