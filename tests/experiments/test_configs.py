"""Every packaged configuration describes models of its data set."""

from importlib import resources

import pytest
import torch

from mvae_fast.data import DATASETS, load_dataset
from mvae_fast.experiments.config import TrainConfig
from mvae_fast.vae import build_mvae

BASES = {"paper", "mnist_like", "image_pair", "own"}
FOLDER = resources.files("mvae_fast.experiments") / "configs"
NAMES = {path.name.removesuffix(".yaml") for path in FOLDER.iterdir()} - BASES


def test_every_data_set_has_one():
    assert set(DATASETS) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_it_names_the_data_set_and_builds_its_models(name):
    config = TrainConfig.load(name)
    assert config.dataset == name
    assert set(config.models) == {"mvae", "mvae_cnf"}
    with torch.device("meta"):
        model = build_mvae({**config.model("mvae"), "n_random_subsets": 0})
    assert list(model.modalities) == list(config.modalities)


@pytest.mark.parametrize("name", ["digits", "photos_gray", "photos_edge", "shapes6"])
def test_it_fits_the_data(name):
    splits = load_dataset(name)
    model = build_mvae(TrainConfig.load(name).model("mvae_cnf"))
    x, mask = splits.train[:3]
    assert set(x) == set(model.modalities)
    assert torch.isfinite(model.loss(x, mask))
