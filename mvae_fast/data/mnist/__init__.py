"""The MNIST family: 28x28 grey images with a label."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from mvae_fast.checks import boolean
from mvae_fast.data.mnist.files import EMNIST_LETTERS, FASHION_MNIST, KMNIST, MNIST
from mvae_fast.data.mnist.idx import parse_idx
from mvae_fast.data.multimodal import MultimodalDataset, unit_interval
from mvae_fast.data.sources import Source, find_files, read_content, verify_content
from mvae_fast.data.splits import Splits

__all__ = ["emnist_letters", "fashion_mnist", "kmnist", "mnist"]

VALIDATION_ROWS = 5_000


def mnist(
    data_dir: str | os.PathLike[str] | None = None, *, download: bool = False, verify: bool = True
) -> Splits:
    """MNIST: handwritten digits.

    Files: ``{train,t10k}-images-idx3-ubyte`` and ``{train,t10k}-labels-idx1-ubyte``, plain or with
    ``.gz``, in ``mnist/`` or ``MNIST/raw/`` of the data folder or in the data folder itself.

    The test split is the official one. The validation split is 5,000 rows of the official training
    set, drawn once and for all: they are part of the data set, not of a run's seed. (Of a file that
    is not the official one, and smaller, it is a twelfth.)

    Args:
        data_dir: folder of the data sets; see `mvae_fast.data.sources.data_root`.
        download: fetch missing files.
        verify: check that the files are the official ones: their checksums, or, where none is
            known, their numbers of rows. The form of the files is checked in any case.

    Returns:
        55,000 / 5,000 / 10,000 rows with ``image`` (28, 28) in [0, 1] and ``label`` in 0..9.

    Raises:
        FileNotFoundError: if files are missing.
        ValueError: if a file is damaged or not the official one.

    References:
        LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition,
        Proceedings of the IEEE 1998.
    """
    return _splits(MNIST, data_dir, download, verify, (60_000, 10_000))


def fashion_mnist(
    data_dir: str | os.PathLike[str] | None = None, *, download: bool = False, verify: bool = True
) -> Splits:
    """Fashion-MNIST: pieces of clothing of ten kinds.

    Files and splits as those of `mnist`, in ``fashion_mnist/`` or ``FashionMNIST/raw/``.

    Args:
        data_dir: as for `mnist`.
        download: as for `mnist`.
        verify: as for `mnist`.

    Returns:
        55,000 / 5,000 / 10,000 rows with ``image`` (28, 28) in [0, 1] and ``label`` in 0..9.

    Raises:
        FileNotFoundError: if files are missing.
        ValueError: if a file is damaged or not the official one.

    References:
        Xiao, Rasul and Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine
        learning algorithms, 2017.
    """
    return _splits(FASHION_MNIST, data_dir, download, verify, (60_000, 10_000))


def kmnist(
    data_dir: str | os.PathLike[str] | None = None, *, download: bool = False, verify: bool = True
) -> Splits:
    """Kuzushiji-MNIST: ten characters of cursive Japanese.

    Files and splits as those of `mnist`, in ``kmnist/`` or ``KMNIST/raw/``. Checksums are known of
    the ``.gz`` files and of the uncompressed training images; of the other uncompressed files the
    numbers of rows are checked instead.

    Args:
        data_dir: as for `mnist`.
        download: as for `mnist`.
        verify: as for `mnist`.

    Returns:
        55,000 / 5,000 / 10,000 rows with ``image`` (28, 28) in [0, 1] and ``label`` in 0..9.

    Raises:
        FileNotFoundError: if files are missing.
        ValueError: if a file is damaged or not the official one.

    References:
        Clanuwat et al., Deep learning for classical Japanese literature, 2018.
    """
    return _splits(KMNIST, data_dir, download, verify, (60_000, 10_000))


def emnist_letters(
    data_dir: str | os.PathLike[str] | None = None, *, download: bool = False, verify: bool = True
) -> Splits:
    """EMNIST letters: handwritten letters, upper and lower case of each as one class.

    Files: ``emnist-letters-{train,test}-images-idx3-ubyte`` and
    ``emnist-letters-{train,test}-labels-idx1-ubyte``, plain or with ``.gz``, in
    ``emnist_letters/``, ``EMNIST/raw/`` or the data folder itself. The files hold the images
    transposed and the labels as 1..26; both are put right here. The splits are made as those of
    `mnist`. The checksum of NIST's archive is known, that of the files in it is not: of files that
    are already there the numbers of rows are checked.

    Args:
        data_dir: as for `mnist`.
        download: as for `mnist`; NIST has one archive of 0.5 GB with all of EMNIST, of which the
            four files are kept.
        verify: as for `mnist`.

    Returns:
        119,800 / 5,000 / 20,800 rows with ``image`` (28, 28) in [0, 1] and ``label`` in 0..25.

    Raises:
        FileNotFoundError: if files are missing.
        ValueError: if a file is damaged or not the official one.

    References:
        Cohen, Afshar, Tapson and van Schaik, EMNIST: an extension of MNIST to handwritten letters,
        2017.
    """
    return _splits(
        EMNIST_LETTERS, data_dir, download, verify, (124_800, 20_800), labels=(1, 26), flip=True
    )


def _splits(
    source: Source,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
    verify: bool,
    rows: tuple[int, int],
    *,
    labels: tuple[int, int] = (0, 9),
    flip: bool = False,
) -> Splits:
    verify = boolean("verify", verify)
    paths = find_files(source, data_dir, download=download)
    if not verify:
        source = replace(source, content={}, delivered={})
    parts = []
    for i, official in ((0, rows[0]), (2, rows[1])):
        arrays = []
        for name, ndim in zip(source.files[i : i + 2], (3, 1), strict=True):
            content = read_content(paths[name])
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
