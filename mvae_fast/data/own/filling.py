"""A file of a user's own without its gaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvae_fast.data.own.column import Column
from mvae_fast.data.own.forms import classes_of, decode, is_binary
from mvae_fast.data.own.userdata import UserData


@dataclass(frozen=True)
class Fill:
    """What a model says of a modality, ``(n, ...)`` each.

    Attributes:
        values: As the model has them: numbers of classes, grey values in [0, 1].
        spread: Standard deviations; of a label, ``(n,)``, probabilities of the classes.
        filled: Rows that lacked it, boolean ``(n,)``.
    """

    values: np.ndarray
    spread: np.ndarray
    filled: np.ndarray


def filled_arrays(
    data: UserData, modalities: Mapping[str, Mapping[str, Any]], fills: Mapping[str, Fill]
) -> dict[str, np.ndarray]:
    """Arrays by name: those of the file, with gaps filled; ``NAME_std`` or ``NAME_probability``,
    NaN where nothing was filled; and ``NAME_filled``, which numbers were."""
    used = {column for name in modalities for column in data.find(name)}
    arrays = {name: _plain(c) for name, c in data.columns.items() if name not in used}
    for name, described in modalities.items():
        columns = data.of(name) if data.find(name) else None
        values, spread, word = _in_file(columns, described, fills[name])
        gaps = np.broadcast_to(_rows(fills[name].filled, values), values.shape)
        if columns is not None:
            there = np.stack([_plain(c) for c in columns], axis=1) if _is_group(columns) else None
            there = _plain(columns[0]) if there is None else there
            values, spread = values.reshape(there.shape), spread.reshape(there.shape)
            gaps = _gaps(columns, gaps.reshape(there.shape), there)
            values = np.where(gaps, values, there)
            if there.dtype.kind in "biu":  # what is filled is whole, too
                values = values.astype(there.dtype)
        arrays[name] = values.astype(str) if values.dtype.kind == "O" else values
        if gaps.any():
            arrays[f"{name}_{word}"] = np.where(gaps, spread, np.nan)
            arrays[f"{name}_filled"] = gaps
    return arrays


def filled_table(
    data: UserData, modalities: Mapping[str, Mapping[str, Any]], fills: Mapping[str, Fill]
) -> dict[str, list[Any]]:
    """Columns by name: those of the file, with gaps filled; those of modalities that it lacked; and
    ``NAME_std`` or ``NAME_probability``, empty where nothing was filled.

    Raises:
        ValueError: If an image is to be filled, or there are images without names of files.
    """
    table: dict[str, list[Any]] = {name: _cells(name, c) for name, c in data.columns.items()}
    uncertain: dict[str, list[Any]] = {}
    for name, described in modalities.items():
        found = data.find(name)
        columns = [data.columns[each] for each in found] or None
        values, spread, word = _in_file(columns, described, fills[name])
        if fills[name].filled.any() and (values.ndim > 2 or (columns and columns[0].is_image)):
            raise ValueError(f"--out: {name!r} has no cells of a table, expected a .npz file")
        if not fills[name].filled.any():
            continue
        values, spread = (each.reshape(len(values), -1) for each in (values, spread))
        many = values.shape[1] > 1
        names = found if len(found) == values.shape[1] else [name]
        if many and len(names) == 1:
            names = [f"{name}_{place}" for place in range(values.shape[1])]
            if found:
                del table[found[0]]
        for place, column in enumerate(names):
            there = data.columns.get(column)
            gaps = fills[name].filled & (True if there is None else ~there.present)
            cells = table.get(column) or _numbers_of(data.columns, found, place, len(gaps))
            table[column] = [
                values[row, place].item() if gap and values.dtype.kind != "O"
                else values[row, place] if gap else cells[row]
                for row, gap in enumerate(gaps.tolist())
            ]  # fmt: skip
            uncertain[f"{column}_{word}"] = [
                spread[row, place].item() if gap else None for row, gap in enumerate(gaps.tolist())
            ]
    return {**table, **uncertain}


def _in_file(
    columns: Sequence[Column] | None, described: Mapping[str, Any], fill: Fill
) -> tuple[np.ndarray, np.ndarray, str]:
    """Values and their uncertainty in the file's units, and what the latter is called."""
    values = decode(fill.values, columns, described)
    if classes_of(described) is not None:
        return values, fill.spread, "probability"
    if is_binary(columns, described):
        return values, np.maximum(fill.values, 1 - fill.values), "probability"
    scale = 255 if columns is not None and columns[0].is_image else 1
    return values, fill.spread * scale, "std"


def _gaps(columns: Sequence[Column], gaps: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Of rows with gaps the numbers that are missing: NaN, or all where none is NaN."""
    if there.dtype.kind != "f":
        return gaps
    missing = np.isnan(there)
    whole = ~missing.reshape(len(there), -1).any(axis=1)
    return gaps & (missing | _rows(whole, there))


def _is_group(columns: Sequence[Column]) -> bool:
    return len(columns) > 1


def _rows(flags: np.ndarray, like: np.ndarray) -> np.ndarray:
    return flags.reshape(-1, *[1] * (like.ndim - 1))


def _plain(column: Column) -> np.ndarray:
    return column.values.astype(str) if column.is_text else column.values


def _cells(name: str, column: Column) -> list[Any]:
    if column.cells is not None:
        return list(column.cells)
    if column.values.ndim > 2:
        raise ValueError(f"--out: {name!r} has no cells of a table, expected a .npz file")
    cells = column.values.tolist()
    return [cell if there else None for cell, there in zip(cells, column.present, strict=True)]


def _numbers_of(
    columns: Mapping[str, Column], found: Sequence[str], place: int, n: int
) -> list[Any]:
    """A place of an array's rows, for a table; None of one that is not there."""
    if not found:
        return [None] * n
    column = columns[found[0]]
    pairs = zip(column.values[:, place].tolist(), column.present, strict=True)
    return [cell if there else None for cell, there in pairs]
