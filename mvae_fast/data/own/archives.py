"""Arrays by name: ``.npz``, read and written."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mvae_fast.data.own.column import Column
from mvae_fast.files import write_bytes

MASK = "_mask"
"""The end of the name of an array that says which rows of another are there."""


def read_archive(path: Path) -> dict[str, Column]:
    """The arrays of a ``.npz`` file by name; ``NAME_mask``, boolean ``(n,)``, says which rows of
    ``NAME`` are there, and so does NaN.

    Raises:
        ValueError: If it is damaged, or an array cannot be used; it is named.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (AttributeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: expected a .npz file of numbers and strings: {error}") from None
    masks = {
        name.removesuffix(MASK): array
        for name, array in arrays.items()
        if name.endswith(MASK) and name.removesuffix(MASK) in arrays
    }
    columns = {}
    for name, array in arrays.items():
        if not (name.endswith(MASK) and name.removesuffix(MASK) in arrays):
            columns[name] = _column(f"{path.name}: array {name!r}", array, masks.get(name))
    sizes = {name: len(column.values) for name, column in columns.items()}
    if not sizes or 0 in sizes.values() or len(set(sizes.values())) > 1:
        raise ValueError(
            f"{path}: got arrays of {sizes} rows, expected as many in each and at least one"
        )
    return columns


def write_archive(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write what ``np.savez`` does, which takes no array by the name of one of its arguments."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, value, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def _column(what: str, array: np.ndarray, mask: np.ndarray | None) -> Column:
    if array.ndim == 0:
        raise ValueError(f"{what}: got a single value, expected rows (n, ...)")
    if array.dtype.kind not in "biufUS":
        raise ValueError(f"{what}: got {array.dtype}, expected numbers or strings")
    present = np.ones(len(array), dtype=bool)
    if mask is not None:
        if mask.dtype != np.bool_ or mask.shape != present.shape:
            raise ValueError(
                f"{what}: got a mask {mask.dtype} {mask.shape}, expected bool {present.shape}"
            )
        present = mask
    if array.dtype.kind in "US":
        array = array.astype(str)
        present = present & (array != "") if array.ndim == 1 else present
        array = array.astype(object)
    elif array.dtype.kind == "f":
        present = present & ~np.isnan(array).reshape(len(array), -1).any(axis=1)
    return Column(what, array, present, 0)
