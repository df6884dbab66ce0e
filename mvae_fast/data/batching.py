"""Mini-batches of a data set, in an order that a resumed run finds again."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from mvae_fast.checks import integer
from mvae_fast.data.multimodal import MultimodalDataset

Batch = tuple[dict[str, Tensor], dict[str, Tensor]]


class EpochBatches(Sampler[list[int]]):
    """Batches of shuffled indices that depend on the seed and the epoch only, so that a resumed run
    sees the same.

    Every iteration is the next epoch, from 0 on, unless `set_epoch` says which. An iteration begins
    when its first batch is asked for.

    Args:
        n: Number of rows.
        batch_size: Rows a batch; the last batch may be smaller.
        seed: Of the shuffle; None keeps the order.

    Raises:
        ValueError: If an argument is no integer, or ``batch_size`` is not positive.

    Example:
        >>> sampler = EpochBatches(5, 2, seed=None)
        >>> list(sampler)
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, n: int, batch_size: int, seed: int | None = None) -> None:
        self.n = integer("n", n, 0)
        self.batch_size = integer("batch_size", batch_size, 1)
        self.seed = None if seed is None else integer("seed", seed, 0)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; Lightning calls this."""
        self.epoch = integer("epoch", epoch, 0)

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self.epoch
        self.epoch += 1
        order = np.arange(self.n)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.n)
        for start in range(0, self.n, self.batch_size):
            yield order[start : start + self.batch_size].tolist()


def batches(
    dataset: MultimodalDataset, batch_size: int, *, seed: int | None = None, num_workers: int = 0
) -> DataLoader[Batch]:
    """A DataLoader of whole batches, cut from the arrays at once instead of collated row by row.

    Every loop over it is a new epoch with another order; see `EpochBatches`.

    Args:
        dataset: The data.
        batch_size: Rows a batch.
        seed: Of the shuffle; None keeps the order.
        num_workers: Processes that read the data; 0 for this one.

    Returns:
        A loader of ``(x, mask)`` pairs.

    Raises:
        ValueError: If an argument is no integer, or ``batch_size`` is not positive.

    Example:
        >>> dataset = MultimodalDataset({"label": np.arange(5)})
        >>> [x["label"].tolist() for x, mask in batches(dataset, 2)]
        [[0, 1], [2, 3], [4]]
    """
    return _LateLoader(
        dataset,
        sampler=EpochBatches(len(dataset), batch_size, seed),
        batch_size=None,
        num_workers=integer("num_workers", num_workers, 0),
    )


class _LateLoader(DataLoader[Batch]):
    # Worker processes are given batches as soon as there is an iterator. A Lightning run that is
    # resumed makes one, and only then tells the sampler its epoch.

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        yield from super().__iter__()
