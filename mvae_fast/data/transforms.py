"""Image transformations that make one modality out of another: size, grey values, edges."""

import numpy as np

from mvae_fast.checks import positive
from mvae_fast.data.optional import needed

EDGE_SIGMA = 1.0
"""Pixels. A sigma of 2 on CelebA's 178x218 pixels is one of 0.7 on 64x64. There, with Canny's
default thresholds, 0.7 also marks texture and noise, 1 the features of a face, and 2 loses them."""


def resize_and_crop(image: np.ndarray, size: int = 64) -> np.ndarray:
    """Scale the shorter side to ``size`` and cut the centre out of the longer one.

    The resampling is bilinear with antialiasing, and sizes and offsets are rounded, as by
    torchvision's ``Resize`` and ``CenterCrop`` on PIL images.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        size: Pixels of a side.

    Returns:
        uint8 (size, size, 3) or (size, size).

    Example:
        >>> resize_and_crop(np.zeros((218, 178, 3), np.uint8)).shape
        (64, 64, 3)
    """
    pillow = needed("PIL.Image", "resize_and_crop", "images")
    _check(image, (2, 3))
    height, width = image.shape[:2]
    shorter = min(height, width)
    height, width = size * height // shorter, size * width // shorter
    resized = pillow.fromarray(image).resize((width, height), pillow.Resampling.BILINEAR)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.asarray(resized)[top : top + size, left : left + size]


def gray(image: np.ndarray) -> np.ndarray:
    """Luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, as PIL's mode L.

    Args:
        image: uint8 (H, W, 3), RGB.

    Returns:
        uint8 (H, W).

    Example:
        >>> gray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8))
        array([[ 76, 150,  29]], dtype=uint8)
    """
    pillow = needed("PIL.Image", "gray", "images")
    _check(image, (3,))
    return np.asarray(pillow.fromarray(image).convert("L"))


def edges(image: np.ndarray, sigma: float = EDGE_SIGMA) -> np.ndarray:
    """Canny's edges of the grey image.

    Args:
        image: uint8 (H, W, 3), RGB.
        sigma: Of the Gaussian smoothing, pixels.

    Returns:
        uint8 (H, W), 255 on edges and 0 elsewhere.

    References:
        Canny, A computational approach to edge detection, IEEE TPAMI 1986.

    Example:
        >>> image = np.zeros((16, 16, 3), np.uint8)
        >>> image[:, 8:] = 255
        >>> edges(image)[8].nonzero()[0].tolist()
        [7, 8]
    """
    feature = needed("skimage.feature", "edges", "images")
    marked: np.ndarray = feature.canny(gray(image) / 255, sigma=positive("sigma", sigma))
    return marked.astype(np.uint8) * 255


def _check(image: np.ndarray, ndims: tuple[int, ...]) -> None:
    if (
        image.dtype != np.uint8
        or image.ndim not in ndims
        or (image.ndim == 3) != (image.shape[2:] == (3,))
    ):
        shapes = " or ".join("(H, W)" if ndim == 2 else "(H, W, 3)" for ndim in ndims)
        raise ValueError(f"image must be uint8 {shapes}, got {image.dtype} {image.shape}")
