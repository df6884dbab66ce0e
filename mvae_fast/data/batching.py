"""Mini-batches of a data set, in an order that a resumed run finds again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from mvae_fast.data.multimodal import MultimodalDataset

__all__ = ["EpochBatches", "batches"]


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
