import json

import pytest
import torch

from mvae_fast.experiments import training
from mvae_fast.experiments.module import EpochBar
from mvae_fast.experiments.reproduce.laboratory import Laboratory
from mvae_fast.experiments.usage import UsageError
from tests.experiments.reproduce.tiny import DIGITS


def laboratory(out, **fields):
    return Laboratory(out, **{"seeds": [0, 1], "settings": DIGITS, **fields})


def weights(run):
    return run.model().state_dict()


def test_runs_are_trained_once_and_shared(tmp_path, monkeypatch):
    first = laboratory(tmp_path)
    runs = first.runs("digits", "mvae")
    first.train(runs)
    before = [run.trained for run in runs]
    monkeypatch.setattr(training, "MVAEModule", None)  # training again would fail
    again = laboratory(tmp_path)
    again.train(again.runs("digits", "mvae"))
    assert [run.trained for run in again.runs("digits", "mvae")] == before
    assert again.metrics(runs)[0] != again.metrics(runs)[1]


def test_processes_side_by_side_have_the_same_result(tmp_path):
    one, two = laboratory(tmp_path / "one"), laboratory(tmp_path / "two", jobs=2)
    for lab in (one, two):
        lab.train(lab.runs("digits", "mvae"))
    for a, b in zip(one.runs("digits", "mvae"), two.runs("digits", "mvae"), strict=True):
        for key, value in weights(a).items():
            # float32 after eight steps: another process may choose other kernels, other sums.
            torch.testing.assert_close(value, weights(b)[key], rtol=1e-5, atol=1e-6)


def test_a_killed_run_is_gone_on_with(tmp_path, monkeypatch):
    whole = laboratory(tmp_path / "whole")
    whole.train(whole.runs("digits", "mvae_cnf"))

    class Kill(EpochBar):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.current_epoch == 1:
                raise SystemError("killed")

    killed = laboratory(tmp_path / "killed")
    with monkeypatch.context() as patch, pytest.raises(SystemError, match="killed"):
        patch.setattr(training, "EpochBar", Kill)
        killed.train(killed.runs("digits", "mvae_cnf"))
    assert not (killed.runs("digits", "mvae_cnf")[0].folder / "finished.json").exists()
    killed.train(killed.runs("digits", "mvae_cnf"))
    for a, b in zip(
        whole.runs("digits", "mvae_cnf"), killed.runs("digits", "mvae_cnf"), strict=True
    ):
        assert whole.metrics([a]) == killed.metrics([b])
        assert all(torch.equal(v, weights(b)[k]) for k, v in weights(a).items())


@pytest.mark.parametrize("other", [{"rows": 1}, {"samples": {"paper": 1}}, {"seed": 5}])
def test_an_evaluation_of_something_else_is_done_anew(tmp_path, other):
    lab = laboratory(tmp_path, seeds=[0])
    runs = lab.runs("digits", "mvae")
    lab.train(runs)
    path = runs[0].folder / "evaluation.json"
    saved = json.loads(path.read_text())
    about = saved["about"]
    saved["metrics"]["elbo"]["elbo/joint"] = [0.0, 0.0]
    path.write_text(json.dumps(saved))
    assert lab.metrics(runs)[0]["elbo"]["elbo/joint"][0] == 0
    path.write_text(json.dumps({**saved, "about": {**about, **other}}))
    assert lab.metrics(runs)[0]["elbo"]["elbo/joint"][0] > 10
    assert json.loads(path.read_text())["about"] == about


def test_an_evaluation_has_the_samples_that_are_asked_for(tmp_path):
    lab = laboratory(tmp_path, seeds=[0])
    lab.train(lab.runs("digits", "mvae"))
    other = laboratory(tmp_path, seeds=[0], settings=[*DIGITS, "elbo_samples=2"])
    runs = other.runs("digits", "mvae")
    before, after = lab.metrics(lab.runs("digits", "mvae"))[0], other.metrics(runs)[0]
    assert before["elbo"]["elbo/joint"][0] != after["elbo"]["elbo/joint"][0]
    assert before["iwae"]["iwae/joint"][0] == after["iwae"]["iwae/joint"][0]
    saved = json.loads((runs[0].folder / "evaluation.json").read_text())
    assert saved["about"]["samples"] == {"paper": 1, "elbo": 2, "iwae": 64}


