"""The columns of a file as a modality's data, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvae_fast.checks import near
from mvae_fast.data.own.column import Column, class_name
from mvae_fast.data.own.infer import stack

#: Likelihoods of whole numbers >= 0.
COUNTS = ("poisson", "negative_binomial", "zero_inflated_negative_binomial")


def classes_of(described: Mapping[str, Any]) -> list[str] | None:
    """Names of the classes of a label, in order; None of an array."""
    if described["type"] not in ("label", "attribute"):
        return None
    number = described.get("num_classes", 2)
    return [str(name) for name in described.get("classes") or range(number)]


def shape_of(described: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of a row of an array."""
    shape = described.get("shape", described.get("n", 1))
    return (shape,) if isinstance(shape, int) else tuple(shape)


def likelihood_of(described: Mapping[str, Any]) -> str:
    """The name of an array's likelihood."""
    likelihood = described.get("likelihood", "bernoulli")
    return str(likelihood["name"] if isinstance(likelihood, Mapping) else likelihood)


def encode(columns: Sequence[Column], described: Mapping[str, Any]) -> tuple[np.ndarray, Any]:
    """The data of a modality ``(n, ...)`` and which rows have it, boolean ``(n,)``.

    Raises:
        ValueError: If a value does not fit the description; its column and row are named.
    """
    present = np.logical_and.reduce([column.present for column in columns])
    classes = classes_of(described)
    if classes is not None:
        return _labels(columns[0], classes), present
    if columns[0].is_image:
        values: np.ndarray = columns[0].values
    else:
        values = stack(columns)
        _check(columns, values, present, likelihood_of(described))
    shape = shape_of(described)
    if values.shape[1:] != shape:
        raise ValueError(
            f"{columns[0].what}: got rows of the shape {values.shape[1:]}, expected {shape}"
        )
    return values, present


def decode(
    values: np.ndarray, columns: Sequence[Column] | None, described: Mapping[str, Any]
) -> np.ndarray:
    """Data of a modality ``(n, ...)`` as the file has them: names of classes, bytes, 0 and 1, whole
    counts; ``columns`` are the file's, None where it has none."""
    classes = classes_of(described)
    if classes is not None:
        if columns is not None and not columns[0].is_text:
            return _whole(np.array([float(classes[value]) for value in values]))
        return np.array([classes[value] for value in values], dtype=object)
    if columns is not None and columns[0].is_image:
        return np.rint(values * 255).astype(np.uint8)
    whole = likelihood_of(described) in COUNTS or is_binary(columns, described)
    return _whole(np.rint(values)) if whole else values


def _whole(values: np.ndarray) -> np.ndarray:
    """Integers where all are whole numbers."""
    return values.astype(np.int64) if (values == np.rint(values)).all() else values


def is_binary(columns: Sequence[Column] | None, described: Mapping[str, Any]) -> bool:
    """Whether a modality's data are 0 and 1: a Bernoulli of grey values may have others."""
    if classes_of(described) is not None or likelihood_of(described) != "bernoulli":
        return False
    if columns is None:
        return True
    return not columns[0].is_image and all(
        np.isin(column.numbers()[column.present], (0, 1)).all() for column in columns
    )


def _labels(column: Column, classes: Sequence[str]) -> np.ndarray:
    numbers = {name: number for number, name in enumerate(classes)}
    found = np.zeros(len(column.values), dtype=np.int64)
    for row, name in enumerate(column.names()):
        if name is None:
            continue
        if name not in numbers:
            raise ValueError(
                f"{column.at(row)}: got the class {name!r}, expected one of "
                f"{', '.join(classes)}{near(name, classes)}"
            )
        found[row] = numbers[name]
    return found


def _check(
    columns: Sequence[Column], values: np.ndarray, present: np.ndarray, likelihood: str
) -> None:
    """Name the first value that is out of a likelihood's range."""
    if likelihood in COUNTS:
        wrong, expected = (values < 0) | (values != np.round(values)), "a whole number >= 0"
    elif likelihood in ("normal", "gaussian", "laplace", "student_t"):
        return
    else:
        wrong, expected = (values < 0) | (values > 1), "a number in [0, 1]"
    places = np.argwhere(wrong & present.reshape(-1, *[1] * (values.ndim - 1)))
    if len(places):
        place = tuple(places[0])
        column = columns[place[1] if len(columns) > 1 else 0]
        raise ValueError(
            f"{column.at(place[0])}: got {class_name(values[place])}, expected {expected}, as the "
            f"likelihood {likelihood} needs"
        )
