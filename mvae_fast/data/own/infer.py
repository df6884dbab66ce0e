"""What data are by their look: classes, counts, real numbers, images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvae_fast.data.own.column import Column, class_name

MOST_CLASSES = 20
"""Different whole numbers of a column that are taken for classes; more are counts."""

MOST_NAMES = 100
"""Different texts of a column that are taken for classes; with more it is left out."""

CONVOLVED = 32
"""Pixels of a side from which an image with channels gets convolutions."""

MOST_BROKEN = 0.1
"""Share of the rows that may lack some columns of a group, and so the group; with more, each column
is a modality."""

HIDDEN = 128
"""Width of the layers of the description that is made."""


def describe(columns: Sequence[Column]) -> dict[str, Any] | str:
    """The description of a modality, as `mvae_fast.vae.build_mvae` takes it, or why the columns can
    be none.

    Args:
        columns: One column; or several of numbers, a group.

    Returns:
        The description; or a text, where a column is to be left out.

    Raises:
        ValueError: If a value cannot be used; its column and row are named.
    """
    column = columns[0]
    if not column.present.any():
        return "no row has it"
    if column.is_text:
        names = sorted({name for name in column.names() if name is not None})
        if len(names) > MOST_NAMES:
            return f"{len(names)} different texts, at most {MOST_NAMES} are taken for classes"
        return _classes(names)
    if column.is_image:
        return _image(column)
    here = np.logical_and.reduce([each.present for each in columns])
    if not here.any():
        return "no row has all of its columns"
    values = stack(columns)[here]
    shape = list(values.shape[1:])
    array = {"type": "mlp", "shape": shape, "hidden": HIDDEN, "weight": "dimensions"}
    distinct = np.unique(values)
    whole = bool((distinct == np.round(distinct)).all()) and distinct[0] >= 0
    if whole and distinct[-1] <= 1 and len(distinct) > 1:
        return {**array, "likelihood": "bernoulli"}
    if whole and shape == [1] and len(distinct) <= MOST_CLASSES:
        return _classes([class_name(value) for value in distinct])
    if whole:
        return {**array, "likelihood": "negative_binomial"}
    likelihood = {"name": "normal", "scale": "learned"}
    return {**array, "likelihood": likelihood, "standardize": True}


def is_group(columns: Sequence[Column]) -> bool:
    """Whether columns whose names begin alike are one modality: numbers, with few gaps in part."""
    if any(column.is_text for column in columns):
        return False
    there = np.stack([column.present for column in columns])
    return bool((there.any(axis=0) & ~there.all(axis=0)).mean() <= MOST_BROKEN)


def stack(columns: Sequence[Column]) -> np.ndarray:
    """The numbers of a modality's columns, ``(n, *shape)``: ``(n, k)`` of k columns."""
    values = [column.numbers() for column in columns]
    return values[0] if values[0].ndim > 1 else np.stack(values, axis=1)


def says(described: Mapping[str, Any]) -> str:
    """A description in words.

    Example:
        >>> says({"type": "label", "num_classes": 2, "classes": ["no", "yes"]})
        '2 classes: no, yes'
    """
    if "num_classes" in described:
        names = described.get("classes") or range(described["num_classes"])
        few = [str(name) for name in names][:5]
        more = ", ..." if described["num_classes"] > len(few) else ""
        return f"{described['num_classes']} classes: {', '.join(few)}{more}"
    likelihood = described.get("likelihood", "bernoulli")
    name = likelihood["name"] if isinstance(likelihood, Mapping) else likelihood
    shape = described.get("shape", [described.get("n", 1)])
    size = "x".join(map(str, shape if isinstance(shape, Sequence) else [shape]))
    return f"{size}, {name}{', standardised' if described.get('standardize') else ''}"


def _classes(names: Sequence[str]) -> dict[str, Any] | str:
    if len(names) < 2:
        return f"the only value is {names[0]!r}"
    return {
        "type": "label",
        "num_classes": len(names),
        "classes": list(names),
        "hidden": HIDDEN,
        "weight": "dimensions",
    }


def _image(column: Column) -> dict[str, Any]:
    pixels = column.values[column.present]
    if pixels.max() <= 1:
        raise ValueError(
            f"{column.what}: got bytes 0 and 1 only, expected grey values 0..255; remedy: "
            "booleans, or 0 and 255"
        )
    shape = list(pixels.shape[1:])
    binary = bool(np.isin(pixels, (0, 255)).all())
    large = len(shape) == 3 and min(shape[1:]) >= CONVOLVED
    return {
        "type": "conv" if large else "mlp",
        "shape": shape,
        "hidden": HIDDEN,
        "likelihood": "bernoulli" if binary else "continuous_bernoulli",
        "weight": "dimensions",
    }
