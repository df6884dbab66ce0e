"""Data sets of named modalities, and mini-batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = ["EpochBatches", "MultimodalDataset", "batches"]


class MultimodalDataset(Dataset[tuple[dict[str, Tensor], dict[str, Tensor]]]):
    """Named arrays with one row an example, some of which may be missing.

    An item is the pair ``(x, mask)`` that ``MVAE.loss`` takes. A list of indices gives a batch at
    once.

    Args:
        arrays: for each modality an array or tensor ``(n, ...)``. Floats become the default dtype,
            integers int64.
        masks: for modalities that some rows lack, True where they have it, boolean ``(n,)``. What
            the other rows hold is never looked at; NaN is a good choice.

    Raises:
        ValueError: if there is no array, the lengths differ, or a mask does not fit.
        TypeError: if an array is neither floating point nor integer, or a mask is not boolean.

    Example:
        >>> dataset = MultimodalDataset(
        ...     {"image": np.zeros((3, 8, 8)), "label": np.array([1, 2, -1])},
        ...     masks={"label": np.array([True, True, False])},
        ... )
        >>> x, mask = dataset[[0, 2]]
        >>> x["image"].shape, x["label"], mask
        (torch.Size([2, 8, 8]), tensor([ 1, -1]), {'label': tensor([ True, False])})
    """

    def __init__(self, arrays: Mapping[str, Any], masks: Mapping[str, Any] | None = None) -> None:
        if not arrays:
            raise ValueError("arrays must hold at least one modality")
        self.arrays = {name: _tensor(name, array) for name, array in arrays.items()}
        sizes = {name: len(array) for name, array in self.arrays.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"all modalities need the same number of rows, got {sizes}")
        self.masks = {}
        for name, values in (masks or {}).items():
            mask = torch.as_tensor(values)
            if name not in self.arrays:
                raise ValueError(
                    f"masks names {name!r}, which is not among the modalities {list(self.arrays)}"
                )
            if mask.dtype != torch.bool:
                raise TypeError(f"masks[{name!r}] must be boolean, got {mask.dtype}")
            if mask.shape != (len(self),):
                raise ValueError(f"masks[{name!r}] must be ({len(self)},), got {tuple(mask.shape)}")
            self.masks[name] = mask

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(
        self, index: int | Sequence[int] | slice
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Row ``index``, or the batch of a list or slice of them."""
        return (
            {name: array[index] for name, array in self.arrays.items()},
            {name: mask[index] for name, mask in self.masks.items()},
        )

    def subset(self, index: Any) -> MultimodalDataset:
        """The rows ``index`` (indices or a boolean mask) as a data set of its own."""
        index = torch.as_tensor(index)
        return MultimodalDataset(
            {name: array[index] for name, array in self.arrays.items()},
            {name: mask[index] for name, mask in self.masks.items()},
        )


class EpochBatches(Sampler[list[int]]):
    """Batches of shuffled indices that depend on the seed and the epoch only, so that a resumed run
    sees the same.

    Args:
        n: number of rows.
        batch_size: rows a batch; the last batch may be smaller.
        seed: of the shuffle; None keeps the order.

    Raises:
        ValueError: if ``batch_size`` is not positive.

    Example:
        >>> sampler = EpochBatches(5, 2, seed=None)
        >>> list(sampler)
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, n: int, batch_size: int, seed: int | None = None) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.n)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n)
        for start in range(0, self.n, self.batch_size):
            yield order[start : start + self.batch_size].tolist()


def batches(
    dataset: MultimodalDataset, batch_size: int, *, seed: int | None = None
) -> DataLoader[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """A DataLoader of whole batches, cut from the arrays at once instead of collated row by row.

    Args:
        dataset: the data.
        batch_size: rows a batch.
        seed: of the shuffle; None keeps the order.

    Returns:
        A loader of ``(x, mask)`` pairs.

    Example:
        >>> dataset = MultimodalDataset({"label": np.arange(5)})
        >>> [x["label"].tolist() for x, mask in batches(dataset, 2)]
        [[0, 1], [2, 3], [4]]
    """
    return DataLoader(
        dataset, sampler=EpochBatches(len(dataset), batch_size, seed), batch_size=None
    )


def _tensor(name: str, array: Any) -> Tensor:
    values = torch.as_tensor(array)
    if values.dim() == 0:
        raise ValueError(f"modality {name!r}: data must be (n, ...), got a single number")
    if values.is_floating_point():
        return values.to(torch.get_default_dtype())
    if values.dtype == torch.bool or values.is_complex():
        raise TypeError(f"modality {name!r}: data must be floats or integers, got {values.dtype}")
    return values.long()
