import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvae_fast.data import DATASETS, load_dataset
from mvae_fast.data import mnist as mnist_function
from mvae_fast.data.mnist import _DIGITS, _read, emnist_letters, fashion_mnist, kmnist
from mvae_fast.data.mnist import files as mnist_files
from mvae_fast.data.mnist.files import parse_idx
from tests.data.files import idx, mnist_like, write

SOURCES = {
    "mnist": mnist_files.MNIST,
    "fashion_mnist": mnist_files.FASHION_MNIST,
    "kmnist": mnist_files.KMNIST,
}


def place(folder, contents, end=""):
    for name, content in contents.items():
        write(folder / f"{name}{end}", content)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_rows_are_those_of_the_files(tmp_path, name, end):
    contents = mnist_like(SOURCES[name])
    place(tmp_path / name, contents, end)
    splits = load_dataset(name, tmp_path, verify=False)
    assert [len(part) for part in splits] == [22, 2, 6]
    images, labels, test_images, test_labels = (
        torch.from_numpy(parse_idx(content, "", 3 - 2 * (i % 2)).copy())
        for i, content in enumerate(contents.values())
    )
    x, mask = splits.test[:]
    assert torch.equal(x["image"], test_images / 255) and x["image"].dtype == torch.float32
    assert torch.equal(x["label"], test_labels.long()) and mask == {}
    assert splits.test.arrays["image"].dtype == torch.uint8
    together = splits.train.concatenate(splits.validation)[:][0]
    served = {(i.numpy().tobytes(), int(j)) for i, j in zip(*together.values(), strict=True)}
    assert served == {
        ((i / 255).numpy().tobytes(), int(j)) for i, j in zip(images, labels, strict=True)
    }


def test_the_validation_rows_are_always_the_same(tmp_path):
    contents = mnist_like(mnist_files.MNIST, rows=(60, 6))
    contents["train-labels-idx1-ubyte"] = idx(np.arange(60) % 10)
    place(tmp_path, contents)
    validation = mnist_function(tmp_path, verify=False).validation
    assert validation.arrays["label"].tolist() == [8, 6, 0, 7, 2]


@pytest.mark.parametrize("folder", ["MNIST/raw", "mnist/raw", "MNIST", ".", "raw"])
def test_other_libraries_folders_are_found(tmp_path, folder):
    place(tmp_path / folder, mnist_like(mnist_files.MNIST))
    assert len(mnist_function(tmp_path, verify=False).test) == 6


def test_letters_are_turned_upright_and_counted_from_0(tmp_path):
    source = mnist_files.EMNIST_LETTERS
    contents = mnist_like(source, labels=range(1, 27))
    picture = np.zeros((6, 28, 28), dtype=np.uint8)
    picture[:, 3, 10:20] = 255  # stored transposed: upright it is a vertical bar in column 3
    contents["emnist-letters-test-images-idx3-ubyte"] = idx(picture)
    contents["emnist-letters-test-labels-idx1-ubyte"] = idx(np.array([1, 2, 3, 24, 25, 26]))
    place(tmp_path / "EMNIST" / "raw", contents, ".gz")
    x, _ = emnist_letters(tmp_path, verify=False).test[:]
    assert (x["image"][:, 10:20, 3] == 1).all() and x["image"].sum() == 60
    assert x["label"].tolist() == [0, 1, 2, 23, 24, 25]


def damage(contents, **changes):
    names = {"images": "train-images-idx3-ubyte", "labels": "train-labels-idx1-ubyte"}
    return {**contents, **{names[key]: value for key, value in changes.items()}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": idx(np.zeros(23))}, "train-images.* has 24 images, .*train-labels.* 23 labels"),
        (
            {"labels": idx(np.full(24, 10))},
            "train-labels.* must hold labels from 0 to 9, got 10 to",
        ),
        (
            {"images": idx(np.zeros((24, 28, 29)))},
            r"train-images.* must hold images 28x28, got \(28",
        ),
        ({"images": idx(np.zeros((24, 28, 28)))[:-1]}, "train-images-idx3-ubyte is truncated"),
        ({"labels": b"<html>"}, "train-labels-idx1-ubyte is not an IDX file"),
    ],
)
def test_damaged_files_are_named(tmp_path, changes, message):
    place(tmp_path, damage(mnist_like(mnist_files.MNIST), **changes))
    with pytest.raises(ValueError, match=message):
        mnist_function(tmp_path, verify=False)


