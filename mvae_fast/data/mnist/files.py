"""The files of the MNIST family: names, mirrors and checksums, and their format, IDX."""

from math import prod
from pathlib import Path

import numpy as np

from mvae_fast.data.sources import Source

UNSIGNED_BYTE = 0x08
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _sums(algorithm: str, *sums: str) -> dict[str, str]:
    return {name: f"{algorithm}:{value}" for name, value in zip(FILES, sums, strict=True)}


MNIST = Source(
    "mnist",
    FILES,
    homepage="http://yann.lecun.com/exdb/mnist/",
    folders=("MNIST",),
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    content=_sums(
        "sha256",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    delivered=_sums(
        "md5",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)

FASHION_MNIST = Source(
    "fashion_mnist",
    FILES,
    homepage="https://github.com/zalandoresearch/fashion-mnist",
    folders=("FashionMNIST", "fashion-mnist"),
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    content=_sums(
        "sha256",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    delivered=_sums(
        "md5",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)

KMNIST = Source(
    "kmnist",
    FILES,
    homepage="http://codh.rois.ac.jp/kmnist/",
    folders=("KMNIST",),
    url="http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    content={FILES[0]: "md5:92be26ec9822e900ac425d0a0aa84ced"},
    delivered=_sums(
        "md5",
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
)

EMNIST_LETTERS = Source(
    "emnist_letters",
    (
        "emnist-letters-train-images-idx3-ubyte",
        "emnist-letters-train-labels-idx1-ubyte",
        "emnist-letters-test-images-idx3-ubyte",
        "emnist-letters-test-labels-idx1-ubyte",
    ),
    homepage="https://www.nist.gov/itl/products-and-services/emnist-dataset",
    folders=("EMNIST", "emnist"),
    subfolders=("raw", "gzip"),
    url="https://biometrics.nist.gov/cs_links/EMNIST/",
    archive="gzip.zip",
    delivered={"gzip.zip": "md5:58c8d27c78d21e728a6bc7b3cc06412e"},
)


def parse_idx(content: bytes, path: str | Path, ndim: int) -> np.ndarray:
    """The array of an IDX file of unsigned bytes.

    The file starts with two zero bytes, a byte for the type (8: unsigned byte) and one for the
    number of axes, then come the sizes as big-endian 32-bit integers, then the values, the last
    axis running fastest.

    Args:
        ndim: Axes expected: 3 for images, 1 for labels.

    Returns:
        uint8 array with ``ndim`` axes, read-only.

    Raises:
        ValueError: If it is not such a file, or shorter or longer than its header says.

    References:
        LeCun, Cortes and Burges, The MNIST database of handwritten digits.

    Example:
        >>> parse_idx(b"\\0\\0\\x08\\x01" + b"\\0\\0\\0\\x03" + bytes([7, 8, 9]), "labels", ndim=1)
        array([7, 8, 9], dtype=uint8)
    """
    magic, expected = content[:4], bytes([0, 0, UNSIGNED_BYTE, ndim])
    if magic != expected:
        raise ValueError(
            f"{path} is not an IDX file of unsigned bytes with {ndim} axes: "
            f"it starts with {magic.hex(' ') or 'nothing'}, expected {expected.hex(' ')}"
        )
    start = 4 + 4 * ndim
    if len(content) < start:
        raise ValueError(f"{path} is truncated: {len(content)} bytes, its header needs {start}")
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    size = start + prod(shape)
    if len(content) != size:
        state = "truncated" if len(content) < size else "too long"
        raise ValueError(f"{path} is {state}: {len(content)} bytes, its sizes {shape} need {size}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
