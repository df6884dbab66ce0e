"""A loss that is no number stops a run, which keeps what was good."""

import math

import pytest
import torch

from mvae_fast.cli import main
from mvae_fast.experiments.evaluation import log_det_notes
from mvae_fast.experiments.module import MVAEModule
from mvae_fast.vae import MVAE
from tests.experiments.reproduce.tiny import DIGITS, options


def train(out, *settings, resume=False):
    argv = ["train", *options([*DIGITS, *settings]), "--models", "mvae", "--out", str(out)]
    return main([*argv, "--resume"] if resume else argv)


def test_a_learning_rate_that_is_far_too_high_stops_the_run(tmp_path, capsys):
    for resume in (False, True):
        assert train(tmp_path, "lr=1e30", resume=resume) == 1
        told = capsys.readouterr()
        assert "MVAE: the loss is " in told.err and "in epoch 1, step 2 of 4" in told.err
        assert "no epoch was finished" in told.err and "a lower lr than 1e+30" in told.err
        assert "ELBO" not in told.out
        assert not list(tmp_path.glob("table.*")) and not list(tmp_path.rglob("model.pt"))
        assert not list(tmp_path.rglob("finished.json"))


@pytest.mark.parametrize("lr", ["inf", ".inf", "nan", "-1"])
def test_a_learning_rate_that_is_no_number_is_refused(tmp_path, lr):
    assert train(tmp_path / "out", f"lr={lr}") == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["label", "kl"])
def test_the_last_good_epoch_is_kept_and_the_term_is_named(tmp_path, monkeypatch, capsys, what):
    forward = MVAE.forward
    good = {}

    def broken(self, x, mask=None, **options):
        objective = forward(self, x, mask, **options)
        if (tmp_path / "mvae" / "last.ckpt").exists():
            good.setdefault("bytes", (tmp_path / "mvae" / "last.ckpt").read_bytes())
            terms = objective.terms
            (terms.kl if what == "kl" else terms.nll["label"]).detach()[0, 0, 0] = math.inf
            return objective._replace(loss=objective.loss * math.nan)
        return objective

    with monkeypatch.context() as patch:
        patch.setattr(MVAE, "forward", broken)
        assert train(tmp_path) == 1
    told = capsys.readouterr().err
    named = {"kl": "the KL term", "label": "the reconstruction of 'label'"}[what]
    assert f"the loss is nan in epoch 2, step 1 of 4, by {named};" in told
    assert (tmp_path / "mvae" / "last.ckpt").read_bytes() == good["bytes"]
    assert (tmp_path / "mvae" / "best.ckpt").exists() and not (tmp_path / "table.csv").exists()
    assert train(tmp_path, resume=True) == 0  # of a cause that has gone away
    assert (tmp_path / "table.csv").exists()


def test_a_validation_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, capsys):
    """As after a last step whose gradient was not finite: each loss was."""

    def spoil(self, *_):
        for parameter in self.model.modalities["image"].encoder.parameters():
            parameter.fill_(math.nan)

    monkeypatch.setattr(MVAEModule, "on_validation_start", torch.no_grad()(spoil))
    assert train(tmp_path) == 1
    told = capsys.readouterr().err
    assert "the validation after epoch 1, step 4, is not finite, by nll/joint/image" in told
    assert " nll/image" in told and " nll/label" not in told
    assert not list(tmp_path.rglob("*.ckpt")) and not (tmp_path / "table.csv").exists()


def test_the_note_on_the_log_determinant_tells_the_reason():
    numbers = {"elbo/joint": (3.0, 0.1), "log_det_error": (math.nan, math.nan)}
    assert "no exact log-determinant" in log_det_notes("a", [{"elbo": numbers}])[0]
    for value in (math.nan, math.inf):
        note = log_det_notes("a", [{"elbo": {**numbers, "elbo/joint": (value, value)}}])
        assert note == ["a: its ELBOs are not finite, and neither is the log-determinant's error"]
