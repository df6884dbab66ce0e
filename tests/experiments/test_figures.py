import numpy as np
import torch
from matplotlib import image

from mvae_fast.experiments.figures import mosaic, samples_figure
from mvae_fast.vae import build_mvae


def testmosaic_puts_every_tile_in_its_place():
    tiles = np.arange(2 * 3 * 4 * 5, dtype=float).reshape(2, 3, 4, 5)
    picture = mosaic(tiles)
    assert picture.shape == (2 * 5 + 1, 3 * 6 + 1)
    for r in range(2):
        for c in range(3):
            tile = picture[r * 5 + 1 : r * 5 + 5, c * 6 + 1 : c * 6 + 6]
            np.testing.assert_array_equal(tile, tiles[r, c])


def test_mosaics_of_colours():
    tiles = np.random.default_rng(0).random((2, 3, 4, 5, 3))
    picture = mosaic(tiles)
    assert picture.shape == (11, 19, 3)
    np.testing.assert_array_equal(picture[6:10, 13:18], tiles[1, 2])


def test_the_figure_is_written_and_the_seed_decides_it(tmp_path):
    torch.manual_seed(0)
    config = {
        "latent_dim": 4,
        "modalities": {
            "image": {"type": "mlp", "shape": [8, 8], "hidden": 8},
            "label": {"type": "label", "num_classes": 10, "hidden": 8},
        },
    }
    models = {"A": build_mvae(config), "B": build_mvae(config)}
    pictures = []
    for i, seed in enumerate((0, 0, 1)):
        samples_figure(models, tmp_path / f"{i}.png", seed=seed)
        pictures.append(image.imread(tmp_path / f"{i}.png"))
    assert pictures[0].shape[1] > 800
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
