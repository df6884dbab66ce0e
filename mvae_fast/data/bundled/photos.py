"""Photographs that come with scikit-image and scikit-learn: image tasks without a download."""

from collections.abc import Callable, Iterator

import numpy as np

from mvae_fast.data.multimodal import MultimodalDataset, unit_interval
from mvae_fast.data.optional import needed
from mvae_fast.data.sources import DataDir
from mvae_fast.data.splits import Splits, loader
from mvae_fast.data.transforms import edges, gray

SIZE = 64
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "china.jpg", "flower.jpg")
# Vertical strips of each photograph, as shares of its width, and the strides of the patches in
# pixels. The narrowest, the cat's for validation, is 67 pixels wide.
STRIPS = {"train": (0.0, 0.65), "validation": (0.65, 0.8), "test": (0.8, 1.0)}
STRIDES = {"train": 32, "validation": 20, "test": 20}


def photographs() -> Iterator[np.ndarray]:
    """The photographs, uint8 (H, W, 3)."""
    some = needed("skimage.data", "photos", "images")
    others = needed("sklearn.datasets", "photos", "train")
    for name in PHOTOS:
        photo = others.load_sample_image(name) if "." in name else getattr(some, name)()
        yield np.asarray(photo)


def patches(photo: np.ndarray, split: str) -> np.ndarray:
    """The patches of a photograph (H, W, C) that belong to a split, (n, 64, 64, C)."""
    width = photo.shape[1]
    left, right = (int(share * width) for share in STRIPS[split])
    strip = photo[:, left:right]
    windows = np.lib.stride_tricks.sliding_window_view(strip, (SIZE, SIZE), axis=(0, 1))
    stride = STRIDES[split]
    # A window's axes come last; the channels go behind them.
    chosen = np.moveaxis(windows[::stride, ::stride], 2, -1).reshape(-1, SIZE, SIZE, photo.shape[2])
    if split == "train":
        chosen = np.concatenate([chosen, chosen[:, :, ::-1]])
    return chosen


def _read(
    name: str,
    view: Callable[[np.ndarray], np.ndarray],
    data_dir: DataDir = None,
    *,
    download: bool = False,
) -> Splits:
    """The photographs are the astronaut, cat, coffee and rocket of scikit-image and the Chinese
    temple and flower of scikit-learn. Each is cut into three vertical strips, one for each split,
    so that no pixel is in two splits. The patches of a split may overlap; those for training are
    also mirrored. A patch's grey values or edges are found on the patch alone.

    Args:
        data_dir: Not needed: the photographs come with the libraries.
        download: Not needed.

    Returns:
        Train, validation and test splits of 1504, 183 and 349 rows with ``image`` (3, 64, 64)
        in [0, 1] and ``gray`` (1, 64, 64) in [0, 1], or ``edge`` (1, 64, 64), 0 or 1.

    Example:
        >>> splits = _read("gray", gray)
        >>> [len(part) for part in splits]
        [1504, 183, 349]
        >>> x, _ = splits.test[0]
        >>> x["image"].shape, x["gray"].shape
        (torch.Size([3, 64, 64]), torch.Size([1, 64, 64]))
    """
    del data_dir, download
    photos = list(photographs())
    parts = []
    for split in STRIPS:
        images = np.concatenate([patches(photo, split) for photo in photos])
        views = np.stack([view(image) for image in images])
        parts.append(
            MultimodalDataset(
                {"image": np.moveaxis(images, -1, 1).copy(), name: views[:, None]},
                transforms={"image": unit_interval, name: unit_interval},
            )
        )
    return Splits(*parts)


photos_gray = loader(
    "photos_gray", "64x64 patches of six photographs, with their grey values.", _read, "gray", gray
)
photos_edge = loader(
    "photos_edge", "64x64 patches of six photographs, with their Canny edges.", _read, "edge", edges
)
