"""Arrays of any library as tensors, or a word on why not."""

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(name: str, array: Any) -> Tensor:
    """An array of any kind as a dense tensor, which shares its memory where torch can use it.

    Args:
        array: A tensor, an array, a sequence of them or of numbers, or anything that NumPy reads:
            a pandas Series of any index, for example, or a DataFrame.

    Returns:
        The tensor, in native byte order.

    Raises:
        TypeError: If it does not hold numbers, or is sparse.
        ValueError: If its rows have different shapes.

    Example:
        >>> as_tensor("label", np.arange(3, dtype=">i2")[::-1])
        tensor([2, 1, 0], dtype=torch.int16)
    """
    if isinstance(array, list | tuple) and array and all(isinstance(a, Tensor) for a in array):
        shapes = sorted({tuple(row.shape) for row in array})
        if len(shapes) > 1:
            raise ValueError(f"modality {name!r}: got rows of the shapes {shapes}, expected one")
        array = torch.stack(array)
    if isinstance(array, Tensor):
        if array.layout != torch.strided:
            raise TypeError(
                f"modality {name!r}: got a tensor of layout {array.layout}, expected a dense one; "
                "remedy: x.to_dense()"
            )
        return array.detach()
    try:
        values = np.asarray(array)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"modality {name!r}: {error}") from None
    check_numbers(name, values)
    # torch takes neither another byte order nor, without a warning, memory that is read-only.
    values = np.require(values, values.dtype.newbyteorder("="), "W")
    if any(stride < 0 for stride in values.strides):
        values = values.copy()
    return torch.from_numpy(values)


def check_numbers(name: str, values: np.ndarray) -> None:
    """Raise a TypeError, with a remedy, unless an array holds what a tensor can hold."""
    with suppress(TypeError):
        torch.from_numpy(np.empty(0, values.dtype.newbyteorder("=")))
        return
    kind, remedy = values.dtype.kind, "remedy: x.astype(float)"
    if kind in "US" or (kind == "O" and any(isinstance(x, str) for x in values.flat)):
        remedy = "remedy: np.unique(x, return_inverse=True)[1] numbers labels"
    elif kind == "O" and any(isinstance(x, np.ndarray) for x in values.flat):
        remedy = "remedy: np.stack(x)"
    elif kind == "O":
        remedy += ", and masks for rows that are missing"
    example = f" such as {next(values.flat)!r}" if values.size else ""
    raise TypeError(
        f"modality {name!r}: data must be floats or integers, got {values.dtype}{example}; {remedy}"
    )


def split_mask(name: str, array: Any) -> tuple[Any, np.ndarray | None]:
    """The data of a masked array (``np.ma``) and which of its rows are there, boolean ``(n,)``, or
    None for all.

    Raises:
        ValueError: If a row is masked in part: a modality is there or missing as a whole.

    Example:
        >>> split_mask("label", np.ma.masked_equal([1, 9, 2], 9))
        (array([1, 9, 2]), array([ True, False,  True]))
    """
    if not isinstance(array, np.ma.MaskedArray):
        return array, None
    masked = np.ma.getmaskarray(array)
    if not array.ndim or not masked.any():
        return array.data, None
    axes = tuple(range(1, array.ndim))
    some, whole = masked.any(axis=axes), masked.all(axis=axes)
    if (some & ~whole).any():
        row = int(np.flatnonzero(some & ~whole)[0])
        raise ValueError(
            f"modality {name!r}: row {row} is masked in part, expected rows that are there or "
            "masked as a whole; remedy: x.filled(value)"
        )
    return array.data, np.asarray(~whole)
