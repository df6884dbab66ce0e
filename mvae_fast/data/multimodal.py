"""Data sets of named modalities."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mvae_fast.arrays import as_tensor, check_numbers, split_mask
from mvae_fast.checks import booleans
from mvae_fast.data.lazy import LazyArray

Transform = Callable[[Tensor], Tensor]


def unit_interval(x: Tensor) -> Tensor:
    """Grey or colour values 0..255 as floats in [0, 1].

    Args:
        x: uint8, any shape.

    Returns:
        ``x / 255`` in the default dtype.

    Raises:
        TypeError: If ``x`` is not uint8.

    Example:
        >>> unit_interval(torch.tensor([0, 51, 255], dtype=torch.uint8))
        tensor([0.0000, 0.2000, 1.0000])
    """
    if x.dtype != torch.uint8:
        raise TypeError(f"x must be uint8, got {x.dtype}")
    return x.to(torch.get_default_dtype()) / 255


class MultimodalDataset(Dataset[tuple[dict[str, Tensor], dict[str, Tensor]]]):
    """Named arrays with one row an example, some of which may be missing.

    An item is the pair ``(x, mask)`` that ``MVAE.loss`` takes. A list of indices gives a batch at
    once. Memory-mapped arrays and `LazyArray` are read a batch at a time.

    Args:
        arrays: For each modality an array, tensor, list, pandas Series or DataFrame, or
            `LazyArray`, ``(n, ...)``. Floats are served in the default dtype, integers as int64. Of
            a masked array (``np.ma``) the rows that are masked are missing.
        masks: For modalities that some rows lack, True where they have it, boolean ``(n,)``. What
            the other rows hold is never looked at; NaN is a good choice.
        transforms: For modalities that are stored in another form than they are served in, what is
            applied to a batch ``(b, ...)`` of stored rows when it is read, such as
            `unit_interval`. It treats each row on its own; what it returns is served as it is.

    Raises:
        ValueError: If there is no array, the lengths differ, a row is masked in part, or a mask or
            transform does not fit.
        TypeError: If an array is neither floating point nor integer, or a mask is not boolean.

    Example:
        >>> dataset = MultimodalDataset(
        ...     {"image": np.full((3, 8, 8), 255, dtype=np.uint8), "label": np.array([1, 2, -1])},
        ...     masks={"label": np.array([True, True, False])},
        ...     transforms={"image": unit_interval},
        ... )
        >>> x, mask = dataset[[0, 2]]
        >>> x["image"].shape, x["image"].max(), x["label"], mask
        (torch.Size([2, 8, 8]), tensor(1.), tensor([ 1, -1]), {'label': tensor([ True, False])})
    """

    def __init__(
        self,
        arrays: Mapping[str, Any],
        masks: Mapping[str, Any] | None = None,
        transforms: Mapping[str, Transform] | None = None,
    ) -> None:
        if not arrays:
            raise ValueError("arrays must hold at least one modality")
        self.transforms = dict(transforms or {})
        for argument, names in (("masks", masks or {}), ("transforms", self.transforms)):
            for name in names:
                if name not in arrays:
                    raise ValueError(
                        f"{argument} names {name!r}, which is not among the modalities "
                        f"{list(arrays)}"
                    )
        self.arrays: dict[str, Tensor | LazyArray] = {}
        self.masks: dict[str, Tensor] = {}
        for name, given in arrays.items():
            array, here = split_mask(name, given)
            self.arrays[name] = _stored(name, array, name in self.transforms)
            if here is not None:
                self.masks[name] = torch.from_numpy(here)
        sizes = {name: len(array) for name, array in self.arrays.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"all modalities need the same number of rows, got {sizes}")
        for name, values in (masks or {}).items():
            mask = booleans(f"masks[{name!r}]", values)
            if mask.shape != (len(self),):
                raise ValueError(f"masks[{name!r}] must be ({len(self)},), got {tuple(mask.shape)}")
            self.masks[name] = mask & self.masks.get(name, mask)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(
        self, index: int | Sequence[int] | slice
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Row ``index``, or the batch of a list or slice of them."""
        return (
            {name: self._serve(name, index) for name in self.arrays},
            {name: mask[index] for name, mask in self.masks.items()},
        )

    def subset(self, index: Any) -> "MultimodalDataset":
        """The rows ``index`` (indices, a slice or a boolean mask) as a data set of its own."""
        if not isinstance(index, slice):
            index = np.asarray(index)
            index = index if index.size else index.astype(np.int64)  # of [] NumPy makes floats
            if index.ndim != 1:
                raise ValueError(f"index: got shape {index.shape}, expected (n,)")
        # Checked, and with negative ones counted from the end.
        index = torch.from_numpy(np.arange(len(self))[index])
        return MultimodalDataset(
            {
                name: array.take(index) if isinstance(array, LazyArray) else array[index]
                for name, array in self.arrays.items()
            },
            {name: mask[index] for name, mask in self.masks.items()},
            self.transforms,
        )

    def concatenate(self, other: "MultimodalDataset") -> "MultimodalDataset":
        """The rows of this data set and then those of another one with the same modalities; arrays
        are not copied.

        Raises:
            ValueError: If the modalities or their transforms differ.
        """
        if set(self.arrays) != set(other.arrays):
            raise ValueError(
                f"other must have the modalities {list(self.arrays)}, got {list(other.arrays)}"
            )
        if self.transforms != other.transforms:
            raise ValueError("other must have the same transforms")
        here, there = torch.ones(len(self)).bool(), torch.ones(len(other)).bool()
        return MultimodalDataset(
            {
                name: LazyArray.concatenate([LazyArray.of(a) for a in (mine, other.arrays[name])])
                for name, mine in self.arrays.items()
            },
            {
                name: torch.cat([self.masks.get(name, here), other.masks.get(name, there)])
                for name in {**self.masks, **other.masks}
            },
            self.transforms,
        )

    def _serve(self, name: str, index: Any) -> Tensor:
        transform = self.transforms.get(name, _model_dtype)
        if not isinstance(index, slice) and np.ndim(index) == 0:
            return transform(self.arrays[name][[int(index)]])[0]
        return transform(self.arrays[name][index])


def _model_dtype(x: Tensor) -> Tensor:
    return x.to(torch.get_default_dtype()) if x.is_floating_point() else x.long()


def _stored(name: str, array: Any, has_transform: bool) -> Tensor | LazyArray:
    values: Tensor | LazyArray
    if isinstance(array, LazyArray | np.memmap):
        values = lazy = LazyArray.of(array)
        check_numbers(name, lazy.shards[0])
    else:
        values = as_tensor(name, array)
    if values.dim() == 0:
        raise ValueError(f"modality {name!r}: data must be (n, ...), got a single number")
    if has_transform:
        return values
    if values.dtype == torch.bool or values.dtype.is_complex:
        raise TypeError(
            f"modality {name!r}: data must be floats or integers, got {values.dtype}; remedy: "
            "x.astype(int) for labels, x.astype(float) for numbers"
        )
    # Converted once here; what lies in files is converted as it is read.
    return values if isinstance(values, LazyArray) else _model_dtype(values)
