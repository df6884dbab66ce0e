"""A scene seen in six ways: a small data set for models with many modalities."""

import numpy as np

from mvae_fast.data.multimodal import MultimodalDataset, unit_interval
from mvae_fast.data.sources import DataDir
from mvae_fast.data.splits import Splits

SIZE = 16
SHAPES = ("disc", "square", "triangle", "cross")
SIZES = (3.0, 4.0, 5.0)
"""Pixels from the centre of a shape to its border."""
ROWS = (2_000, 200, 500)


def shapes6(data_dir: DataDir = None, *, download: bool = False) -> Splits:
    """Drawings of one shape each, seen in six ways that determine each other in part.

    A scene is a shape (disc, square, triangle, cross), a centre, a size, an orientation and a
    brightness, all independent and uniform. Its six modalities are

    ========== ============== =========== ====================================================
    name       shape          likelihood  what it shows of the scene
    ========== ============== =========== ====================================================
    image      (1, 16, 16)    Bernoulli   everything
    outline    (1, 16, 16)    Bernoulli   everything but the brightness
    label      ()             Categorical the shape, 0..3
    position   (2,)           Normal      centre, x and y, mean 0 and variance 1
    attributes (4,)           Bernoulli   right half?, lower half?, largest size?, bright half?
    size       ()             Categorical the size, 0..2
    ========== ============== =========== ====================================================

    So a model can be asked for a label, position, attributes or size from the image or the outline
    alone, and there is a right answer; of a label alone the shape in an image should be right.

    Args:
        data_dir: Not needed: the data are computed, and always the same.
        download: Not needed.

    Returns:
        2000 / 200 / 500 rows.

    Example:
        >>> splits = shapes6()
        >>> x, _ = splits.test[0]
        >>> {name: tuple(values.shape) for name, values in x.items()}
        {'image': (1, 16, 16), 'outline': (1, 16, 16), 'label': (), 'position': (2,),
        'attributes': (4,), 'size': ()}
    """
    del data_dir, download
    n = sum(ROWS)
    # RandomState's streams are frozen (NEP 19), which a Generator's are not.
    random = np.random.RandomState(0)
    label = random.randint(len(SHAPES), size=n)
    size = random.randint(len(SIZES), size=n)
    centre = random.uniform(5.0, 10.0, size=(n, 2))
    angle = random.uniform(0.0, 2 * np.pi, size=n)
    brightness = random.uniform(0.4, 1.0, size=n)

    distance = _signed_distance(label, np.take(SIZES, size), centre, angle)
    inside = np.clip(0.5 - distance, 0, 1)  # the share of a pixel that the shape covers, about
    outline = np.clip(1 - np.abs(distance), 0, 1)
    attributes = np.stack(
        [centre[:, 0] > 7.5, centre[:, 1] > 7.5, size == len(SIZES) - 1, brightness > 0.7], 1
    )
    dataset = MultimodalDataset(
        {
            "image": _stored(inside * brightness[:, None, None]),
            "outline": _stored(outline),
            "label": label,
            "position": (centre - 7.5) / np.sqrt(25 / 12),
            "attributes": attributes.astype(np.float64),
            "size": size,
        },
        transforms={"image": unit_interval, "outline": unit_interval},
    )
    ends = np.cumsum([0, *ROWS])
    return Splits(*(dataset.subset(range(a, b)) for a, b in zip(ends[:-1], ends[1:], strict=True)))


def _signed_distance(
    label: np.ndarray, radius: np.ndarray, centre: np.ndarray, angle: np.ndarray
) -> np.ndarray:
    """Pixels from each pixel to the border of each row's shape, negative inside, (n, 16, 16); next
    to corners it is only a bound."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    x = x - centre[:, 0, None, None]
    y = y - centre[:, 1, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    x, y = cos * x + sin * y, cos * y - sin * x
    radius = radius[:, None, None]

    disc = np.hypot(x, y) - radius
    half = radius * np.sqrt(np.pi) / 2  # the area of the disc
    square = np.maximum(np.abs(x), np.abs(y)) - half
    # The inner radius that gives an equilateral triangle two thirds of the disc's area.
    inner = radius * np.sqrt(2 * np.pi / 3 / np.sqrt(27))
    triangle = np.maximum(-y, np.abs(x) * np.sqrt(3) / 2 + y / 2) - inner
    bar = np.maximum(np.abs(x) - radius, np.abs(y) - radius / 4)
    other = np.maximum(np.abs(y) - radius, np.abs(x) - radius / 4)
    distances = np.stack([disc, square, triangle, np.minimum(bar, other)])
    return distances[label, np.arange(len(label))]


def _stored(images: np.ndarray) -> np.ndarray:
    # 256 levels, which a last digit of the arithmetic does not change.
    rounded: np.ndarray = np.round(images * 255).astype(np.uint8)
    return rounded[:, None]
