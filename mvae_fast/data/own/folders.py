"""Folders of images: a folder a class, a folder a modality, or a table with their names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mvae_fast.data.optional import needed
from mvae_fast.data.own.column import Column
from mvae_fast.data.own.tables import TABLES, read_table

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
"""Suffixes of images."""


def read_folder(path: Path) -> dict[str, Column]:
    """The images of a folder, and what belongs to them.

    With a table ``data.csv`` or ``data.parquet``: its columns, of which those with names of images
    are the images. Else, of subfolders: where they share names of files (without suffix), each is a
    modality, and a row is a name; where they share none, each is a class: modalities ``image`` and
    ``label``.

    Raises:
        ValueError: If there is neither, an image is damaged, or their sizes differ; the file is
            named.
        ImportError: If Pillow is not installed.
    """
    for suffix in TABLES:
        if (path / f"data{suffix}").is_file():
            return _with_images(path, read_table(path / f"data{suffix}"))
    folders = {folder.name: _images(folder) for folder in sorted(path.iterdir()) if folder.is_dir()}
    folders = {name: files for name, files in folders.items() if files}
    if not folders:
        raise ValueError(
            f"{path}: got a folder without data.csv, data.parquet or subfolders of images, "
            "expected one of these"
        )
    stems = [file.stem for files in folders.values() for file in files]
    if len(set(stems)) == len(stems):
        files = [file for files in folders.values() for file in files]
        labels = np.array([file.parent.name for file in files], dtype=object)
        there = np.ones(len(files), dtype=bool)
        return {
            "image": _load(f"{path.name}: images", files),
            "label": Column(f"{path.name}: the names of the folders", labels, there, 1),
        }
    rows = sorted(set(stems))
    columns = {}
    for name, files in folders.items():
        named = {file.stem: file for file in files}
        columns[name] = _load(f"{path.name}: folder {name!r}", [named.get(row) for row in rows])
    return columns


def _images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGES)


def _with_images(path: Path, columns: dict[str, Column]) -> dict[str, Column]:
    for name, column in columns.items():
        texts = [t for t, there in zip(column.values, column.present, strict=True) if there]
        if not texts or not column.is_text:
            continue
        if all(Path(text).suffix.lower() in IMAGES for text in texts):
            files: list[Path | None] = []
            for row, there in enumerate(column.present):
                file = path / column.values[row] if there else None
                if file is not None and not file.is_file():
                    raise ValueError(f"{column.at(row)}: got {file}, expected a file that is there")
                files.append(file)
            columns[name] = _load(column.what, files, column.cells)
    return columns


def _load(what: str, files: Sequence[Path | None], cells: Sequence[str] | None = None) -> Column:
    """Images ``(n, H, W)`` or ``(n, 3, H, W)``, uint8; those that are None are not there."""
    pillow = needed("PIL.Image", what, "images")
    images: list[np.ndarray | None] = []
    shapes: dict[tuple[int, ...], Path] = {}
    for file in files:
        if file is None:
            images.append(None)
            continue
        try:
            with pillow.open(file) as image:
                pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{what}: {file} is no image, or it is damaged: {error}") from None
        pixels = pixels if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
        images.append(pixels)
        shapes.setdefault(pixels.shape, file)
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        raise ValueError(
            f"{what}: got {second} of the shape {other}, expected {one}, as {first} has"
        )
    blank = np.zeros(next(iter(shapes)), dtype=np.uint8)
    present = np.array([image is not None for image in images])
    stacked = np.stack([blank if image is None else image for image in images])
    return Column(what, stacked, present, 1, cells)
