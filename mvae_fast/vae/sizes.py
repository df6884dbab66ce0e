"""Shapes and widths as tuples of integers."""

from collections.abc import Iterable
from typing import Any

from mvae_fast.checks import integer


def sizes(name: str, value: Any, at_least: int = 1) -> tuple[int, ...]:
    """The sizes of several axes or layers; one integer stands for one of them.

    Args:
        name: Of the argument, for the message.
        value: An integer, or integers in any sequence, array or tensor.
        at_least: How many there must be.

    Raises:
        ValueError: If there are fewer, or one is no integer >= 1.

    Example:
        >>> sizes("shape", 5), sizes("shape", [28, 28])
        ((5,), (28, 28))
    """
    given = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(given, str) or not isinstance(given, Iterable):
        return (integer(name, given, 1),)
    found = tuple(integer(name, size, 1) for size in given)
    if len(found) < at_least:
        raise ValueError(f"{name}: got {value!r}, expected at least {at_least} integer >= 1")
    return found
