import csv
import json
import shutil

import pytest
import torch
import yaml

from mvae_fast.cli import main
from mvae_fast.experiments.folders.checkpoints import load_checkpoint
from mvae_fast.vae import build_mvae, load_mvae, save_mvae
from tests.data.mirflickr_layout import FEATURES, TAGS, write_mirflickr
from tests.experiments.reproduce.tiny import DIGITS, options


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    settings = options([*DIGITS, "seed=7", "elbo_samples=3", "iwae_samples=5"])
    assert main(["train", *settings, "--models", "mvae_cnf", "--out", str(out)]) == 0
    return out / "mvae_cnf"


def test_both_kinds_of_checkpoint_hold_the_model(run):
    saved = load_mvae(run / "model.pt").state_dict()
    for name in ("model.pt", "best.ckpt"):
        model = load_checkpoint(run / name)
        assert not model.training
        assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())


def numbers(path):
    with path.open() as file:
        return [row["mean"] for row in csv.DictReader(file)]


def test_evaluate_prints_the_numbers_of_the_run(run, tmp_path, capsys):
    assert main(["evaluate", str(run / "model.pt"), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "360 test rows of digits" in printed
    assert "(3 samples a row)" in printed and "(5 samples a row)" in printed
    assert numbers(tmp_path / "evaluation.csv") == numbers(run.parent / "table.csv")
    assert json.loads((tmp_path / "evaluation.json").read_text())["seed"] == 7


def test_the_noise_may_be_another(run, tmp_path):
    argv = ["evaluate", str(run / "model.pt"), "--out", str(tmp_path), "--seed", "0"]
    assert main(argv) == 0
    assert numbers(tmp_path / "evaluation.csv") != numbers(run.parent / "table.csv")


def test_a_checkpoint_is_found_from_its_own_folder(run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    assert main(["evaluate", "model.pt"]) == 0
    assert "MVAE-CNF" in capsys.readouterr().out


def test_evaluate_takes_the_rows_that_the_run_held_out(tmp_path, capsys):
    write_mirflickr(tmp_path, split=2)
    settings = [
        "dataset_options={split: 2, clip: 0.5, verify: false}",
        "epochs=1",
        "latent_dim=4",
        f"modalities.image={{shape: [{FEATURES}], hidden: 8}}",
        f"modalities.text={{shape: [{TAGS}], hidden: 8}}",
    ]
    out, files = tmp_path / "out", ["--data-dir", str(tmp_path)]
    train = ["train", "--dataset", "mirflickr", *files, "--models", "mvae", *options(settings)]
    assert main([*train, "--out", str(out)]) == 0
    capsys.readouterr()
    argv = ["evaluate", str(out / "mvae" / "model.pt"), *files, "--out", str(out)]
    for named in ([], ["--dataset", "mirflickr"]):
        assert main([*argv, *named]) == 0
        assert "4 test rows of mirflickr, split 2, clip 0.5" in capsys.readouterr().out
        assert numbers(out / "evaluation.csv") == numbers(out / "table.csv")


def test_another_data_set_has_its_own_options(run, tmp_path, capsys):
    (tmp_path / "mvae").mkdir()
    copy = shutil.copy(run / "model.pt", tmp_path / "mvae")
    recipe = yaml.safe_load((run.parent / "config.yaml").read_text())
    recipe = {**recipe, "dataset": "mirflickr", "dataset_options": {"split": 2}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["evaluate", str(copy), "--dataset", "digits"]) == 0
    assert "(16 samples a row)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", ["epochs: 3", "a: [", "3", "", "[" * 1500, "\x00", "dataset_options"]
)
@pytest.mark.parametrize("named", [[], ["--dataset", "digits"]])
def test_a_damaged_recipe_is_named(run, tmp_path, content, named, capsys):
    (tmp_path / "mvae").mkdir()
    copy = shutil.copy(run / "model.pt", tmp_path / "mvae")
    if content == "dataset_options":
        recipe = yaml.safe_load((run.parent / "config.yaml").read_text())
        content = yaml.safe_dump({**recipe, content: 3})
    (tmp_path / "config.yaml").write_text(content)
    assert main(["evaluate", str(copy), *named]) == 2
    assert f"{tmp_path}/config.yaml is damaged" in capsys.readouterr().err


def test_a_checkpoint_without_a_run_needs_a_data_set(run, tmp_path, capsys):
    (tmp_path / "mvae").mkdir()
    copy = shutil.copy(run / "model.pt", tmp_path / "mvae")
    assert main(["evaluate", str(copy)]) == 2
    assert f"--dataset is needed: there is no {tmp_path}/config.yaml" in capsys.readouterr().err
    assert main(["evaluate", str(copy), "--dataset", "digits"]) == 0


def test_a_data_set_may_be_fetched(run, monkeypatch):
    asked = []

    def load(name, data_dir, **options):
        asked.append((name, data_dir, options))
        raise FileNotFoundError("no network")

    monkeypatch.setattr("mvae_fast.experiments.commands.evaluate.load_dataset", load)
    argv = ["evaluate", str(run / "model.pt"), "--dataset", "mnist", "--data-dir", "data"]
    assert main([*argv, "--download"]) == main(argv) == 2
    assert asked == [("mnist", "data", {"download": fetch}) for fetch in (True, False)]


def test_other_files_and_damaged_ones_are_named(run, tmp_path, capsys):
    whole = (run / "best.ckpt").read_bytes()
    path = tmp_path / "other.ckpt"
    for content in (b"", b"hello world", whole[:10], whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert main(["evaluate", str(path)]) == 2
        assert "other.ckpt is not a checkpoint of mvae-fast" in capsys.readouterr().err
    for saved in ({"hyper_parameters": {}, "state_dict": {}}, {"state_dict": {}}):
        torch.save(saved, path)
        assert main(["evaluate", str(path)]) == 2
        assert "other.ckpt is not a checkpoint of mvae-fast" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["evaluate", "{run}/none.pt"], "none.pt: no such file"),
        (["evaluate", "{run}"], "is a folder; name a file of it: best.ckpt, last.ckpt, model.pt"),
        (["evaluate", "{run}/.."], "is a folder; name a file of it: mvae_cnf/model.pt"),
        (["sample", "{run}/csv"], "is a folder; name a file of it, model.pt or a .ckpt"),
        (["sample", "{run}/model.pt", "--seed", str(2**70)], "--seed must have 64 bits at most"),
        (["evaluate", "{run}/model.pt", "--seed", str(2**70)], "--seed must not be negative and"),
        (["evaluate", "{run}/model.pt", "--device", "gpu"], "device must be auto, cpu, cuda"),
        (
            ["evaluate", "{run}/model.pt", "--dataset", "photos_gray"],
            "must have the model's modalities ['image', 'label'], got ['image', 'gray']",
        ),
        (
            ["evaluate", "{run}/model.pt", "--dataset", "shapes6"],
            "got ['image', 'outline', 'label'",
        ),
        (["evaluate", "{run}/../config.yaml", "--dataset", "digits"], "is not a checkpoint"),
        (["evaluate", "{run}/model.pt", "--out", "{run}/model.pt"], "--out must be a folder, got"),
        (
            ["evaluate", "{run}/model.pt", "--out", "{run}/model.pt/a"],
            "model.pt/a: Not a directory",
        ),
    ],
)
def test_mistakes_are_named(run, argv, message, capsys):
    assert main([word.format(run=run) for word in argv]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        ({"image": {"type": "mlp", "shape": [4, 4]}}, "rows must have shape (4, 4), got (8, 8)"),
        ({"label": {"type": "label", "num_classes": 9}}, "needs data in 0..8, got values from 0"),
    ],
)
def test_data_that_do_not_fit_are_named_before_any_work(tmp_path, modality, message, capsys):
    modalities = {
        "image": {"type": "mlp", "shape": [8, 8]},
        "label": {"type": "label", "num_classes": 10},
    }
    model = build_mvae({"latent_dim": 4, "modalities": {**modalities, **modality}})
    save_mvae(model, tmp_path / "model.pt")
    argv = ["evaluate", str(tmp_path / "model.pt"), "--dataset", "digits"]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 2
    complaint = capsys.readouterr().err
    assert "--dataset digits does not fit the model: " in complaint and message in complaint
    assert not (tmp_path / "out").exists()


def test_a_model_with_an_adaptive_solver_is_evaluated_by_its_trace(tmp_path, capsys):
    settings = options([*DIGITS, "flows.mvae_cnf.solver=dopri8", "epochs=1", "iwae_samples=2"])
    assert main(["train", *settings, "--models", "mvae_cnf", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "MVAE-CNF: its solver's steps have no exact log-determinant" in printed
    assert main(["evaluate", str(tmp_path / "mvae_cnf" / "model.pt")]) == 0
    assert "have no exact log-determinant" in capsys.readouterr().out
