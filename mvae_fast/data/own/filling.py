"""A file of a user's own without its gaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvae_fast.data.own.column import Column
from mvae_fast.data.own.forms import classes_of, decode, is_binary
from mvae_fast.data.own.tables import cells_of
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
            parts = [_plain(column) for column in columns]
            there = np.stack(parts, axis=1) if len(parts) > 1 else parts[0]
            values, spread = values.reshape(there.shape), spread.reshape(there.shape)
            gaps = _gaps(gaps.reshape(there.shape), there)
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
    table = {n: cells for name, c in data.columns.items() for n, cells in _cells(name, c)}
    uncertain: dict[str, list[Any]] = {}
    for name, described in modalities.items():
        found, filled = data.find(name), fills[name].filled
        columns = [data.columns[each] for each in found] or None
        if not filled.any():
            continue
        values, spread, word = _in_file(columns, described, fills[name])
        if values.ndim > 2 or (columns and columns[0].is_image):
            raise _no_cells(name)
        values, spread = (each.reshape(len(values), -1) for each in (values, spread))
        k = values.shape[1]
        names = found if len(found) == k else _numbered(found[0] if found else name, k)
        for place, column in enumerate(names):
            there = data.columns.get(column)
            gaps = (filled if there is None else filled & ~there.present).tolist()
            cells = table.get(column, [None] * len(gaps))
            table[column] = _where(gaps, cells_of(values[:, place]), cells)
            uncertain[f"{column}_{word}"] = _where(
                gaps, cells_of(spread[:, place]), [None] * len(gaps)
            )
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


def _gaps(gaps: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Of rows with gaps the numbers that are missing: NaN, or all where none is NaN."""
    if there.dtype.kind != "f":
        return gaps
    missing = np.isnan(there)
    whole = ~missing.reshape(len(there), -1).any(axis=1)
    return gaps & (missing | _rows(whole, there))


def _rows(flags: np.ndarray, like: np.ndarray) -> np.ndarray:
    return flags.reshape(-1, *[1] * (like.ndim - 1))


def _plain(column: Column) -> np.ndarray:
    return column.values.astype(str) if column.is_text else column.values


def _cells(name: str, column: Column) -> list[tuple[str, list[Any]]]:
    """The columns of a table that a column or array gives, by name."""
    if column.cells is not None:
        return [(name, list(column.cells))]
    if column.values.ndim > 2:
        raise _no_cells(name)
    values = column.values.reshape(len(column.values), -1)
    names = _numbered(name, values.shape[1])
    nothing, there = [None] * len(values), column.present.tolist()
    return [
        (each, _where(there, cells_of(values[:, place]), nothing))
        for place, each in enumerate(names)
    ]


def _numbered(name: str, k: int) -> list[str]:
    return [name] if k == 1 else [f"{name}_{place}" for place in range(k)]


def _where(flags: Sequence[bool], yes: Sequence[Any], no: Sequence[Any]) -> list[Any]:
    return [a if flag else b for flag, a, b in zip(flags, yes, no, strict=True)]


def _no_cells(name: str) -> ValueError:
    return ValueError(f"--out: {name!r} has no cells of a table, expected a .npz file")
