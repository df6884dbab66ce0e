"""Reading the files of the MIR-Flickr features."""

import mmap
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mvae_fast.data.lazy import LazyArray

CHUNK = 8_192
"""Rows that are spread out at once: 16 MB of 2000 tags."""

LARGEST = 2**30
"""Bytes that an ``.npz`` file may unpack to."""


def shards(folder: Path, columns: int) -> LazyArray:
    """The ``.npy`` files of a folder in the order of their names, memory-mapped, as one array of so
    many columns.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If one is damaged or of another form.
    """
    paths = sorted(folder.glob("*.npy"))
    if not paths:
        raise FileNotFoundError(f"{folder} must hold .npy files, got none")
    arrays = [_load(path, mapped=True) for path in paths]
    for path, array in zip(paths, arrays, strict=True):
        if array.shape[1:] != (columns,) or array.dtype != arrays[0].dtype:
            raise ValueError(
                f"{path} must be {arrays[0].dtype} (n, {columns}), got {array.dtype} {array.shape}"
            )
        if array.dtype.kind != "f":
            raise ValueError(f"{path} must hold floats, got {array.dtype}")
    return LazyArray(arrays)


def load_npz(path: Path, keys: Sequence[str]) -> list[np.ndarray]:
    """Arrays of an ``.npz`` file, without unpickling anything.

    Raises:
        ValueError: If the file is damaged or lacks one.
    """
    try:
        with zipfile.ZipFile(path) as members:
            size = sum(member.file_size for member in members.infolist())
        if size > LARGEST:
            raise ValueError(f"it unpacks to {size} bytes, expected at most {LARGEST}")
        with np.load(path, allow_pickle=False) as archive:
            if missing := [key for key in keys if key not in archive]:
                raise ValueError(f"it has {list(archive)}, but not {missing}")
            return [archive[key] for key in keys]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must be an .npz file with {list(keys)}: {error}") from error


def row_numbers(path: Path, rows: int) -> np.ndarray:
    """The row numbers of a split, of so many rows that there are.

    Returns:
        int64 (n,).

    Raises:
        ValueError: If the file is damaged, or holds something else.
    """
    numbers = _load(path)
    whole = numbers.astype(np.int64) if numbers.dtype.kind in "iuf" else None
    if whole is None or whole.ndim != 1 or not np.array_equal(whole, numbers):
        raise ValueError(
            f"{path} must hold whole numbers (n,), got {numbers.dtype} {numbers.shape}"
        )
    if not len(whole) or whole.min() < 0 or whole.max() >= rows:
        raise ValueError(
            f"{path} must hold row numbers in 0..{rows - 1}, "
            f"got {f'{whole.min()} to {whole.max()}' if len(whole) else 'none'}"
        )
    if len(np.unique(whole)) < len(whole):
        raise ValueError(f"{path} names a row twice")
    return whole


def packed_tags(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """A sparse matrix of counts as bits: 1 where there is a count, 250 bytes for 2000 columns.

    Args:
        path: Of an ``.npz`` file with a matrix in compressed sparse row form.

    Returns:
        uint8 (n, ceil(columns / 8)) of bits, boolean (n,) which rows have one, and the number of
        columns.

    Raises:
        ValueError: If the file is damaged or no such matrix.
    """
    data, indices, indptr, shape = load_npz(path, ("data", "indices", "indptr", "shape"))
    if shape.shape != (2,):
        raise ValueError(f"{path}: shape must be two numbers, got {shape.tolist()}")
    rows, columns = (int(n) for n in shape)
    if (
        indptr.shape != (rows + 1,)
        or indptr[0] != 0
        or (np.diff(indptr) < 0).any()
        or not indptr[-1] == len(indices) == len(data)
        or (len(indices) and not (0 <= indices.min() and indices.max() < columns))
    ):
        raise ValueError(
            f"{path} is not a {rows}x{columns} matrix in compressed sparse row form: "
            f"{len(data)} values, {len(indices)} columns, {len(indptr)} row starts"
        )
    bits = np.empty((rows, -(-columns // 8)), np.uint8)
    for start in range(0, rows, CHUNK):
        stop = min(start + CHUNK, rows)
        entries = slice(indptr[start], indptr[stop])
        row = np.repeat(np.arange(stop - start), np.diff(indptr[start : stop + 1]))
        dense = np.zeros((stop - start, columns), bool)
        dense[row, indices[entries]] = data[entries] > 0  # no column occurs twice in a row
        bits[start:stop] = np.packbits(dense, axis=1)
    return bits, np.asarray(bits.any(axis=1)), columns


def _load(path: Path, *, mapped: bool = False) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not a whole .npy file: {error}") from error
    # Rows are read in random order. What the system reads ahead of each is not wanted, and is eight
    # times the row: 128 rows of a file that was not in memory took 0.7 s, so they take 0.02 s.
    if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        array.base.madvise(mmap.MADV_RANDOM)
    return array
