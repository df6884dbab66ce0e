"""MIR-Flickr: features of photographs, and the tags that people gave them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mvae_fast.checks import boolean
from mvae_fast.data.lazy import LazyArray
from mvae_fast.data.mirflickr.files import load_npz, packed_tags, row_numbers, shards
from mvae_fast.data.multimodal import MultimodalDataset
from mvae_fast.data.sources import DataDir, Source, find_files
from mvae_fast.data.splits import Splits

__all__ = ["mirflickr"]

IMAGES, TAGS, SPLIT = "image/{}", "text/text_all_2000_{}.npz", "splits/{}_indices_{}.npy"
PARTS = ("train", "valid", "test")
OFFICIAL_ROWS = {"train": 10_000, "valid": 5_000, "test": 10_000}
OFFICIAL = {"labelled": 25_000, "unlabelled": 975_000}


def mirflickr(
    data_dir: DataDir = None,
    *,
    download: bool = False,
    split: int = 1,
    unlabelled: bool = False,
    clip: float = 5.0,
    verify: bool = True,
) -> Splits:
    """Features of a million photographs from Flickr and their 2000 most frequent tags.

    Files, in ``mirflickr/`` or the data folder itself::

        image/labelled/*.npy, image/unlabelled/*.npy  rows of 3857 floats, in the order of names
        text/text_all_2000_{labelled,unlabelled}.npz  counts of tags, compressed sparse rows
        splits/{train,valid,test}_indices_{1..5}.npy  row numbers among the labelled, from 0
        flickr_stats.npz                              mean and std of the 3857 features

    They cannot be downloaded automatically: get them from
    http://www.cs.toronto.edu/~nitish/multimodal/.

    The features stay in their files and are standardised as they are read. The tags are kept as
    bits, 250 bytes a row, because 975,000 rows of 2000 floats are 8 GB. Rows without a tag lack the
    modality ``text``: nothing distinguishes a photograph that nobody has tagged from one that none
    of the tags fits. The names labelled and unlabelled are about 38 classes that are not read.

    Args:
        data_dir: Folder of the data sets; see `mvae_fast.data.sources.data_root`.
        download: Has no effect: there is no mirror with single files.
        split: Which of the five official splits, 1..5.
        unlabelled: Train on the 975,000 unlabelled rows, too.
        clip: Standard deviations at which the standardised features, whose tails are long, are cut
            off: a Normal likelihood of variance 1 takes a value of 20 for 200 nats.
        verify: Check that there are as many rows as in the official files. Checksums of them are
            not published; their form is checked in any case.

    Returns:
        10,000 / 5,000 / 10,000 rows with ``image`` (3857,) for a Normal and ``text`` (2000,), 0 or
        1, for a Bernoulli likelihood.

    Raises:
        FileNotFoundError: If files are missing.
        ValueError: If a file is damaged, files do not fit together, or an argument cannot be used.

    References:
        Huiskes and Lew, The MIR Flickr retrieval evaluation, MIR 2008. Srivastava and
        Salakhutdinov, Multimodal learning with deep Boltzmann machines, JMLR 2014.
    """
    del download
    if split not in range(1, 6):
        raise ValueError(f"split must be one of 1 to 5, got {split!r}")
    if not clip > 0:
        raise ValueError(f"clip must be positive, got {clip}")
    unlabelled, verify = boolean("unlabelled", unlabelled), boolean("verify", verify)
    kinds = ("labelled", "unlabelled") if unlabelled else ("labelled",)
    files = find_files(_source(split, kinds), data_dir)
    stats = files["flickr_stats.npz"]
    mean, std = load_npz(stats, ("mean", "std"))
    if mean.ndim != 1 or mean.shape != std.shape:
        raise ValueError(f"{stats}: mean and std must be (n,), got {mean.shape} and {std.shape}")
    standardize = Standardize(torch.from_numpy(mean), torch.from_numpy(std), clip)

    datasets = {}
    unpack: UnpackBits | None = None
    for kind in kinds:
        image_path, text_path = files[IMAGES.format(kind)], files[TAGS.format(kind)]
        images = shards(image_path, len(mean))
        bits, tagged, columns = packed_tags(text_path)
        if len(images) != len(bits):
            raise ValueError(f"{image_path} has {len(images)} rows, {text_path} {len(bits)}")
        if verify and len(images) != OFFICIAL[kind]:
            raise ValueError(f"{image_path} must have {OFFICIAL[kind]} rows, got {len(images)}")
        unpack = unpack or UnpackBits(columns)
        if unpack.columns != columns:
            raise ValueError(f"{text_path} must have {unpack.columns} tags, got {columns}")
        datasets[kind] = MultimodalDataset(
            {"image": images, "text": LazyArray([bits])},
            {"text": tagged},
            {"image": standardize, "text": unpack},
        )
    labelled = datasets["labelled"]
    rows = {part: row_numbers(files[SPLIT.format(part, split)], len(labelled)) for part in PARTS}
    _check_splits(rows, files[SPLIT.format("train", split)].parent, verify)
    train, validation, test = (labelled.subset(rows[part]) for part in PARTS)
    if unlabelled:
        train = train.concatenate(datasets["unlabelled"])
    return Splits(train, validation, test)


@dataclass(frozen=True, eq=False)
class Standardize:
    """``(x - mean) / std`` of every feature, cut off at ``clip``; a feature without variance is
    0."""

    mean: Tensor
    std: Tensor
    clip: float

    def __call__(self, x: Tensor) -> Tensor:
        """Features (b, n) as they are stored, standardised."""
        std = torch.where(self.std > 0, self.std, 1.0)
        return ((x - self.mean) / std).clamp(-self.clip, self.clip).to(torch.get_default_dtype())


@dataclass(frozen=True)
class UnpackBits:
    """Bits, eight a byte, as floats 0 or 1."""

    columns: int

    def __call__(self, x: Tensor) -> Tensor:
        """Bytes (b, n) as floats (b, columns)."""
        bits = np.unpackbits(x.numpy(), axis=1, count=self.columns)
        return torch.from_numpy(bits).to(torch.get_default_dtype())


def _source(split: int, kinds: tuple[str, ...]) -> Source:
    files = [name.format(kind) for kind in kinds for name in (IMAGES, TAGS)]
    files += [SPLIT.format(part, split) for part in PARTS]
    return Source(
        "mirflickr",
        (*files, "flickr_stats.npz"),
        homepage="http://www.cs.toronto.edu/~nitish/multimodal/",
        folders=("MIRFLICKR", "flickr"),
        subfolders=(),
    )


def _check_splits(rows: dict[str, np.ndarray], folder: Path, verify: bool) -> None:
    numbers = np.concatenate(list(rows.values()))
    if len(np.unique(numbers)) < len(numbers):
        raise ValueError(f"the splits in {folder} share rows")
    sizes = {part: len(values) for part, values in rows.items()}
    if verify and sizes != OFFICIAL_ROWS:
        raise ValueError(f"the splits in {folder} must have {OFFICIAL_ROWS} rows, got {sizes}")
