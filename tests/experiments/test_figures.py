import numpy as np
import pytest
import torch
from matplotlib import image

from mvae_fast.cli import main
from mvae_fast.experiments.figures import mosaic, samples_figure, tiles
from mvae_fast.vae import build_mvae
from tests.experiments.reproduce.tiny import SHAPES, options


def model(shape=(8, 8), num_classes=10):
    torch.manual_seed(0)
    return build_mvae(
        {
            "latent_dim": 4,
            "modalities": {
                "image": {"type": "mlp", "shape": list(shape), "hidden": 8},
                "label": {"type": "label", "num_classes": num_classes, "hidden": 8},
            },
        }
    )


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


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 4, 5)])
def test_tiles_are_the_images_in_rows(shape):
    images = torch.rand(6, *shape)
    tiled = tiles(images, 3)
    assert tiled.shape == (2, 3, 4, 5, 3) if shape[0] == 3 else tiled.shape == (2, 3, 4, 5)
    wanted = images[5].movedim(0, -1) if shape[0] == 3 else images[5].view(4, 5)
    np.testing.assert_array_equal(tiled[1, 2], wanted)


def test_the_figure_is_written_and_the_seed_decides_it(tmp_path):
    models = {"A": model(), "B": model()}
    pictures = []
    for i, seed in enumerate((0, 0, 1)):
        samples_figure(models, tmp_path / f"{i}.png", seed=seed)
        pictures.append(image.imread(tmp_path / f"{i}.png"))
    assert pictures[0].shape[1] > 800
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def drawn(tmp_path, **modalities):
    samples_figure({"A": model(**modalities)}, tmp_path / "figure.png")
    return image.imread(tmp_path / "figure.png")


def test_every_label_has_a_row(tmp_path):
    heights = {n: drawn(tmp_path, num_classes=n).shape[0] for n in (4, 10, 26)}
    assert (heights[26] - heights[10]) / (heights[10] - heights[4]) == pytest.approx(
        16 / 6, rel=0.01
    )


def test_coloured_images_are_drawn_in_colour(tmp_path):
    red, green, blue, _ = drawn(tmp_path, shape=(3, 8, 8)).T
    assert not np.array_equal(red, green) and not np.array_equal(green, blue)
    red, green, blue, _ = drawn(tmp_path, shape=(1, 8, 8)).T
    assert np.array_equal(red, green) and np.array_equal(green, blue)


def test_a_label_without_classes_is_named(tmp_path):
    described = model().config
    described["modalities"]["label"] = described["modalities"]["image"]
    with pytest.raises(ValueError, match="'label' must have classes, got BernoulliLikelihood"):
        samples_figure({"A": build_mvae(described)}, tmp_path / "figure.png")


def test_training_on_four_labels_ends_with_the_figure(tmp_path):
    argv = ["train", "--dataset", "shapes6", *options(SHAPES), "--models", "mvae_cnf"]
    assert main([*argv, "--out", str(tmp_path)]) == 0
    assert image.imread(tmp_path / "samples.png").shape[0] > 300
