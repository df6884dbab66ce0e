import csv

import pytest
import torch

from mvae_fast.cli import main
from mvae_fast.experiments.checkpoints import load_checkpoint
from mvae_fast.vae import load_mvae
from tests.experiments.reproduce.tiny import DIGITS, options


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert main(["train", *options(DIGITS), "--models", "mvae_cnf", "--out", str(out)]) == 0
    return out / "mvae_cnf"


def test_both_kinds_of_checkpoint_hold_the_model(run):
    saved = load_mvae(run / "model.pt").state_dict()
    for name in ("model.pt", "best.ckpt"):
        model = load_checkpoint(run / name)
        assert not model.training
        assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())


def test_evaluate_prints_the_numbers_of_the_run(run, tmp_path, capsys):
    assert main(["evaluate", str(run / "model.pt"), "--out", str(tmp_path)]) == 0
    assert "360 test rows of digits" in capsys.readouterr().out
    with (tmp_path / "evaluation.csv").open() as file:
        mine = [row["mean"] for row in csv.DictReader(file)]
    with (run.parent / "table.csv").open() as file:
        assert mine == [row["mean"] for row in csv.DictReader(file)]


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
        (
            ["evaluate", "{run}/model.pt", "--dataset", "photos_gray"],
            "lacks the model's",
        ),
        (["evaluate", "{run}/../config.yaml", "--dataset", "digits"], "is not a checkpoint"),
    ],
)
def test_mistakes_are_named(run, argv, message, capsys):
    assert main([word.format(run=run) for word in argv]) == 2
    assert message in capsys.readouterr().err


def test_a_model_with_an_adaptive_solver_is_evaluated_by_its_trace(tmp_path, capsys):
    settings = options([*DIGITS, "flows.mvae_cnf.solver=dopri5", "epochs=1", "iwae_samples=2"])
    assert main(["train", *settings, "--models", "mvae_cnf", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "MVAE-CNF: its solver's steps have no exact log-determinant" in printed
    assert main(["evaluate", str(tmp_path / "mvae_cnf" / "model.pt")]) == 0
    assert "have no exact log-determinant" in capsys.readouterr().out
