import numpy as np
import pytest

from mvae_fast.data.mnist.files import parse_idx
from tests.data.files import idx

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_arrays_come_back():
    assert np.array_equal(parse_idx(idx(IMAGES), "images", 3), IMAGES)
    assert parse_idx(idx(IMAGES[0, 0]), "labels", 1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "images is not an IDX file .* starts with nothing, expected 00 00 08 03"),
        (
            b"\x89PNG\r\n",
            "images is not an IDX file .* starts with 89 50 4e 47, expected 00 00 08 03",
        ),
        (idx(IMAGES[0, 0]), "with 3 axes: it starts with 00 00 08 01"),
        (idx(IMAGES).replace(b"\x08\x03", b"\x0d\x03", 1), "unsigned bytes .* 00 00 0d 03"),
        (idx(IMAGES)[:9], "images is truncated: 9 bytes, its header needs 16"),
        (idx(IMAGES)[:-1], r"images is truncated: 39 bytes, its sizes \[2, 3, 4\] need 40"),
        (idx(IMAGES) + b"\0", r"images is too long: its sizes \[2, 3, 4\] need 40 bytes"),
    ],
)
def test_what_is_wrong_is_said_with_the_files_name(content, message):
    with pytest.raises(ValueError, match=message):
        parse_idx(content, "images", 3)
