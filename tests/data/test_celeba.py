import numpy as np
import pytest
import torch
from PIL import Image

from mvae_fast.data import celeba19, celeba_edge, celeba_gray, celeba_mask
from mvae_fast.data.celeba import face_masks
from mvae_fast.data.celeba.files import CELEBA
from mvae_fast.data.lazy import LazyArray
from mvae_fast.data.transforms import edges, gray, resize_and_crop
from tests.data.celeba_layout import (
    ATTRIBUTES,
    EIGHTEEN,
    FORTY,
    NAMES,
    PARTS,
    jpeg,
    write_celeba,
)


@pytest.fixture(scope="module")
def jpegs():
    return [jpeg(i) for i in range(len(PARTS))]


@pytest.fixture
def folder(tmp_path, jpegs):
    write_celeba(tmp_path, jpegs)
    return tmp_path


def pixels(folder, number):
    with Image.open(folder / "celeba" / "img_align_celeba" / NAMES[number]) as image:
        return np.asarray(image)


@pytest.mark.parametrize(("loader", "name"), [(celeba_gray, "gray"), (celeba_edge, "edge")])
@pytest.mark.slow
def test_rows_are_the_images_and_their_views(folder, loader, name):
    splits = loader(folder, verify=False)
    assert [len(part) for part in splits] == [18, 2, 5]
    x, mask = splits.test[:]
    assert x["image"].shape == (5, 3, 64, 64) and x[name].shape == (5, 1, 64, 64) and mask == {}
    view = {"gray": gray, "edge": edges}[name]
    for i in range(5):
        image = resize_and_crop(pixels(folder, 32 + i))
        assert torch.equal(x["image"][i], torch.from_numpy(image / 255).permute(2, 0, 1).float())
        assert torch.equal(x[name][i, 0], torch.from_numpy(view(image) / 255).float())
    assert all(isinstance(array, LazyArray) for array in splits.train.arrays.values())


def test_the_splits_are_those_of_the_protocols(folder):
    def numbers(part):
        served = part[:][0]["image"]
        return [int((served[i].flatten() - every).abs().sum(1).argmin()) for i in range(len(part))]

    every = np.stack([resize_and_crop(pixels(folder, i)) for i in range(37)])
    every = torch.from_numpy(every / 255).permute(0, 3, 1, 2).float().flatten(1)
    small = celeba_gray(folder, verify=False)
    assert sorted(numbers(small.train) + numbers(small.validation)) == list(range(12, 32))
    assert numbers(small.test) == list(range(32, 37))
    assert sorted(numbers(small.select_on("test").train)) == list(range(12, 32))
    large = celeba_gray(folder, verify=False, train_split="train")
    assert [numbers(part) for part in large] == [
        list(range(12)),
        list(range(12, 32)),
        list(range(32, 37)),
    ]


def test_the_folders_of_the_authors_are_found(folder):
    celeba = folder / "celeba"
    for below, name in [
        ("Img", "img_align_celeba"),
        ("Anno", "list_attr_celeba.txt"),
        ("Eval", "list_eval_partition.txt"),
    ]:
        (celeba / below).mkdir()
        (celeba / name).rename(celeba / below / name)
    for data_dir in (folder, celeba):
        assert len(celeba19(data_dir, verify=False).test) == 5
    assert (celeba / "Img" / "mvae_fast_cache").is_dir()


def test_attributes_are_modalities(folder):
    splits = celeba19(folder, verify=False)
    x, _ = splits.test[:]
    assert list(x) == ["image", *EIGHTEEN]
    for name in EIGHTEEN:
        place = [attribute.lower() for attribute in FORTY].index(name)
        assert x[name].tolist() == ATTRIBUTES[32:, place].tolist()
        assert x[name].dtype == torch.int64


