import sys

import numpy as np
import pytest

from mvae_fast.data.celeba import face_masks
from mvae_fast.data.celeba.face_masks import FaceMasks, draw_face, find_model
from mvae_fast.data.sources import data_root

SIZE = 200


def ellipse(n, x, y, width, height, start=0.0, end=2 * np.pi):
    angle = np.linspace(start, end, n, endpoint=end - start < 6)
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], 1)


def landmarks():
    """A face of ellipses; y grows downwards."""
    return np.concatenate(
        [
            ellipse(17, 100, 90, 80, 90, np.pi, 0),  # jaw, from left to right, below
            np.stack([np.linspace(50, 85, 5), [55, 50, 48, 50, 55]], 1),
            np.stack([np.linspace(115, 150, 5), [55, 50, 48, 50, 55]], 1),
            np.stack([np.full(4, 100), np.linspace(70, 105, 4)], 1),
            np.stack([np.linspace(85, 115, 5), [112, 114, 115, 114, 112]], 1),
            ellipse(6, 67, 70, 12, 5),
            ellipse(6, 133, 70, 12, 5),
            ellipse(12, 100, 145, 25, 12),
            ellipse(8, 100, 145, 15, 5),
        ]
    )


def test_the_parts_are_filled_and_the_jaw_is_a_line():
    pytest.importorskip("cv2", reason="needs pip install 'mvae_fast[masks]'")
    points = landmarks()
    mask = draw_face(points, SIZE, SIZE)
    assert mask.shape == (SIZE, SIZE) and set(np.unique(mask)) == {0, 255}
    for x, y in [(100, 145), (67, 70), (133, 70), (67, 51), (133, 51), (100, 108)]:
        assert mask[y, x] == 255, (x, y)
    for x, y in [(100, 60), (60, 110), (140, 110), (100, 128), (100, 20), (10, 10)]:
        assert mask[y, x] == 0, (x, y)
    for x, y in points.round().astype(int):
        assert mask[y, x] == 255
    chin = mask[165:, 100] > 0  # from below the mouth down
    assert 2 <= chin.sum() <= 3 and chin[180 - 165]


def test_the_mouths_area_is_that_of_its_hull():
    pytest.importorskip("cv2", reason="needs pip install 'mvae_fast[masks]'")
    mouth = draw_face(landmarks(), SIZE, SIZE)[130:161, 70:131] > 0
    polygon = 12 * np.sin(np.pi / 6) / 2 * 25 * 12  # of 12 points on an ellipse
    assert polygon < mouth.sum() < polygon + 2 * (25 + 12) * 2


def test_68_landmarks_are_needed():
    with pytest.raises(ValueError, match=r"landmarks must be \(68, 2\), got \(5, 2\)"):
        draw_face(np.zeros((5, 2)), 10, 10)


def test_missing_libraries_are_named_with_the_remedy(monkeypatch, tmp_path):
    for package in ("cv2", "dlib"):
        monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    with pytest.raises(ImportError, match=r"face masks: cv2 is .* 'mvae_fast\[masks\]'"):
        draw_face(landmarks(), SIZE, SIZE)
    (tmp_path / face_masks.MODEL).touch()
    with pytest.raises(ImportError, match=r"face masks: dlib is .* 'mvae_fast\[masks\]'"):
        FaceMasks(tmp_path / face_masks.MODEL)


def test_the_missing_model_is_named_with_its_source(tmp_path, monkeypatch):
    monkeypatch.setattr(face_masks, "SYSTEM_FOLDER", tmp_path / "system")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/x, .*libdlib-data.*dlib.net/files"):
        find_model([tmp_path / "x"])
    with pytest.raises(FileNotFoundError, match="model .*nowhere does not exist; .*libdlib-data"):
        FaceMasks(tmp_path / "nowhere")
    (tmp_path / face_masks.MODEL).touch()
    assert find_model([tmp_path / "x", tmp_path]) == tmp_path / face_masks.MODEL


def test_a_face_is_found_in_a_portrait_and_none_in_a_wall():
    pytest.importorskip("cv2", reason="needs pip install 'mvae_fast[masks]'")
    pytest.importorskip("dlib", reason="needs pip install 'mvae_fast[masks]'")
    import skimage.data
    from PIL import Image

    try:
        model = find_model([data_root()])
    except FileNotFoundError as error:
        pytest.skip(str(error))
    masks = FaceMasks(model)
    portrait = Image.fromarray(skimage.data.astronaut()[40:258, 140:318])
    mask = masks(np.asarray(portrait))
    assert mask.shape == (218, 178)
    rows, columns = mask.nonzero()  # the face is at rows 36..126 and columns 35..125
    assert 30 < rows.min() < rows.max() < 145 and 25 < columns.min() < columns.max() < 140
    assert 0.02 < (mask > 0).mean() < 0.2
    assert masks(np.full((218, 178, 3), 128, np.uint8)).max() == 0
