"""CelebA's images, and views of them, as memory maps that are made once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mvae_fast.checks import boolean, one_of
from mvae_fast.data.cache import cached_images, fingerprint
from mvae_fast.data.celeba.files import CelebAFiles, celeba_files
from mvae_fast.data.multimodal import MultimodalDataset, unit_interval
from mvae_fast.data.optional import needed
from mvae_fast.data.sources import DataDir
from mvae_fast.data.splits import Splits
from mvae_fast.data.transforms import resize_and_crop

SIZE = 64
WIDTH, HEIGHT = 178, 218
OFFICIAL_ROWS = {"train": 162_770, "valid": 19_867, "test": 19_962}
#: One of so many rows of the official validation split is held back where the rest is trained on.
HELD_BACK = 10


def open_celeba(data_dir: DataDir, train_split: str, verify: bool) -> CelebAFiles:
    """CelebA's lists, once the arguments of a loader and the sizes of the splits are checked."""
    one_of("train_split", train_split, ("valid", "train"))
    verify = boolean("verify", verify)
    files = celeba_files(data_dir)
    for split, official in OFFICIAL_ROWS.items():
        n = len(files.rows(split))
        if n < 2 or (verify and n != official):
            raise ValueError(
                f"{files.partition_path} must have {official if verify else 'at least 2'} images "
                f"of the {split} split, got {n}"
            )
    return files


def make_splits(part: Callable[[str], MultimodalDataset], train_split: str) -> Splits:
    """The splits of a protocol from the data set of each official split."""
    if train_split == "train":
        return Splits(part("train"), part("valid"), part("test"))
    rest = part("valid")
    # RandomState's streams are frozen (NEP 19), which a Generator's are not.
    order = np.random.RandomState(0).permutation(len(rest))
    held_back = -(-len(rest) // HELD_BACK)
    train, validation = np.sort(order[held_back:]), np.sort(order[:held_back])
    return Splits(rest.subset(train), rest.subset(validation), part("test"))


def view_splits(
    files: CelebAFiles,
    train_split: str,
    name: str,
    view: Callable[[np.ndarray], np.ndarray],
    **settings: float,
) -> Splits:
    """Splits of images and a second view of each.

    Args:
        view: Takes the RGB image (218, 178, 3) to the view (64, 64), both uint8.
        settings: What else decides the views.
    """

    def part(split: str) -> MultimodalDataset:
        # The view first: if it cannot be made, that shows before minutes of work.
        views = _cached(files, split, name, 1, lambda rgb: view(rgb)[None], settings)
        return MultimodalDataset(
            {"image": image_rows(files, split), name: views},
            transforms={"image": unit_interval, name: unit_interval},
        )

    return make_splits(part, train_split)


def image_rows(files: CelebAFiles, split: str) -> np.ndarray:
    """The images of an official split, uint8 (n, 3, 64, 64), memory-mapped."""

    def small(rgb: np.ndarray) -> np.ndarray:
        return np.moveaxis(resize_and_crop(rgb, SIZE), -1, 0)

    return _cached(files, split, "image", 3, small, {})


def _cached(
    files: CelebAFiles,
    split: str,
    name: str,
    channels: int,
    render: Callable[[np.ndarray], np.ndarray],
    settings: dict[str, float],
) -> np.ndarray:
    paths = [files.images / files.names[row] for row in files.rows(split)]
    label = "-".join([name, *(f"{key}{value:g}" for key, value in settings.items()), split])
    return cached_images(
        files.images.parent / "mvae_fast_cache" / f"celeba-{label}.npy",
        (len(paths), channels, SIZE, SIZE),
        lambda row: render(_read(paths[row])),
        {"view": name, **settings, "files": fingerprint(paths)},
    )


def _read(path: Path) -> np.ndarray:
    opened = needed("PIL.Image", "CelebA", "images").open
    try:
        with opened(path) as image:
            pixels = np.asarray(image)
    except OSError as error:  # what Pillow raises for files that are no images or end too early
        raise ValueError(f"{path} is not a whole image: {error}") from error
    if pixels.shape != (HEIGHT, WIDTH, 3):
        raise ValueError(
            f"{path} must be an RGB image of {WIDTH}x{HEIGHT} pixels, got an array {pixels.shape}"
        )
    return pixels
