"""Descriptions of models as plain data."""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np


def plain(name: str, value: Any) -> Any:
    """A copy of ``value`` that JSON and ``torch.load(weights_only=True)`` take.

    Args:
        name: Of the argument, for the message.
        value: None, a boolean, number or string, an array or tensor, a sequence or mapping with
            string keys of such; also of NumPy's, OmegaConf's or any other class.

    Returns:
        The same of Python's own types: ``None``, ``bool``, ``int``, ``float``, ``str``, ``list``
        and ``dict``.

    Raises:
        ValueError: If there is anything else in it.

    Example:
        >>> plain("config", {"hidden": np.array([8, 9]), "T": np.float32(0.5), "shape": (3, 4)})
        {'hidden': [8, 9], 'T': 0.5, 'shape': [3, 4]}
    """
    # Python's own types, not their subclasses, which weights_only refuses: np.float64 is a float.
    if value is None:
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, str):
        return "".join(value)
    if hasattr(value, "tolist"):
        return plain(name, value.tolist())
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{name}: got the key {key!r}, expected strings")
        return {"".join(key): plain(f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(f"{name}[{place}]", item) for place, item in enumerate(value)]
    raise ValueError(
        f"{name}: got {value!r}, expected plain data: None, booleans, numbers, strings, and "
        "sequences and mappings of them"
    )
