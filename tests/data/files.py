"""Files in the official formats, as small as a test wants them."""

import gzip

import numpy as np


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def mnist_like(source, rows=(24, 6), labels=range(10), seed=0):
    """Content of the four files of ``source`` by name."""
    generator = np.random.default_rng(seed)
    contents = []
    for n in rows:
        contents.append(idx(generator.integers(0, 256, (n, 28, 28))))
        contents.append(idx(generator.choice(labels, n)))
    return dict(zip(source.files, contents, strict=True))