def test_other_settings_are_refused_before_any_work(tmp_path):
    lab = laboratory(tmp_path, seeds=[0])
    lab.train(lab.runs("digits", "mvae"))
    other = laboratory(tmp_path, seeds=[0], settings=[*DIGITS, "lr=0.5"])
    with pytest.raises(UsageError, match="lr: 0.001 there, 0.5 here"):
        other.train(other.runs("digits", "mvae"))


def test_another_flow_is_refused_although_the_folder_is_shared(tmp_path):
    lab = laboratory(tmp_path, seeds=[0])
    lab.train([run for model in ("mvae", "mvae_cnf") for run in lab.runs("digits", model)])
    other = laboratory(tmp_path, seeds=[0], settings=[*DIGITS, "flows.mvae_cnf.n_steps=1"])
    with pytest.raises(UsageError, match="'n_steps': 2.* there, .*'n_steps': 1.* here"):
        other.train([run for m in ("mvae", "mvae_cnf") for run in other.runs("digits", m)])


def test_an_experiments_own_changes_win(tmp_path):
    lab = laboratory(tmp_path, settings=["flows.mvae_cnf.n_steps=5", "epochs=3"])
    config = lab.runs("digits", "mvae_cnf", "one", ["flows.mvae_cnf.n_steps=1"])[0].config
    assert (config.flows["mvae_cnf"]["n_steps"], config.epochs) == (1, 3)


def test_a_file_of_settings_may_say_where_data_are(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data_dir: somewhere\ndownload: true")
    config = laboratory(tmp_path, files=[path]).runs("digits", "mvae")[0].config
    assert (config.data_dir, config.download) == ("somewhere", True)
    path.write_text("device: cpu")
    assert laboratory(tmp_path, files=[path]).runs("digits", "mvae")[0].config.device == "cpu"
    lab = laboratory(tmp_path, files=[path], data_dir="elsewhere", device="cuda:3")
    assert lab.runs("digits", "mvae")[0].config.device == "cuda:3"
    assert lab.runs("digits", "mvae")[0].config.data_dir == "elsewhere"


def test_unsuitable_data_sets_are_refused_before_any_work(tmp_path):
    lab = laboratory(tmp_path, settings=[])
    for dataset, needs in [
        ("photos_gray", "an image and a label"),
        ("digits", "a pair of images"),
        ("mirflickr", "an image"),
    ]:
        with pytest.raises(UsageError, match=f"the data set must have {needs}; {dataset} has"):
            lab.train(lab.runs(dataset, "mvae"), needs)
    lab = laboratory(tmp_path, settings=["flows.mvae_cnf.n_stepz=1"])
    with pytest.raises(UsageError, match="n_stepz"):
        lab.train([*lab.runs("digits", "mvae"), *lab.runs("digits", "mvae_cnf")])
    assert not list((tmp_path / "runs").rglob("last.ckpt"))


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="jobs must be positive, got 0"):
        laboratory(tmp_path, jobs=0)
    with pytest.raises(ValueError, match="seeds must be at least one, each once"):
        laboratory(tmp_path, seeds=[1, 1])
    for setting in ("resume=false", "overwrite=true"):
        with pytest.raises(ValueError, match=f"--set {setting}: runs are always resumed"):
            laboratory(tmp_path, settings=[setting])
    for setting, option in [("seed=3", "seeds"), ("models=[mvae]", "models"), ("out=a", "out")]:
        with pytest.raises(ValueError, match=f"{setting.split('=')[0]} has .* own, --{option}"):
            laboratory(tmp_path, settings=[setting])
    with pytest.raises(UsageError, match="no configuration 'cifar'"):
        laboratory(tmp_path).runs("cifar", "mvae")
    with pytest.raises(UsageError, match="models must be among"):
        laboratory(tmp_path).runs("digits", "vae")
    lab = laboratory(tmp_path, data_dir=str(tmp_path / "nothing"), settings=["epochs=1"])
    with pytest.raises(UsageError, match="train-images-idx3-ubyte"):
        lab.train(lab.runs("mnist", "mvae"))
    assert not (tmp_path / "runs").exists()
