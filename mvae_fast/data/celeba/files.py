"""The files of CelebA: its images, attributes and official partition."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvae_fast.data.sources import DataDir, Source, find_files, read_content

CELEBA = Source(
    "celeba",
    ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"),
    homepage="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (for non-commercial research)",
    # As its authors hand it out, and as torchvision keeps it.
    folders=("CelebA", "celeba/Anno", "celeba/Eval", "celeba/Img", "Anno", "Eval", "Img"),
    subfolders=(),
)

#: The official parts by the number that ``list_eval_partition.txt`` has for them.
PARTITIONS = {"train": 0, "valid": 1, "test": 2}

#: The attributes that Wu and Goodman keep, by their place among the 40.
ATTRIBUTES_18 = (4, 5, 8, 9, 11, 12, 15, 17, 18, 20, 21, 22, 26, 28, 31, 32, 33, 35)

#: Bytes of a list; the official ones have up to 27 million.
_LARGEST = 2**26


@dataclass(frozen=True)
class CelebAFiles:
    """What the files say.

    Args:
        images: Folder of the images.
        partition_path: Of ``list_eval_partition.txt``.
        names: File name of every image.
        partition: (n,) number of the part that each belongs to.
        attribute_names: The 40 names.
        attributes: (n, 40), 0 or 1.
    """

    images: Path
    partition_path: Path
    names: list[str]
    partition: np.ndarray
    attribute_names: list[str]
    attributes: np.ndarray

    def rows(self, split: str) -> np.ndarray:
        """Which images belong to an official split."""
        return np.flatnonzero(self.partition == PARTITIONS[split])


def celeba_files(data_dir: DataDir = None) -> CelebAFiles:
    """Find and read the lists of CelebA.

    Raises:
        FileNotFoundError: If lists or images are missing.
        ValueError: If a list is damaged, or the two do not name the same images.
    """
    paths = find_files(CELEBA, data_dir)
    images, attribute_path, partition_path = (paths[name] for name in CELEBA.files)
    if not images.is_dir():
        raise ValueError(f"{images} must be the folder of the unpacked images, got a file")
    names, attribute_names, attributes = _read_attributes(attribute_path)
    partition = _read_partition(partition_path, names, attribute_path)
    there = {entry.name for entry in os.scandir(images)}
    if missing := [name for name in names if name not in there]:
        raise FileNotFoundError(
            f"{images} lacks {len(missing)} of the {len(names)} images that {partition_path} "
            f"lists, the first {missing[0]}"
        )
    return CelebAFiles(images, partition_path, names, partition, attribute_names, attributes)


def _lines(path: Path) -> list[str]:
    return read_content(path, _LARGEST).decode().splitlines()  # which takes CRLF, too


def _read_attributes(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    lines = _lines(path)
    if len(lines) < 2 or not lines[0].strip().isdigit():
        raise ValueError(
            f"{path} must start with the number of images and a line of attributes, got {lines[:1]}"
        )
    count, attribute_names = int(lines[0]), lines[1].split()
    if len(attribute_names) != 40:
        raise ValueError(f"{path}, line 2: must name 40 attributes, got {len(attribute_names)}")
    rows = [line.split() for line in lines[2:] if line.strip()]
    if len(rows) != count:
        raise ValueError(f"{path} says {count} images and lists {len(rows)}")
    for number, row in enumerate(rows, start=3):
        if len(row) != 41 or not set(row[1:]) <= {"1", "-1"}:
            raise ValueError(
                f"{path}, line {number}: must be a name and 40 values 1 or -1, "
                f"got {' '.join(row)[:60]!r}"
            )
    values = np.array([row[1:] for row in rows]) == "1"
    return [row[0] for row in rows], attribute_names, values.astype(np.uint8)


def _read_partition(path: Path, names: list[str], attribute_path: Path) -> np.ndarray:
    rows = [line.split() for line in _lines(path) if line.strip()]
    known = {str(number) for number in PARTITIONS.values()}
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or row[1] not in known:
            raise ValueError(
                f"{path}, line {number}: must be a name and 0, 1 or 2, got {' '.join(row)[:60]!r}"
            )
    if [row[0] for row in rows] != names:
        raise ValueError(
            f"{path} and {attribute_path} must list the same images in the same order, "
            f"got {len(rows)} and {len(names)}"
        )
    return np.array([int(row[1]) for row in rows], dtype=np.uint8)
