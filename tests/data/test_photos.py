import itertools

import numpy as np
import pytest
import torch

from mvae_fast.data import photos_edge, photos_gray
from mvae_fast.data.bundled import photos as photos_module


@pytest.mark.slow
def test_no_pixel_is_in_two_splits():
    for photo in photos_module.photographs():
        height, width, _ = photo.shape
        numbers = np.arange(height * width).reshape(height, width, 1)
        pixels = [set(photos_module.patches(numbers, s).ravel()) for s in photos_module.STRIPS]
        assert all(pixels)
        for one, other in itertools.combinations(pixels, 2):
            assert not one & other


def test_patches_are_cut_from_the_photograph():
    photo = next(photos_module.photographs())
    cut = photos_module.patches(photo, "train")
    assert cut.shape[1:] == (64, 64, 3)
    assert np.array_equal(cut[0], photo[:64, :64])
    assert np.array_equal(cut[1], photo[:64, 32:96])
    assert np.array_equal(cut[len(cut) // 2], photo[:64, 63::-1])
    assert np.array_equal(photos_module.patches(photo, "test")[0], photo[:64, 409:473])


@pytest.mark.parametrize(("loader", "name"), [(photos_gray, "gray"), (photos_edge, "edge")])
@pytest.mark.slow
def test_splits(loader, name):
    splits = loader()
    assert [len(part) for part in splits] == [1504, 183, 349]
    for part in splits:
        x, mask = part[:]
        assert x["image"].shape[1:] == (3, 64, 64) and x[name].shape[1:] == (1, 64, 64)
        for values in x.values():
            assert values.dtype == torch.float32 and 0 <= values.min() < values.max() <= 1
        assert mask == {}


def test_gray_is_that_of_the_image():
    x, _ = photos_gray().test[:]
    luma = torch.einsum("ncij,c->nij", x["image"], torch.tensor([0.299, 0.587, 0.114]))
    assert (luma - x["gray"][:, 0]).abs().max() < 0.51 / 255


@pytest.mark.slow
def test_edges_are_neither_everywhere_nor_nowhere():
    for part in photos_edge():
        assert 0.03 < part[:][0]["edge"].mean() < 0.15
