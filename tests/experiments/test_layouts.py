"""Training and the paper's tables on files in the official layouts."""

import csv

import pytest
import torch

from mvae_fast.cli import main
from mvae_fast.data import load_dataset
from mvae_fast.vae import load_mvae
from tests.data.celeba_layout import EIGHTEEN, write_celeba
from tests.data.mirflickr_layout import FEATURES, TAGS, write_mirflickr
from tests.experiments.reproduce.tiny import options

SMALL = ["epochs=1", "latent_dim=4", "flows.mvae_cnf={type: cnf, hidden: [8], n_steps: 2}"]
UNVERIFIED = "dataset_options.verify=false"


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_celeba(root)
    return root


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_nineteen_modalities_train_and_any_generates_any(celeba, tmp_path):
    narrow = [f"modalities.{name}.hidden=8" for name in EIGHTEEN]
    settings = [*SMALL, UNVERIFIED, "modalities.image.channels=2", "n_random_subsets=3", *narrow]
    argv = ["--dataset", "celeba19", "--data-dir", str(celeba), "--out", str(tmp_path)]
    assert main(["train", *argv, "--models", "mvae_cnf", *options(settings)]) == 0
    quantities = {row["quantity"] for row in rows(tmp_path / "table.csv")}
    assert {"ELBO joint", "ELBO X19", "-log p X19 | rest"} <= quantities

    model = load_mvae(tmp_path / "mvae_cnf" / "model.pt")
    names = list(model.modalities)
    assert names == ["image", *EIGHTEEN]
    x, _ = load_dataset("celeba19", celeba, verify=False).test[:2]
    generator = torch.Generator().manual_seed(0)
    subsets = [[name] for name in names]
    for size in (2, 7, 18):
        order = torch.randperm(19, generator=generator)[:size].tolist()
        subsets.append([names[i] for i in order])
    for subset in subsets:
        generated = model.generate(3, {name: x[name] for name in subset}, generator=generator)
        assert list(generated) == names
        for name, distribution in generated.items():
            drawn = distribution.sample()
            assert drawn.shape == (6, *x[name].shape[1:])
            assert drawn.isfinite().all()


def test_image_transformations_of_celeba(celeba, tmp_path):
    settings = [*SMALL, UNVERIFIED, "modalities.image.channels=2"]
    argv = ["--dataset", "celeba_gray", "celeba_edge", "--data-dir", str(celeba), "--seeds", "0"]
    command = ["reproduce", "table4", *argv, "--out", str(tmp_path), *options(settings)]
    assert main(command) == 0
    table = rows(tmp_path / "table4_celeba_gray_celeba_edge.csv")
    published = {
        (row["quantity"], row["column"]): float(row["mean"])
        for row in table
        if row["source"] == "published"
    }
    assert len(published) == 12 and published["IE: Edge", "MVAE-CNF"] == 992.2274
    ours = {row["quantity"] for row in table if row["source"] == "elbo"}
    assert ours == {quantity for quantity, _ in published}


def test_learning_with_few_pairs_on_flickr(tmp_path, capsys):
    write_mirflickr(tmp_path, split=1)
    settings = [
        *SMALL,
        UNVERIFIED,
        f"modalities.image={{shape: [{FEATURES}], hidden: 8}}",
        f"modalities.text={{shape: [{TAGS}], hidden: 8}}",
    ]
    argv = ["--dataset", "mirflickr", "--data-dir", str(tmp_path), "--seeds", "0"]
    out = tmp_path / "out"
    few = ["--fractions", "0.3", "1"]
    command = ["reproduce", "table3", *argv, *few, "--out", str(out), *options(settings)]
    assert main(command) == 0
    table = rows(out / "table3_mirflickr.csv")
    columns = [f"{model}, {share} %" for share in (30, 100) for model in ("MVAE", "MVAE-CNF")]
    assert {row["column"] for row in table} == set(columns)
    published = [row for row in table if row["source"] == "published"]
    assert {row["column"] for row in published} == {"MVAE-CNF, 30 %", "MVAE-CNF, 100 %"}
    ours = {row["quantity"] for row in table if row["source"] == "paper"}
    theirs = {row["quantity"] for row in published}
    assert theirs & ours == {"X1 BCE", "X2 BCE"} and theirs - ours == {"joint loss, lambda 50"}
    assert "which is none of our rows" in capsys.readouterr().out
    assert "label right" not in {row["quantity"] for row in table}


def test_unknown_options_of_a_data_set_are_named(tmp_path, capsys):
    argv = ["--set", "dataset_options.verify=false", "--out", str(tmp_path / "out")]
    assert main(["train", *argv]) == 2
    assert "digits takes the options" in capsys.readouterr().err
