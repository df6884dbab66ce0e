"""The MNIST family: 28x28 grey images with a label."""

from dataclasses import replace

import numpy as np

from mvae_fast.checks import boolean
from mvae_fast.data.mnist.files import (
    EMNIST_LETTERS,
    FASHION_MNIST,
    KMNIST,
    MNIST,
    parse_idx,
    read_idx,
)
from mvae_fast.data.multimodal import MultimodalDataset, unit_interval
from mvae_fast.data.sources import DataDir, Source, find_files, verify_content
from mvae_fast.data.splits import Splits, loader

__all__ = ["emnist_letters", "fashion_mnist", "kmnist", "mnist"]

VALIDATION_ROWS = 5_000


def _read(
    source: Source,
    rows: tuple[int, int],
    labels: tuple[int, int],
    flip: bool,
    data_dir: DataDir = None,
    *,
    download: bool = False,
    verify: bool = True,
) -> Splits:
    """Files: ``{train,t10k}-images-idx3-ubyte`` and ``{train,t10k}-labels-idx1-ubyte``, of EMNIST
    ``emnist-letters-{train,test}-...``, plain or with ``.gz``, in a folder of the data set's name
    or of torchvision's, such as ``mnist/`` or ``MNIST/raw/``, or in the data folder itself.

    The test split is the official one. The validation split is 5,000 rows of the official training
    set, drawn once and for all: they are part of the data set, not of a run's seed. (Of a file that
    is not the official one, and smaller, it is a twelfth.)

    Of KMNIST checksums are known of the ``.gz`` files and of the uncompressed training images, of
    EMNIST that of NIST's archive; of their other files the numbers of rows are checked instead.
    EMNIST's files hold the images transposed and the labels as 1..26; both are put right here.

    Args:
        data_dir: Folder of the data sets; see `mvae_fast.data.sources.data_root`.
        download: Fetch missing files. NIST has one archive of 0.5 GB with all of EMNIST, of which
            the four files are kept.
        verify: Check that the files are the official ones: their checksums, or, where none is
            known, their numbers of rows. The form of the files is checked in any case.

    Returns:
        55,000 / 5,000 / 10,000 rows (EMNIST: 119,800 / 5,000 / 20,800) with ``image`` (28, 28) in
        [0, 1] and ``label`` in 0..9 (EMNIST: 0..25).

    Raises:
        FileNotFoundError: If files are missing.
        ValueError: If a file is damaged or not the official one.

    References:
        LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition,
        Proceedings of the IEEE 1998. Xiao, Rasul and Vollgraf, Fashion-MNIST: a novel image dataset
        for benchmarking machine learning algorithms, 2017. Clanuwat et al., Deep learning for
        classical Japanese literature, 2018. Cohen, Afshar, Tapson and van Schaik, EMNIST: an
        extension of MNIST to handwritten letters, 2017.
    """
    verify = boolean("verify", verify)
    paths = find_files(source, data_dir, download=download)
    if not verify:
        source = replace(source, content={}, delivered={})
    parts = []
    for i, official in ((0, rows[0]), (2, rows[1])):
        arrays = []
        for name, ndim in zip(source.files[i : i + 2], (3, 1), strict=True):
            content = read_idx(paths[name], ndim)
            # In this order a truncated file is called that, not one with another checksum.
            arrays.append(parse_idx(content, paths[name], ndim))
            verify_content(source, name, paths[name], content)
            if verify and len(arrays[-1]) != official:
                raise ValueError(
                    f"{paths[name]} is not the official file of {source.name}: "
                    f"{len(arrays[-1])} rows, expected {official}"
                )
        images, classes = arrays
        image_path, label_path = (paths[name] for name in source.files[i : i + 2])
        if images.shape[1:] != (28, 28):
            raise ValueError(f"{image_path} must hold images 28x28, got {images.shape[1:]}")
        if len(images) != len(classes):
            raise ValueError(
                f"{image_path} has {len(images)} images, {label_path} {len(classes)} labels"
            )
        if len(classes) and not (labels[0] <= classes.min() and classes.max() <= labels[1]):
            raise ValueError(
                f"{label_path} must hold labels from {labels[0]} to {labels[1]}, "
                f"got {classes.min()} to {classes.max()}"
            )
        images = images.swapaxes(1, 2) if flip else images
        parts.append(
            MultimodalDataset(
                # Copied, because torch wants memory that it may write to.
                {"image": images.copy(), "label": classes - labels[0]},
                transforms={"image": unit_interval},
            )
        )
    train, test = parts
    validation = min(VALIDATION_ROWS, len(train) // 12)
    # A permutation, because official files may be ordered by writer or by class.
    order = np.random.default_rng(0).permutation(len(train))
    held_out, rest = np.sort(order[:validation]), np.sort(order[validation:])
    return Splits(train.subset(rest), train.subset(held_out), test)


_DIGITS = ((60_000, 10_000), (0, 9), False)

mnist = loader("mnist", "MNIST: handwritten digits.", _read, MNIST, *_DIGITS)
fashion_mnist = loader(
    "fashion_mnist",
    "Fashion-MNIST: pieces of clothing of ten kinds.",
    _read,
    FASHION_MNIST,
    *_DIGITS,
)
kmnist = loader(
    "kmnist", "Kuzushiji-MNIST: ten characters of cursive Japanese.", _read, KMNIST, *_DIGITS
)
emnist_letters = loader(
    "emnist_letters",
    "EMNIST letters: handwritten letters, upper and lower case of each as one class.",
    _read,
    EMNIST_LETTERS,
    (124_800, 20_800),
    (1, 26),
    True,
)
