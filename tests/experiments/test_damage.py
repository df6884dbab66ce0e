"""Files of a run that are damaged, foreign or lost: named, and made again where that can be."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from mvae_fast.cli import main
from mvae_fast.data import load_dataset
from mvae_fast.experiments.config import TrainConfig, configured
from mvae_fast.experiments.evaluation import evaluation
from mvae_fast.experiments.folders.resuming import resume_point
from mvae_fast.experiments.reproduce.classifier import trained_classifier
from mvae_fast.experiments.training import finished
from mvae_fast.experiments.usage import say
from mvae_fast.vae import load_mvae
from tests.experiments.reproduce.tiny import DIGITS, options

SETTINGS = options([*DIGITS, "epochs=2", "elbo_samples=1", "iwae_samples=1"])


class Malice:
    """Runs code where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert main(["train", *SETTINGS, "--models", "mvae", "--out", str(out)]) == 0
    return out


@pytest.fixture
def out(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "out"))


def resume(out):
    return main(["train", *SETTINGS, "--models", "mvae", "--out", str(out), "--resume"])


def damaged(path, how):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "foreign":
        torch.save({"some": "thing"}, path)
    elif how == "malicious":
        path.write_bytes(pickle.dumps(Malice(path.with_name("ran"))))
    else:
        path.write_text(how)


