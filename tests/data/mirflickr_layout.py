"""MIR-Flickr in its official layout, with a few rows and fewer features."""

import numpy as np

FEATURES, TAGS = 7, 21


def counts(rows, seed):
    generator = np.random.default_rng(seed)
    matrix = generator.integers(1, 4, (rows, TAGS)) * (generator.random((rows, TAGS)) < 0.3)
    matrix[1] = 0
    return matrix


def csr(path, matrix, **changes):
    rows, columns = matrix.nonzero()
    indptr = np.searchsorted(rows, np.arange(len(matrix) + 1))
    content = {
        "data": matrix[rows, columns],
        "indices": columns.astype(np.int32),
        "indptr": indptr.astype(np.int32),
        "shape": np.array(matrix.shape),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{**content, **changes})


ROWS = {"labelled": 10, "unlabelled": 6}
IMAGES = {
    kind: np.random.default_rng(i).normal(3, 2, (n, FEATURES)).astype(np.float32)
    for i, (kind, n) in enumerate(ROWS.items())
}
COUNTS = {kind: counts(n, i) for i, (kind, n) in enumerate(ROWS.items())}
SPLITS = {"train": [8, 0, 3, 1], "valid": [9, 2], "test": [4, 5, 6, 7]}
MEAN, STD = np.linspace(2, 4, FEATURES), np.array([2, 2, 2, 0, 1, 2, 2])


def write_mirflickr(root, split=2):
    """Write images, texts, statistics and one set of splits under ``root/mirflickr``."""
    here = root / "mirflickr"
    for kind, images in IMAGES.items():
        (here / "image" / kind).mkdir(parents=True)
        for i, part in enumerate(np.split(images, [2, 5])):
            np.save(here / "image" / kind / f"part-{i}.npy", part)
        csr(here / "text" / f"text_all_2000_{kind}.npz", COUNTS[kind])
    (here / "splits").mkdir()
    for part, rows in SPLITS.items():
        np.save(here / "splits" / f"{part}_indices_{split}.npy", np.array(rows))
    np.savez(here / "flickr_stats.npz", mean=MEAN, std=STD)
