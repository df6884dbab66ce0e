"""Which rows are for training, validation and test."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mvae_fast.checks import integer, near
from mvae_fast.data.own.column import Column

PARTS = ("train", "validation", "test")
DEFAULT = {"validation": 0.1, "test": 0.1, "seed": 0}
"""Fractions of the rows, and the seed of their choice."""


def split_column(columns: Mapping[str, Column], split: Mapping[str, Any] | None) -> str | None:
    """The column that says where a row belongs: that of ``split``, or one called ``split`` that
    says nothing else."""
    if split:
        return split.get("column")
    column = columns.get("split")
    if column is None or not column.is_text or not column.present.all():
        return None
    return "split" if set(column.values) <= set(PARTS) else None


def chosen_split(columns: Mapping[str, Column], split: Mapping[str, Any] | None) -> dict[str, Any]:
    """A split with what it leaves to be chosen."""
    name = split_column(columns, split)
    if name is None:
        return {**DEFAULT, **(split or {})}
    return dict(split or {"column": name})


def partition(
    columns: Mapping[str, Column], n: int, split: Mapping[str, Any] | None
) -> list[np.ndarray]:
    """The rows of each of `PARTS`; see `UserData.splits`."""
    split = chosen_split(columns, split)
    for key in split:
        if key not in ("column", *DEFAULT):
            known = ("column", *DEFAULT)
            raise ValueError(f"split: got {key!r}, expected some of {known}{near(str(key), known)}")
    if "column" in split:
        if len(split) > 1:
            raise ValueError(f"split: got {split!r}, expected column alone")
        rows = _by_column(columns, split["column"])
    else:
        rows = _by_fractions(n, split)
    for part, chosen in zip(PARTS, rows, strict=True):
        if not len(chosen):
            raise ValueError(f"split: got no row for {part} of {n} rows, expected one at least")
    return rows


def _by_column(columns: Mapping[str, Column], name: str) -> list[np.ndarray]:
    if name not in columns:
        raise ValueError(f"split: got the column {name!r}, expected one of {list(columns)}")
    column = columns[name]
    said = [str(value) for value in column.values]
    for row, value in enumerate(said):
        if value not in PARTS:
            raise ValueError(f"{column.at(row)}: got {value!r}, expected one of {', '.join(PARTS)}")
    return [np.flatnonzero(np.array(said) == part) for part in PARTS]


def _by_fractions(n: int, split: Mapping[str, Any]) -> list[np.ndarray]:
    counts = []
    for part in PARTS[1:]:
        fraction = split[part]
        if isinstance(fraction, bool) or not isinstance(fraction, int | float):
            raise ValueError(f"split: got {part} {fraction!r}, expected a number in (0, 1)")
        if not 0 < fraction < 1:
            raise ValueError(f"split: got {part} {fraction}, expected a number in (0, 1)")
        counts.append(max(1, round(fraction * n)))
    # RandomState's streams are frozen (NEP 19), which a Generator's are not.
    order = np.random.RandomState(integer("split.seed", split["seed"], 0)).permutation(n)
    validation, test = counts
    places = [order[validation + test :], order[:validation], order[validation:][:test]]
    return [np.sort(rows) for rows in places]
