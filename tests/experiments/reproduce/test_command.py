"""Each experiment from the command line, as small as it gets."""

import csv
import json

import numpy as np
import pytest
import torch
from matplotlib import image

from mvae_fast.cli import main
from mvae_fast.data import Splits, load_dataset
from mvae_fast.experiments import run as experiment_run
from mvae_fast.experiments.reproduce import table2
from mvae_fast.experiments.reproduce.classifier import trained_classifier
from mvae_fast.experiments.reproduce.decisions import DECISIONS
from mvae_fast.experiments.reproduce.table2 import labelled_samples
from mvae_fast.experiments.reproduce.table3 import label_accuracy
from mvae_fast.vae import load_mvae
from tests.experiments.reproduce.tiny import DIGITS, PHOTOS, options


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One folder for all: what is trained for one experiment serves the others."""
    return tmp_path_factory.mktemp("reproduction")


def run(out, experiment, *argv, settings=DIGITS):
    return main(["reproduce", experiment, "--out", str(out), *options(settings), *argv])


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_table1(out, capsys):
    assert run(out, "table1", "--seeds", "0", "1", "--jobs", "2") == 0
    printed = capsys.readouterr().out
    assert "MVAE-CNF" in printed and " ± " in printed and "not a bound" in printed
    table = rows(out / "table1_digits.csv")
    assert {row["source"] for row in table} == {"paper", "elbo", "iwae"}
    assert {row["seeds"] for row in table} == {"2"}
    assert all(0 < float(row["mean"]) < 1000 and float(row["sd"]) > 0 for row in table)
    saved = json.loads((out / "table1_digits.json").read_text())
    assert saved["torch"] == torch.__version__ and saved["command"][0] == "table1"
    assert (out / "table1_digits.md").read_text().startswith("# Table 1")


def test_table2(out, capsys):
    assert run(out, "table2", "--seeds", "0", "1") == 0
    printed = capsys.readouterr().out
    assert "of the real test images" in printed and "95 % interval" in printed
    table = rows(out / "table2_digits.csv")
    assert [row["quantity"] for row in table] == ["1000 samples", "10000 samples"] * 2
    assert all(0 <= float(row["mean"]) <= 1 for row in table)
    real = next(line for line in printed.splitlines() if "classifier is right" in line)
    assert float(real.split("right on ")[1].split()[0]) > 0.9
    # The classifier is kept.
    written = (out / "classifiers" / "digits.pt").stat().st_mtime_ns
    assert run(out, "table2", "--seeds", "0", "1") == 0
    assert (out / "classifiers" / "digits.pt").stat().st_mtime_ns == written


def test_the_judge_of_table2_does_not_depend_on_the_supervision(tmp_path):
    settings = [*DIGITS, "paired_fraction=0.1", "selection=test"]
    judge = tmp_path / "classifiers" / "digits.pt"
    judge.parent.mkdir()
    torch.save({"net.1.weight": torch.zeros(1)}, judge)  # of unknown rows: to be replaced
    argv = ["--seeds", "0", "--models", "mvae"]
    assert run(tmp_path, "table2", *argv, settings=settings) == 0
    path = tmp_path / "wanted.pt"
    wanted = trained_classifier(load_dataset("digits").train, 10, path, {}).state_dict()
    weights = torch.load(judge)["state_dict"]
    assert all(torch.equal(value, weights[key]) for key, value in wanted.items())


def test_rows_of_table2_say_how_many_samples_there_are(out, monkeypatch):
    monkeypatch.setattr(table2, "COUNTS", (25, 103))
    assert run(out, "table2", "--seeds", "0", "--models", "mvae") == 0
    table = rows(out / "table2_digits.csv")
    assert [row["quantity"] for row in table] == ["20 samples", "100 samples"]


def test_samples_are_as_many_for_each_label(out):
    model = load_mvae(out / "runs" / "digits" / "seed0" / "mvae" / "model.pt")
    images, labels = labelled_samples(model, 1004, 10, seed=0)
    assert images.shape == (1000, 8, 8)
    assert labels.bincount().tolist() == [100] * 10
    again, _ = labelled_samples(model, 1004, 10, seed=0)
    assert torch.equal(images, again)


def test_table3(out):
    argv = ["--seeds", "0", "--fractions", "0.1", "1", "--models", "mvae_cnf"]
    assert run(out, "table3", *argv) == 0
    table = rows(out / "table3_digits.csv")
    assert {row["column"] for row in table} == {"MVAE-CNF, 10 %", "MVAE-CNF, 100 %"}
    assert "label right" in {row["quantity"] for row in table}
    assert min(image.imread(out / "table3_digits.png").shape[:2]) > 300
    # Everything paired is the run of Table 1.
    folders = {path.name for path in (out / "runs").iterdir()}
    assert "digits-paired-0.1" in folders and "digits-paired-1" not in folders


def test_label_accuracy_counts_the_likeliest_labels(out):
    model = load_mvae(out / "runs" / "digits" / "seed0" / "mvae" / "model.pt")
    test = load_dataset("digits").test
    x, _ = test[:]
    likely = model.reconstruct({"image": x["image"]})["label"].base_dist.probs.argmax(dim=1)
    wanted = (likely == x["label"]).double().mean().item()
    assert label_accuracy(model, test) == pytest.approx(wanted)


def test_decisions(out, capsys):
    names = ["code", "code-exact", "second-order", "hutchinson", "adjoint", "test-selection"]
    assert run(out, "decisions", "--seeds", "0", "--decisions", *names) == 0
    table = rows(out / "decisions_digits.csv")
    assert {row["quantity"] for row in table} == {
        "MVAE",
        "as packaged",
        *(DECISIONS[name][0] for name in names),
    }
    error = {
        row["quantity"]: float(row["mean"]) for row in table if row["column"] == "trace - log-det"
    }
    assert "MVAE" not in error and error["as packaged"] != error["one step, T = 0.5"]
    capsys.readouterr()
    assert run(out, "decisions", "--decisions", "luck", "--device", "cpu") == 2
    assert "--decisions: unknown 'luck'" in capsys.readouterr().err


def test_decisions_with_a_solver_that_has_no_exact_log_det(tmp_path, capsys):
    adaptive = [*DIGITS, "epochs=1", "flows.mvae_cnf.solver=dopri8"]
    argv = ["--seeds", "0", "1", "--decisions", "jump"]
    assert run(tmp_path, "decisions", *argv, settings=adaptive) == 0
    printed = capsys.readouterr().out
    assert "trace - log-det" not in printed
    assert "digits, as packaged: its solver's steps have no exact log-determinant" in printed


@pytest.mark.parametrize("experiment", ["figure3", "figure4"])
def test_figures_of_samples(out, experiment, capsys):
    assert run(out, experiment, "--seeds", "0") == 0
    picture = image.imread(out / f"{experiment}_digits.png")
    assert min(picture.shape[:2]) > 400
    assert len(np.unique(picture)) > 50


def test_figure4_as_the_code_samples(out):
    for flags in ([], ["--through-flow"]):
        assert run(out, "figure4", "--seeds", "0", *flags) == 0
    through, direct = (
        image.imread(out / f"figure4_digits{suffix}.png") for suffix in ("_through_flow", "")
    )
    assert through.shape == direct.shape and not np.array_equal(through, direct)


def test_table4_and_figure5(out, monkeypatch):
    few = Splits(*(part.subset(range(0, len(part), 12)) for part in load_dataset("photos_gray")))
    monkeypatch.setattr(experiment_run, "load_dataset", lambda *args, **options: few)
    argv = ["--seeds", "0", "--dataset", "photos_gray", "--models", "mvae_cnf"]
    assert run(out, "table4", *argv, settings=PHOTOS) == 0
    table = rows(out / "table4_photos_gray.csv")
    assert {row["quantity"] for row in table} == {"IG: Image-Gray", "IG: Image", "IG: Gray"}
    value = {(row["quantity"], row["source"]): float(row["mean"]) for row in table}
    assert value["IG: Image", "elbo"] > value["IG: Image", "iwae"] > 1000
    assert run(out, "figure5", *argv, settings=PHOTOS) == 0
    picture = image.imread(out / "figure5_photos_gray.png")
    assert min(picture.shape[:2]) > 400 and picture.std() > 0.05


def test_unknown_experiments_and_missing_data_are_named(out, capsys, tmp_path):
    assert main(["reproduce", "table5"]) == 2
    assert "experiment: unknown 'table5'; did you mean table4" in capsys.readouterr().err
    argv = ["--dataset", "celeba", "--data-dir", str(tmp_path)]
    assert run(tmp_path / "new", "table4", *argv, settings=[]) == 2
    complaint = capsys.readouterr().err
    assert "list_attr_celeba.txt" in complaint and str(tmp_path) in complaint
    assert not (tmp_path / "new").exists()
