"""Data sets by name."""

import inspect
from collections.abc import Callable
from typing import Any

from mvae_fast.checks import boolean
from mvae_fast.data.bundled.digits import digits
from mvae_fast.data.bundled.photos import photos_edge, photos_gray
from mvae_fast.data.bundled.synthetic import shapes6
from mvae_fast.data.celeba import celeba19, celeba_edge, celeba_gray, celeba_mask
from mvae_fast.data.mirflickr import mirflickr
from mvae_fast.data.mnist import emnist_letters, fashion_mnist, kmnist, mnist
from mvae_fast.data.sources import DataDir
from mvae_fast.data.splits import Splits

#: Loaders by the name of the data set; what each reads and serves is in its docstring.
DATASETS: dict[str, Callable[..., Splits]] = {
    loader.__name__: loader
    for loader in (
        digits, mnist, fashion_mnist, kmnist, emnist_letters, photos_gray, photos_edge,
        celeba_gray, celeba_edge, celeba_mask, celeba19, mirflickr, shapes6,
    )
}  # fmt: skip


def load_dataset(
    name: str, data_dir: DataDir = None, *, download: bool = False, **options: Any
) -> Splits:
    """Load a data set by name.

    Args:
        name: One of `DATASETS`.
        data_dir: Folder of the data sets that are read from files; None: that of the environment
            variable ``MVAE_FAST_DATA``, else the user's cache folder.
        download: Fetch missing files.
        options: Arguments of that data set's loader.

    Returns:
        Train, validation and test splits.

    Raises:
        ValueError: If the name or an option is unknown, or a file is damaged or not the official
            one.
        FileNotFoundError: If files are missing.

    Example:
        >>> len(load_dataset("digits").test)
        360
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {sorted(DATASETS)}, got {name!r}")
    download = boolean("download", download)
    loader = DATASETS[name]
    known = set(inspect.signature(loader).parameters) - {"data_dir", "download"}
    if unknown := set(options) - known:
        raise ValueError(f"{name} takes the options {sorted(known)}, got {sorted(unknown)}")
    return loader(data_dir, download=download, **options)