def assert_as_before(out, whole, tmp_path):
    assert (out / "table.csv").read_text() == (whole / "table.csv").read_text()
    assert not list(tmp_path.rglob("ran")) and not list(out.rglob("*.part"))
    one, two = (torch.load(p / "mvae" / "model.pt")["state_dict"] for p in (out, whole))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.parametrize(
    ("lost", "how", "said"),
    [
        (["last.ckpt"], "cut", "going on from {out}/mvae/previous.ckpt, an epoch earlier"),
        (["last.ckpt", "previous.ckpt"], "malicious", "mvae is trained again from its start"),
        (["best.ckpt"], "empty", "mvae is trained again from its start"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_made_again(
    out, whole, tmp_path, lost, how, said, capsys
):
    (out / "mvae" / "finished.json").unlink()
    for name in lost:
        damaged(out / "mvae" / name, how)
    assert resume(out) == 0
    told = capsys.readouterr().err
    assert said.format(out=out) in told
    assert all(f"{out}/mvae/{name} is not a checkpoint of mvae-fast" in told for name in lost)
    assert_as_before(out, whole, tmp_path)


@pytest.mark.parametrize("how", ["cut", "empty", "foreign", "malicious", "words"])
def test_no_damaged_checkpoint_is_gone_on_with(out, how, capsys):
    folder = out / "mvae"
    settings = torch.load(folder / "last.ckpt")["hyper_parameters"]
    assert resume_point(folder, settings) == folder / "last.ckpt"
    kept = torch.load(folder / "previous.ckpt")["state_dict"]
    damaged(folder / "last.ckpt", how)
    assert resume_point(folder, settings) == folder / "last.ckpt"
    assert torch.load(folder / "last.ckpt")["state_dict"].keys() == kept.keys()
    damaged(folder / "last.ckpt", how)
    assert resume_point(folder, settings) is None  # the previous one is last.ckpt since
    damaged(folder / "best.ckpt", how)
    assert resume_point(folder, settings) is None
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("lost", [["last.ckpt"], ["best.ckpt"], ["last.ckpt", "previous.ckpt"]])
def test_a_lost_checkpoint_is_made_again(out, whole, tmp_path, lost):
    (out / "mvae" / "last.ckpt.123.part").write_text("what a kill leaves")
    for name in ("finished.json", *lost):
        (out / "mvae" / name).unlink()
    assert resume(out) == 0
    assert_as_before(out, whole, tmp_path)


GARBAGE = ["", "{", "3", "[]", "null", '{"epoch": 1}', "\xff" * 9, "[" * 1500]
WRONG = [
    '{"epoch": 1, "seconds": 1.0, "more": 1}',
    '{"epoch": "1", "seconds": 1.0}',
    '{"epoch": true, "seconds": 1.0}',
    '{"epoch": 0, "seconds": 1.0}',
    '{"epoch": 1, "seconds": NaN}',
    '{"epoch": 1, "seconds": null}',
]


@pytest.mark.parametrize("content", [*GARBAGE, *WRONG])
def test_a_damaged_note_of_the_end_is_no_end(out, content, capsys):
    settings = [*DIGITS, "epochs=2"]
    config = TrainConfig(**{**configured("digits", settings=settings), "out": str(out)})
    assert finished("mvae", config, say) is not None
    (out / "mvae" / "finished.json").write_text(content)
    assert finished("mvae", config) is None
    assert capsys.readouterr().err == ""
    assert finished("mvae", config, say) is None
    assert f"{out}/mvae/finished.json is damaged" in capsys.readouterr().err


def test_a_damaged_note_of_the_end_is_made_again(out, whole, tmp_path, capsys):
    (out / "mvae" / "finished.json").write_text(WRONG[0])
    assert resume(out) == 0
    assert f"{out}/mvae/finished.json is damaged" in capsys.readouterr().err
    assert_as_before(out, whole, tmp_path)
    assert set(json.loads((out / "mvae" / "finished.json").read_text())) == {"epoch", "seconds"}


NUMBERS = '{{"about": {}, "metrics": {}}}'
EACH = '{{"paper": {0}, "elbo": {0}, "iwae": {0}}}'


@pytest.mark.parametrize(
    "content",
    [
        *GARBAGE,
        NUMBERS.format(3, 3),
        NUMBERS.format("{}", EACH.format("3")),
        NUMBERS.format("{}", EACH.format('{"a": 1}')),
        NUMBERS.format("{}", EACH.format('{"a": [1, "x"]}')),
        NUMBERS.format("{}", '{"elbo": {}}'),
        '{"about": {}, "metrics": {}, "more": 1}',
    ],
)
def test_damaged_numbers_are_computed_again(whole, tmp_path, content, capsys):
    model, rows = load_mvae(whole / "mvae" / "model.pt"), load_dataset("digits").test.subset([0, 1])
    cache = tmp_path / "evaluation.json"
    samples = {"paper": 1, "elbo": 1, "iwae": 1}
    wanted = evaluation(model, rows, 0, cache, samples)
    cache.write_text(content)
    assert evaluation(model, rows, 0, cache, samples) == wanted
    assert f"{cache} is damaged" in capsys.readouterr().err
    assert json.loads(cache.read_text())["metrics"]["elbo"]["elbo/joint"][0] > 0


@pytest.mark.parametrize("how", ["cut", "foreign", "lost"])
def test_a_damaged_model_is_made_again(out, whole, tmp_path, how, capsys):
    path = out / "mvae" / "model.pt"
    if how == "lost":
        path.unlink()
    else:
        damaged(path, how)
    assert resume(out) == 0
    assert f"{path} is damaged" in capsys.readouterr().err
    assert_as_before(out, whole, tmp_path)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_checkpoint_of_another_training_is_refused_and_kept(out, name, capsys):
    path = out / "mvae" / name
    (out / "mvae" / "finished.json").unlink()
    saved = torch.load(path)
    saved["hyper_parameters"]["seed"] = 5
    torch.save(saved, path)
    before = path.read_bytes()
    assert resume(out) == 1
    assert f"{path} is of a training with another seed" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_checkpoint_with_a_strange_inside_is_refused_and_kept(out, capsys):
    path = out / "mvae" / "last.ckpt"
    (out / "mvae" / "finished.json").unlink()
    saved = torch.load(path)
    saved["optimizer_states"] = [3]
    torch.save(saved, path)
    assert resume(out) == 1
    assert f"{path} cannot be gone on with" in capsys.readouterr().err
    assert torch.load(path)["optimizer_states"] == [3]


def test_a_path_in_a_checkpoint_removes_nothing(out, tmp_path):
    """Lightning removes what a checkpoint says was the best one before."""
    (tmp_path / "thesis").mkdir()
    path = out / "mvae" / "last.ckpt"
    (out / "mvae" / "finished.json").unlink()
    saved = torch.load(path)
    for key in ("epoch", "global_step"):
        saved[key] = saved[key] * 0
    where = str(out / "mvae" / ".." / ".." / "thesis")
    for state in saved["callbacks"].values():
        if "best_model_path" in state:
            state.update(
                dirpath=str((out / "mvae").resolve()),
                best_model_path=where,
                kth_best_model_path=where,
                best_model_score=torch.tensor(1e9),
                best_k_models={where: torch.tensor(1e9)},
            )
    torch.save(saved, path)
    resume(out)
    assert (tmp_path / "thesis").exists()


def test_the_classifier_is_trained_again(tmp_path, capsys):
    train = load_dataset("digits").train.subset(range(100))
    path = tmp_path / "digits.pt"
    wanted = trained_classifier(train, 10, path, {}, epochs=1).state_dict()
    saved = torch.load(path)
    wrong = {**saved["state_dict"], "net.7.bias": torch.zeros(3)}
    for how in ("cut", "malicious", wrong):
        if isinstance(how, str):
            damaged(path, how)
        else:
            torch.save({**saved, "state_dict": how}, path)
        again = trained_classifier(train, 10, path, {}, epochs=1).state_dict()
        assert f"{path} cannot be used" in capsys.readouterr().err
        assert all(torch.equal(value, again[key]) for key, value in wanted.items())
    assert not (tmp_path / "ran").exists()
