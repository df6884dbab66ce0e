"""The IDX format of the MNIST family: a magic number, the sizes, the bytes."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

__all__ = ["parse_idx"]

UNSIGNED_BYTE = 0x08


def parse_idx(content: bytes, path: str | Path, ndim: int) -> np.ndarray:
    """The array of an IDX file of unsigned bytes.

    The file starts with two zero bytes, a byte for the type (8: unsigned byte) and one for the
    number of axes, then come the sizes as big-endian 32-bit integers, then the values, the last
    axis running fastest.

    Args:
        content: of the file, uncompressed.
        path: of the file, for messages.
        ndim: axes expected: 3 for images, 1 for labels.

    Returns:
        uint8 array with ``ndim`` axes, read-only.

    Raises:
        ValueError: if it is not such a file, or shorter or longer than its header says.

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