def test_a_truncated_file_is_called_that_with_checksums_too(tmp_path):
    images = idx(np.zeros((24, 28, 28)))[:-1]
    place(tmp_path, damage(mnist_like(mnist_files.MNIST), images=images))
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is truncated: 18831 bytes"):
        mnist_function(tmp_path)


@pytest.mark.parametrize("content", [b"plain", b"\x1f\x8b\x08truncated or garbage", None])
def test_bad_gzip_files_are_named(tmp_path, content):
    place(tmp_path, mnist_like(mnist_files.MNIST), ".gz")
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.gz is not a complete gzip file"):
        mnist_function(tmp_path, verify=False)


def test_other_content_is_refused_with_both_checksums(tmp_path):
    contents = mnist_like(mnist_files.MNIST)
    place(tmp_path, contents)
    mine = hashlib.sha256(contents["train-images-idx3-ubyte"]).hexdigest()
    official = mnist_files.MNIST.content["train-images-idx3-ubyte"].removeprefix("sha256:")
    message = f"train-images-idx3-ubyte is not the official.*{mine}, expected {official}"
    with pytest.raises(ValueError, match=message):
        mnist_function(tmp_path)


def test_where_only_the_compressed_checksum_is_known_it_is_used(tmp_path, monkeypatch):
    contents = mnist_like(mnist_files.KMNIST)
    monkeypatch.delitem(mnist_files.KMNIST.content, "train-images-idx3-ubyte")
    place(tmp_path, contents, ".gz")
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz is not .* its md5 is"):
        kmnist(tmp_path)


def test_where_no_checksum_is_known_the_rows_are_counted(tmp_path):
    place(tmp_path, mnist_like(mnist_files.EMNIST_LETTERS, labels=range(1, 27)))
    with pytest.raises(ValueError, match="images-idx3-ubyte is not .* 24 rows, expected 124800"):
        emnist_letters(tmp_path)


@pytest.mark.parametrize("name", [*SOURCES, "emnist_letters"])
def test_missing_files_folders_and_remedies_are_listed(tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        DATASETS[name](tmp_path)
    message = str(caught.value)
    for part in ("images-idx3-ubyte", str(tmp_path / name), "--data-dir", "MVAE_FAST_DATA"):
        assert part in message
    assert "--download" in message and str(tmp_path / name / "raw") in message


def read_digits(source, *args, **options):
    return _read(source, *_DIGITS, *args, **options)


@pytest.mark.slow
def test_missing_files_are_downloaded(tmp_path, server):
    mirror, url = server
    contents = mnist_like(mnist_files.KMNIST)
    place(mirror, contents, ".gz")
    source = replace(mnist_files.KMNIST, url=url, delivered={})
    splits = read_digits(source, tmp_path / "data", download=True, verify=False)
    assert [len(part) for part in splits] == [22, 2, 6]
    assert (tmp_path / "data" / "kmnist" / "t10k-labels-idx1-ubyte.gz").exists()


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.slow
def test_downloads_are_verified_in_any_case(tmp_path, server, verify):
    mirror, url = server
    place(mirror, mnist_like(mnist_files.MNIST), ".gz")
    source = replace(mnist_files.MNIST, url=url)
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz.* does not match"):
        read_digits(source, tmp_path / "data", download=True, verify=verify)


@pytest.mark.parametrize("loader", [mnist_function, fashion_mnist])
def test_the_official_files(loader):
    folder = os.environ.get("MVAE_FAST_DATA")
    if folder is None:
        pytest.skip("set MVAE_FAST_DATA to a folder with the official files")
    try:
        splits = loader(folder)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert [len(part) for part in splits] == [55_000, 5_000, 10_000]
    train = splits.select_on("test").train[:][0]
    mean, std = {mnist_function: (0.1307, 0.3081), fashion_mnist: (0.2860, 0.3530)}[loader]
    assert abs(train["image"].mean() - mean) < 1e-4 and abs(train["image"].std() - std) < 1e-4
    if loader is fashion_mnist:
        assert train["label"].bincount().tolist() == [6000] * 10
