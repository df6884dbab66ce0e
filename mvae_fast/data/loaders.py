"""Loaders of data sets of one family: a row of what tells them apart, and the family's reader."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mvae_fast.data.splits import Splits

__all__ = ["loader"]


def loader(name: str, serves: str, read: Callable[..., Splits], *row: Any) -> Callable[..., Splits]:
    """The loader of one data set of a family.

    Args:
        name: of the data set.
        serves: what it is, the beginning of the loader's docstring; that of the reader follows.
        read: the family's reader, called as ``read(*row, data_dir, download=..., ...)``.
        row: what tells this data set from the others of the family.

    Returns:
        ``load(data_dir=None, *, download=False, ...)`` with the options of the reader.

    Example:
        >>> def read(kind, data_dir=None, *, download=False, verify=True): ...
        >>> inspect.signature(loader("letters", "Letters.", read, "letters"))
        <Signature (data_dir=None, *, download=False, verify=True)>
    """
    bound = functools.partial(read, *row)

    def load(*args: Any, **options: Any) -> Splits:
        return bound(*args, **options)

    load.__name__ = load.__qualname__ = name
    load.__module__ = read.__module__
    load.__doc__ = f"{serves}\n\n{inspect.getdoc(read)}"
    load.__signature__ = inspect.signature(bound)  # type: ignore[attr-defined]
    return load
