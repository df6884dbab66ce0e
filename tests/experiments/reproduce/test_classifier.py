import lightning
import pytest
import torch

from mvae_fast.data import MultimodalDataset, load_dataset
from mvae_fast.experiments.reproduce import classifier
from mvae_fast.experiments.reproduce.classifier import trained_classifier

DIGITS = {"dataset": "digits"}


@pytest.fixture(scope="module")
def train():
    return load_dataset("digits").train.subset(range(300))


def trained(train, path, rows_of=DIGITS, **options):
    return trained_classifier(train, 10, path, rows_of, **{"epochs": 1, **options})


def same(one, two):
    theirs = two.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("modality", ["image", "label"])
def test_rows_that_lack_image_or_label_are_left_out(train, tmp_path, modality):
    there = torch.arange(300) % 3 > 0
    arrays = {name: values.clone() for name, values in train.arrays.items()}
    arrays[modality][~there] = -1 if modality == "label" else torch.nan
    masked = MultimodalDataset(arrays, {modality: there})
    mine = trained(masked, tmp_path / "masked.pt")
    assert same(mine, trained(train.subset(there), tmp_path / "subset.pt"))


def test_what_was_trained_likewise_is_read(train, tmp_path, monkeypatch):
    path = tmp_path / "new" / "digits.pt"
    first = trained(train, path)
    assert not first.training
    monkeypatch.setattr(lightning, "Trainer", None)  # training again would fail
    assert same(trained(train, path), first)


@pytest.mark.parametrize(
    "change",
    [
        {"rows_of": {"dataset": "digits", "dataset_options": {"verify": False}}},
        {"epochs": 2},
        {"seed": 1},
        {"recipe": 2},
        {"train": 299},
    ],
)
def test_what_was_trained_otherwise_is_trained_anew(train, tmp_path, change, monkeypatch):
    path = tmp_path / "digits.pt"
    trained(train, path)
    kept = path.read_bytes()
    if "recipe" in change:
        monkeypatch.setattr(classifier, "RECIPE", change.pop("recipe"))
    rows = train.subset(range(change.pop("train", 300)))
    anew = trained(rows, path, **change)
    assert path.read_bytes() != kept
    assert same(trained(rows, path, **change), anew)


def test_weights_of_unknown_origin_are_replaced(train, tmp_path):
    path = tmp_path / "digits.pt"
    bare = trained(train, path, seed=5)
    torch.save(bare.state_dict(), path)
    assert not same(trained(train, path), bare)
