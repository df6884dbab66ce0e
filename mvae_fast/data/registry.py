"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable

from mvae_fast.data.digits import digits
from mvae_fast.data.splits import Splits

__all__ = ["DATASETS", "load_dataset"]

DATASETS: dict[str, Callable[[str | None], Splits]] = {"digits": digits}


def load_dataset(name: str, data_dir: str | None = None) -> Splits:
    """Load a data set by name.

    Args:
        name: one of `DATASETS`.
        data_dir: folder of the data sets that are read from files.

    Returns:
        Train, validation and test splits.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> len(load_dataset("digits").test)
        360
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {sorted(DATASETS)}, got {name!r}")
    return DATASETS[name](data_dir)
