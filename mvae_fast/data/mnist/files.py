"""The files of the MNIST family: names, mirrors and checksums, and their format, IDX."""

from math import prod
from pathlib import Path

import numpy as np

from mvae_fast.data.sources import Source, read_start

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
        "sha256",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)

FASHION_MNIST = Source(
    "fashion_mnist",
    FILES,
    homepage="https://github.com/zalandoresearch/fashion-mnist",
    folders=("FashionMNIST", "fashion-mnist"),
    # The authors' own; the mirror that they name has no https.
    url="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    content=_sums(
        "sha256",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    delivered=_sums(
        "sha256",
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)

KMNIST = Source(
    "kmnist",
    FILES,
    homepage="https://codh.rois.ac.jp/kmnist/",
    folders=("KMNIST",),
    url="https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
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


#: Bytes of a file; the largest of these has 98 million.
LARGEST = 2**28


def read_idx(path: Path, ndim: int) -> bytes:
    """The content of an IDX file, plain or with ``.gz``, of which no more is unpacked than its
    header says; arguments and errors as of `parse_idx`, and ValueError if that is too much."""
    start = 4 + 4 * ndim
    shape = _shape(read_start(path, start), path, ndim)
    if start + prod(shape) > LARGEST:
        raise ValueError(f"{path} has sizes {shape}, expected at most {LARGEST} bytes")
    return read_start(path, start + prod(shape) + 1)


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
    start, shape = 4 + 4 * ndim, _shape(content, path, ndim)
    size = start + prod(shape)
    if len(content) < size:
        raise ValueError(
            f"{path} is truncated: {len(content)} bytes, its sizes {shape} need {size}"
        )
    if len(content) > size:
        raise ValueError(f"{path} is too long: its sizes {shape} need {size} bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _shape(content: bytes, path: str | Path, ndim: int) -> list[int]:
    magic, expected = content[:4], bytes([0, 0, UNSIGNED_BYTE, ndim])
    if magic != expected:
        raise ValueError(
            f"{path} is not an IDX file of unsigned bytes with {ndim} axes: "
            f"it starts with {magic.hex(' ') or 'nothing'}, expected {expected.hex(' ')}"
        )
    start = 4 + 4 * ndim
    if len(content) < start:
        raise ValueError(f"{path} is truncated: {len(content)} bytes, its header needs {start}")
    return [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
