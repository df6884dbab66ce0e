"""Images computed once and kept in a memory-mapped file."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock  # torch requires it

from mvae_fast.data.optional import needed
from mvae_fast.files import write_bytes

CHUNK = 256
"""Rows between two notes of how far the work has come: what a kill costs at most."""


def fingerprint(files: Iterable[Path]) -> str:
    """A checksum of the names, sizes and times of files in this order, which changes with them.

    Their content is not read: for the 200,000 images of CelebA that would take longer than what
    the cache saves.
    """
    digest = hashlib.sha256()
    for path in files:
        about = path.stat()
        digest.update(f"{path.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def cached_images(
    path: Path,
    shape: tuple[int, ...],
    render: Callable[[int], np.ndarray],
    made_from: dict[str, Any],
) -> np.ndarray:
    """Compute uint8 images once; afterwards, and in other processes, map the file.

    ``<path>.json`` says what the images are made from and how many are done. A run that was killed
    is continued where that note was last written. A second process waits for the first.

    Args:
        path: The ``.npy`` file.
        shape: ``(n, ...)``.
        render: Gives the uint8 image ``shape[1:]`` of a row.
        made_from: Whatever decides the content, as JSON has it; a cache of something else is
            refused.

    Returns:
        uint8 ``shape``, a read-only memory map.

    Raises:
        ValueError: If the cache that is there was made from something else, or is not whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    note, part = path.with_suffix(".json"), path.with_suffix(".part.npy")
    if not path.exists():
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():  # another process may have made it meanwhile
                saved = _read(note)
                # A note without a beginning is what remains where somebody deleted the cache.
                same = part.exists() and saved.get("made_from") == made_from
                _fill(part, note, shape, render, made_from, saved["done"] if same else 0)
                part.replace(path)
    _refuse_others(path, _read(note).get("made_from"), made_from)
    images: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError(
            f"{path} must hold uint8 {shape}, got {images.dtype} {images.shape}; delete it to have "
            "it made again"
        )
    return images


def _fill(
    part: Path,
    note: Path,
    shape: tuple[int, ...],
    render: Callable[[int], np.ndarray],
    made_from: dict[str, Any],
    done: int,
) -> None:
    if done == 0:
        # First the note: whatever a kill leaves of the file, the note says that none of it counts.
        _write(note, {"made_from": made_from, "done": 0})
        images = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
    else:
        images = np.lib.format.open_memmap(part, "r+")
    with needed("tqdm", "the cache of images", "train").tqdm(
        total=shape[0], initial=done, desc=part.name.split(".")[0], unit="image"
    ) as bar:
        for start in range(done, shape[0], CHUNK):
            stop = min(start + CHUNK, shape[0])
            for row in range(start, stop):
                images[row] = render(row)
            images.flush()
            _write(note, {"made_from": made_from, "done": stop})
            bar.update(stop - start)


def _read(note: Path) -> dict[str, Any]:
    return json.loads(note.read_text()) if note.exists() else {}


def _write(note: Path, content: dict[str, Any]) -> None:
    write_bytes(note, json.dumps(content, indent=1).encode())


def _refuse_others(path: Path, theirs: dict[str, Any] | None, mine: dict[str, Any]) -> None:
    if theirs == mine:
        return
    if theirs is None:
        raise ValueError(
            f"{path} has no note of what it was made from beside it; delete it to have it made "
            "again"
        )
    differences = [
        f"{key} was {theirs.get(key)!r} and is {mine.get(key)!r}"
        for key in {**theirs, **mine}
        if theirs.get(key) != mine.get(key)
    ]
    raise ValueError(
        f"{path} was made from something else: {'; '.join(differences)}; delete it to have it made "
        "again"
    )