def test_images_are_read_once_and_changes_are_refused(folder):
    before = celeba_edge(folder, verify=False).test[:][0]
    path = folder / "celeba" / "img_align_celeba" / NAMES[33]
    other_sigma = celeba_edge(folder, verify=False, sigma=2).test[:][0]
    assert other_sigma["edge"].mean() < before["edge"].mean()
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(
        ValueError, match="celeba-edge-sigma1-test.npy was made from something else"
    ):
        celeba_edge(folder, verify=False)


def test_masks_are_drawn_on_the_large_image_and_scaled(folder, monkeypatch):
    class Stand:
        def __init__(self, model):
            assert model == folder / "celeba" / face_masks.MODEL

        def __call__(self, image):
            mask = np.zeros(image.shape[:2], np.uint8)
            mask[:109] = 255
            return mask

    (folder / "celeba" / face_masks.MODEL).touch()
    monkeypatch.setattr("mvae_fast.data.celeba.FaceMasks", Stand)
    x, _ = celeba_mask(folder, verify=False).test[:]
    assert x["mask"][:, 0, :31].eq(1).all() and x["mask"][:, 0, 34:].eq(0).all()
    (folder / "celeba" / face_masks.MODEL).unlink()
    assert len(celeba_mask(folder, verify=False).test) == 5  # all masks are there: no need of dlib


def test_masks_without_the_model_fail_before_any_work(folder, monkeypatch):
    monkeypatch.setattr(face_masks, "SYSTEM_FOLDER", folder / "system")
    with pytest.raises(FileNotFoundError, match="missing shape_predictor_68_face_landmarks.dat"):
        celeba_mask(folder, verify=False)
    assert not list(folder.glob("celeba/mvae_fast_cache/*image*"))


def change(folder, name, old, new):
    path = folder / "celeba" / name
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(), 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "list_attr_celeba.txt",
            "37\r",
            "38\r",
            "list_attr_celeba.txt says 38 images and lists 37",
        ),
        ("list_attr_celeba.txt", "37\r", "count\r", "must start with the number of images"),
        ("list_attr_celeba.txt", "Young", "", "line 2: must name 40 attributes, got 39"),
        ("list_attr_celeba.txt", "000001.jpg ", "000001.jpg 7", "line 3: must be a name and 40"),
        ("list_eval_partition.txt", "000002.jpg 0", "000002.jpg 3", "line 2: must be a name and 0"),
        ("list_eval_partition.txt", "000002.jpg", "000003.jpg", "must list the same images"),
    ],
)
def test_damaged_lists_are_named(folder, name, old, new, message):
    change(folder, name, old, new)
    with pytest.raises(ValueError, match=message):
        celeba19(folder, verify=False)


@pytest.mark.parametrize("content", [b"no image", None, "small"])
def test_damaged_images_are_named(folder, content):
    path = folder / "celeba" / "img_align_celeba" / NAMES[14]
    if content == "small":
        Image.new("RGB", (178, 217)).save(path)
    else:
        path.write_bytes(content or path.read_bytes()[:500])
    message = "must be an RGB image of 178x218" if content == "small" else "is not a whole image"
    with pytest.raises(ValueError, match=f"000015.jpg {message}"):
        celeba19(folder, verify=False)


def test_missing_images_are_counted(folder):
    for number in (3, 20):
        (folder / "celeba" / "img_align_celeba" / NAMES[number]).unlink()
    with pytest.raises(FileNotFoundError, match="lacks 2 of the 37 images .* the first 000004.jpg"):
        celeba19(folder, verify=False)


def test_missing_files_say_where_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot be downloaded .*mmlab.ie.cuhk.edu.hk"):
        celeba_gray(tmp_path, download=True)
    assert CELEBA.homepage.split()[0] in celeba_gray.__doc__


def test_the_numbers_of_images_are_checked(folder):
    with pytest.raises(ValueError, match="must have 162770 images of the train split, got 12"):
        celeba_gray(folder)


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="train_split: got 'test', expected 'valid' or 'train'"):
        celeba_gray(tmp_path, train_split="test")
    with pytest.raises(ValueError, match="sigma: got 0, expected > 0"):
        celeba_edge(tmp_path, sigma=0)
