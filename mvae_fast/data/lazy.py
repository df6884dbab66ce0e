"""Rows of arrays that are read when they are asked for."""

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class LazyArray:
    """Chosen rows of one or several arrays in a row, without a copy of them.

    What is kept is the arrays themselves, which may be memory maps of files larger than the memory,
    and the numbers of the chosen rows: 8 bytes a row, however long the rows are. Subsets,
    repetitions and concatenations therefore cost no memory, and a batch costs its own size.

    Args:
        shards: Arrays ``(n_i, ...)`` whose rows, one array after the other, are meant.
        rows: Integers ``(n,)``, which rows of them in which order; None: all.

    Raises:
        ValueError: If there is no array, or the arrays' rows differ in shape or type.
        TypeError: If one is a masked array.
        IndexError: If a row does not exist.

    Example:
        >>> lazy = LazyArray([np.zeros((2, 3)), np.ones((4, 3))])
        >>> len(lazy), lazy.shape, lazy[[1, 5]][:, 0]
        (6, (6, 3), tensor([0., 1.], dtype=torch.float64))
        >>> lazy.take([5, 5]).take([0])[0]
        tensor([1., 1., 1.], dtype=torch.float64)
    """

    def __init__(self, shards: Sequence[np.ndarray], rows: Any = None) -> None:
        if any(isinstance(shard, np.ma.MaskedArray) for shard in shards):
            raise TypeError(
                "shards must not be masked arrays, whose masks would be lost; remedy: x.data, and "
                "its mask to MultimodalDataset"
            )
        kinds = {(shard.dtype, shard.shape[1:]) for shard in shards}
        if len(kinds) != 1:
            raise ValueError(
                "shards must hold at least one array, and rows of one type and shape, "
                f"got {[f'{shard.dtype} {shard.shape}' for shard in shards]}"
            )
        self.shards = tuple(shards)
        self.starts = np.cumsum([0, *map(len, shards)])
        total = int(self.starts[-1])
        self.rows = np.arange(total) if rows is None else _whole(rows, total)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows together."""
        return (len(self), *self.shards[0].shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers as they are stored."""
        return torch.from_numpy(np.empty(0, self._native())).dtype

    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> Tensor:
        """Row ``index``, or the rows of a list, slice or boolean mask, as a tensor that owns its
        memory."""
        if not isinstance(index, slice) and np.ndim(index) == 0:
            return self[[int(index)]][0]
        rows = self.take(index).rows
        values = np.empty((len(rows), *self.shape[1:]), self._native())
        shard_of_row = np.searchsorted(self.starts, rows, side="right") - 1
        for shard in np.unique(shard_of_row):
            here = shard_of_row == shard
            values[here] = self.shards[shard][rows[here] - self.starts[shard]]
        return torch.from_numpy(values)

    def take(self, index: Any) -> "LazyArray":
        """The rows ``index`` (indices, a slice or a boolean mask); nothing is read."""
        if not isinstance(index, slice):
            index = np.asarray(index)
            index = index if index.size else index.astype(np.int64)  # of [] NumPy makes floats
        return LazyArray(self.shards, self.rows[index])

    @classmethod
    def of(cls, array: Any) -> "LazyArray":
        """A tensor or an array as a `LazyArray` that shares its memory."""
        if isinstance(array, LazyArray):
            return array
        return cls([array.numpy() if isinstance(array, Tensor) else array])

    @classmethod
    def concatenate(cls, arrays: "Sequence[LazyArray]") -> "LazyArray":
        """The rows of several, one after the other."""
        offsets = np.cumsum([0, *(array.starts[-1] for array in arrays)])
        return cls(
            [shard for array in arrays for shard in array.shards],
            np.concatenate([a.rows + start for a, start in zip(arrays, offsets, strict=False)]),
        )

    def _native(self) -> np.dtype[Any]:
        return self.shards[0].dtype.newbyteorder("=")  # torch has no other byte order

    def __getstate__(self) -> dict[str, Any]:
        # NumPy pickles a memory map by value; a worker opens the file itself instead.
        return {"shards": [_handle(shard) for shard in self.shards], "rows": self.rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        shards = [np.memmap(**s) if isinstance(s, dict) else s for s in state["shards"]]
        self.__init__(shards, state["rows"])  # type: ignore[misc]


def _whole(rows: Any, total: int) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.int64)
    if len(rows) and not (0 <= rows.min() and rows.max() < total):
        raise IndexError(
            f"rows must lie in 0..{total - 1}, got values from {rows.min()} to {rows.max()}"
        )
    return rows


def _handle(shard: np.ndarray) -> np.ndarray | dict[str, Any]:
    # Only a memory map that nobody has sliced still knows its place in the file; what was changed
    # in a copy-on-write one is in no file.
    if not (
        isinstance(shard, np.memmap) and isinstance(shard.base, mmap.mmap) and shard.mode != "c"
    ):
        return np.asarray(shard)
    return {
        "filename": shard.filename,
        "dtype": shard.dtype,
        "mode": "r",
        "offset": shard.offset,
        "shape": shard.shape,
        "order": "C" if shard.flags.c_contiguous else "F",
    }
