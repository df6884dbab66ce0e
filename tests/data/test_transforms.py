import numpy as np
import pytest
from PIL import Image

from mvae_fast.data.transforms import edges, gray, resize_and_crop


def test_resizing_rounds_as_torchvision_does():
    # torchvision: Resize(64) of 178x218 gives 64x78 (int(64 * 218 / 178)), CenterCrop starts at 7.
    image = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    resized = np.asarray(Image.fromarray(image).resize((64, 78), Image.Resampling.BILINEAR))
    assert np.array_equal(resize_and_crop(image), resized[7:71])
    turned = resize_and_crop(np.ascontiguousarray(image.swapaxes(0, 1))).swapaxes(0, 1)
    assert abs(turned.astype(int) - resize_and_crop(image)).max() <= 1  # rounds rows first


def test_resizing_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (128, 64))
    middle = resize_and_crop(stripes)[:, 1:-1].astype(int)
    assert abs(middle - 127.5).max() < 10


def test_gray_is_luma_to_within_rounding():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert abs(gray(image) - image @ [0.299, 0.587, 0.114]).max() < 0.51


def test_edges_are_thin_lines_where_the_brightness_changes():
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24, 8:24] = 200
    found = edges(image)
    assert set(np.unique(found)) == {0, 255}
    border = np.zeros((32, 32), bool)
    border[6:26, 6:26] = True
    border[10:22, 10:22] = False
    assert not found[~border].any()
    # A pixel for the upper and one for the lower side, or two where the step is right between two.
    assert set((found[:, 12:20] > 0).sum(0)) <= {2, 3, 4}
    assert edges(np.zeros((32, 32, 3), np.uint8)).max() == 0


def test_a_larger_sigma_finds_fewer_edges():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    counts = [(edges(noise, sigma) > 0).sum() for sigma in (0.7, 1, 2)]
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize("function", [gray, edges, resize_and_crop])
@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_other_arrays_are_refused(function, image):
    with pytest.raises(ValueError, match="image must be uint8 .*, got"):
        function(image)


def test_sigma_must_be_positive():
    with pytest.raises(ValueError, match="sigma: got 0, expected > 0"):
        edges(np.zeros((4, 4, 3), np.uint8), 0)
