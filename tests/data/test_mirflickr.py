import pickle

import numpy as np
import pytest
import torch

from mvae_fast.data import LazyArray, mirflickr
from tests.data.mirflickr_layout import (
    COUNTS,
    IMAGES,
    MEAN,
    SPLITS,
    STD,
    csr,
    write_mirflickr,
)


@pytest.fixture
def folder(tmp_path):
    write_mirflickr(tmp_path)
    return tmp_path


def load(folder, **options):
    return mirflickr(folder, **{"split": 2, "verify": False, **options})


def test_rows_are_standardised_features_and_binary_tags(folder):
    splits = load(folder)
    for part, rows in zip(splits, SPLITS.values(), strict=True):
        x, mask = part[:]
        expected = (IMAGES["labelled"][rows] - MEAN) / np.where(STD > 0, STD, 1)
        assert torch.allclose(x["image"], torch.from_numpy(expected).float().clamp(-5, 5))
        tags = COUNTS["labelled"][rows] > 0
        assert torch.equal(x["text"], torch.from_numpy(tags).float())
        assert mask["text"].tolist() == tags.any(1).tolist() and list(mask) == ["text"]
        assert torch.equal(part[1][0]["text"], x["text"][1])
    assert not splits.train[3][1]["text"]  # row 1 has no tag


def test_unlabelled_rows_join_the_training_split(folder):
    splits = load(folder, unlabelled=True)
    assert [len(part) for part in splits] == [10, 2, 4]
    x, mask = splits.train[4:]
    assert torch.equal(x["text"], torch.from_numpy(COUNTS["unlabelled"] > 0).float())
    assert mask["text"].tolist() == (COUNTS["unlabelled"] > 0).any(1).tolist()
    assert torch.equal(x["image"][0], load(folder, unlabelled=True).train[4][0]["image"])


def test_features_stay_in_their_files(folder):
    images = load(folder, unlabelled=True).train.arrays["image"]
    assert isinstance(images, LazyArray)
    assert all(isinstance(shard, np.memmap) for shard in images.shards)
    again = pickle.loads(pickle.dumps(load(folder).train))
    assert torch.equal(again[:][0]["image"], load(folder).train[:][0]["image"])


def test_long_tails_are_cut_off(folder):
    x, _ = load(folder, clip=0.5).train[:]
    assert x["image"].abs().max() == 0.5


def test_nothing_is_unpickled(folder):
    objects = np.array([{"a": 1}], dtype=object)
    np.save(folder / "mirflickr/image/labelled/part-1.npy", objects)
    with pytest.raises(ValueError, match="part-1.npy is not a whole .npy file: .*Python objects"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "image/labelled/part-1.npy",
            np.zeros((3, 6), np.float32),
            r"part-1.npy must be .*\(n, 7\)",
        ),
        ("image/labelled/part-1.npy", np.zeros((3, 7)), r"must be float32 \(n, 7\), got float64"),
        (
            "image/labelled/part-1.npy",
            np.zeros((2, 7), np.float32),
            "labelled has 9 rows, .*npz 10",
        ),
        ("splits/test_indices_2.npy", np.array([4, 10]), r"numbers in 0..9, got 4 to 10"),
        ("splits/test_indices_2.npy", np.array([], int), r"numbers in 0..9, got none"),
        ("splits/test_indices_2.npy", np.array([4, 5.5]), r"must hold whole numbers \(n,\), got"),
        ("splits/test_indices_2.npy", np.array([4, 4]), "test_indices_2.npy names a row twice"),
        ("splits/test_indices_2.npy", np.array([4, 9]), "splits share rows"),
    ],
)
def test_files_that_do_not_fit_are_named(folder, name, array, message):
    np.save(folder / "mirflickr" / name, array)
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indptr": np.arange(4)}, "is not a 10x21 matrix .* 4 row starts"),
        ({"indices": np.full(COUNTS["labelled"].astype(bool).sum(), 21)}, "is not a 10x21 matrix"),
        ({"data": np.ones(3)}, "is not a 10x21 matrix in compressed sparse row form: 3 values"),
        ({"shape": np.array([10])}, "shape must be two numbers"),
        ({"data": np.array([{}])}, "must be an .npz file with .*allow_pickle"),
    ],
)
def test_matrices_are_checked(folder, changes, message):
    path = folder / "mirflickr/text/text_all_2000_labelled.npz"
    csr(path, COUNTS["labelled"], **changes)
    with pytest.raises(ValueError, match=f"text_all_2000_labelled.npz.*{message}"):
        load(folder)


def test_truncated_files_are_named(folder):
    for name in ("image/labelled/part-0.npy", "flickr_stats.npz"):
        path = folder / "mirflickr" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-30])
        with pytest.raises(ValueError, match=f"{path} "):
            load(folder)
        path.write_bytes(whole)
    np.savez(folder / "mirflickr/flickr_stats.npz", mean=MEAN)
    with pytest.raises(ValueError, match=r"it has \['mean'\], but not \['std'\]"):
        load(folder)


def test_missing_files_are_listed(folder):
    with pytest.raises(
        FileNotFoundError, match="missing splits/train_indices_1.npy, .*toronto.edu"
    ):
        load(folder, split=1)
    assert "http://www.cs.toronto.edu/~nitish/multimodal/" in mirflickr.__doc__


def test_official_sizes_are_checked(folder):
    with pytest.raises(ValueError, match="labelled must have 25000 rows, got 10"):
        load(folder, verify=True)


@pytest.mark.parametrize(("option", "value"), [("split", 0), ("split", 6), ("clip", 0)])
def test_options_are_checked(folder, option, value):
    with pytest.raises(ValueError, match=f"{option} must be .*, got {value}"):
        load(folder, **{option: value})
