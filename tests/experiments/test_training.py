import csv
import shutil

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from mvae_fast.data import MultimodalDataset, Splits, load_dataset
from mvae_fast.experiments import training
from mvae_fast.experiments.config import TrainConfig
from mvae_fast.experiments.module import EpochBar, MVAEModule
from mvae_fast.vae import load_mvae

TINY = {
    "image": {"type": "mlp", "shape": [8, 8], "hidden": 16},
    "label": {"type": "label", "num_classes": 10, "hidden": 16, "weight": 50.0},
}

FLOWS = {"mvae": None, "mvae_cnf": {"type": "cnf", "n_steps": 2, "trace": "exact"}}


def tiny(out, **changes):
    small = {"modalities": TINY, "flows": FLOWS, "latent_dim": 8, "epochs": 4, "batch_size": 50}
    return TrainConfig.load("digits", **{**small, "out": str(out), **changes})


def model(out, name="mvae_cnf"):
    return load_mvae(out / name / "model.pt")


@pytest.fixture(scope="module")
def splits():
    """The first 200 rows to train."""
    whole = load_dataset("digits")
    return Splits(whole.train.subset(range(200)), whole.validation, whole.test)


def last_weights(out):
    checkpoint = torch.load(out / "mvae_cnf" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"], checkpoint["optimizer_states"][0]["state"]


def assert_equal(one, two):
    assert one.keys() == two.keys()
    for key in one:
        if isinstance(one[key], dict):
            assert_equal(one[key], two[key])
        else:
            assert torch.equal(one[key], two[key]), key


class Kill(Callback):
    """Ends the process, as far as training can tell, in the middle of the third epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 2 and batch_idx == 2:
            raise SystemError("killed")


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path, splits, monkeypatch):
    whole = training.train_model("mvae_cnf", tiny(tmp_path / "whole"), splits)

    class KillingBar(EpochBar, Kill):
        pass

    monkeypatch.setattr(training, "EpochBar", KillingBar)
    with pytest.raises(SystemError, match="killed"):
        training.train_model("mvae_cnf", tiny(tmp_path / "killed"), splits)
    monkeypatch.undo()
    resumed = training.train_model("mvae_cnf", tiny(tmp_path / "killed", resume=True), splits)

    for one, two in zip(
        last_weights(tmp_path / "whole"), last_weights(tmp_path / "killed"), strict=True
    ):
        assert_equal(one, two)
    assert_equal(model(tmp_path / "whole").state_dict(), model(tmp_path / "killed").state_dict())
    assert whole.epoch == resumed.epoch

    again = training.train_model("mvae_cnf", tiny(tmp_path / "killed", resume=True), splits)
    assert again == resumed == training.finished("mvae_cnf", tiny(tmp_path / "killed"))


@pytest.mark.parametrize("copied", [False, True])
def test_a_moved_run_remembers_its_best_epoch(tmp_path, splits, monkeypatch, copied):
    def worse_and_worse(self, batch, batch_idx):
        self.log("val/elbo_sum", float(self.current_epoch))

    monkeypatch.setattr(MVAEModule, "validation_step", worse_and_worse)

    class KillingBar(EpochBar, Kill):
        pass

    with monkeypatch.context() as patch, pytest.raises(SystemError, match="killed"):
        patch.setattr(training, "EpochBar", KillingBar)
        training.train_model("mvae", tiny(tmp_path / "there"), splits)
    best = (tmp_path / "there" / "mvae" / "best.ckpt").read_bytes()
    if copied:
        shutil.copytree(tmp_path / "there", tmp_path / "here")
    else:
        (tmp_path / "there").rename(tmp_path / "here")
    trained = training.train_model("mvae", tiny(tmp_path / "here", resume=True), splits)
    assert trained.epoch == 1
    assert (tmp_path / "here" / "mvae" / "best.ckpt").read_bytes() == best
    if copied:
        assert (tmp_path / "there" / "mvae" / "best.ckpt").read_bytes() == best


def test_the_seed_decides_everything(tmp_path, splits):
    torch.manual_seed(1)
    training.train_model("mvae_cnf", tiny(tmp_path / "one", epochs=2), splits)
    torch.manual_seed(2)
    training.train_model("mvae_cnf", tiny(tmp_path / "two", epochs=2), splits)
    one = model(tmp_path / "one").state_dict()
    assert_equal(one, model(tmp_path / "two").state_dict())
    training.train_model("mvae_cnf", tiny(tmp_path / "other", epochs=2, seed=1), splits)
    key = "modalities.image.encoder.net.1.0.weight"
    assert not torch.equal(one[key], model(tmp_path / "other").state_dict()[key])


def test_both_models_start_with_the_same_networks():
    config = tiny("unused")
    mvae, cnf = (
        MVAEModule(config.model(name), lr=1e-3, annealing_epochs=1, seed=0).model
        for name in ("mvae", "mvae_cnf")
    )
    assert_equal(mvae.modalities.state_dict(), cnf.modalities.state_dict())


def test_training_learns_and_the_best_epoch_is_kept(tmp_path, splits):
    trained = training.train_model("mvae", tiny(tmp_path, epochs=6, lr=1e-2), splits)
    x, mask = splits.validation[:]
    untrained = MVAEModule(tiny(tmp_path).model("mvae"), lr=1e-2, annealing_epochs=1, seed=0).model
    generator = torch.Generator().manual_seed(0)
    kept = model(tmp_path, "mvae")
    assert kept.elbo(x, generator=generator).mean() > untrained.elbo(x).mean() + 5
    assert 1 <= trained.epoch <= 6
    lines = (tmp_path / "mvae" / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    assert "val/elbo_sum" in lines[0]
    assert list((tmp_path / "mvae" / "tensorboard").rglob("events.*"))


def test_beta_rises_with_every_mini_batch(tmp_path, splits, monkeypatch):
    seen = []
    forward = MVAEModule.training_step

    def record(self, batch, batch_idx):
        model = self.model
        monkeypatch.setattr(
            model,
            "forward",
            lambda x, m, *, beta: seen.append(beta) or type(model).forward(model, x, m, beta=beta),
        )
        return forward(self, batch, batch_idx)

    monkeypatch.setattr(MVAEModule, "training_step", record)
    training.train_model("mvae", tiny(tmp_path, epochs=3, annealing_epochs=2), splits)
    assert seen == [(i + 1) / 8 for i in range(8)] + [1.0] * 4


def test_rows_may_lack_modalities(tmp_path, splits):
    train = splits.train
    has_label = torch.arange(len(train)) % 4 == 0
    masked = MultimodalDataset(train.arrays, {"label": has_label})
    training.train_model("mvae", tiny(tmp_path, epochs=1), splits._replace(train=masked))
    assert all(p.isfinite().all() for p in model(tmp_path, "mvae").parameters())


def test_the_weights_of_the_best_epoch_are_kept(tmp_path, splits):
    trained = training.train_model("mvae", tiny(tmp_path, epochs=3, lr=1e-2), splits)
    lines = (tmp_path / "mvae" / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    sums = [float(row["val/elbo_sum"]) for row in rows if row["val/elbo_sum"]]
    assert trained.epoch == 1 + sums.index(min(sums))
    assert trained.seconds > 0


def test_other_optimisers_and_annealings(tmp_path, splits):
    config = tiny(
        tmp_path, epochs=2, annealing_epochs=2, annealing_schedule="jump", optimizer="adamax"
    )
    training.train_model("mvae", config, splits)
    saved = torch.load(tmp_path / "mvae" / "last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["annealing_schedule"] == "jump"
    assert set(saved["optimizer_states"][0]["state"][0]) == {"step", "exp_avg", "exp_inf"}


@pytest.mark.parametrize("flow", ["planar", "sylvester", "iaf"])
def test_discrete_flows_train(tmp_path, splits, flow):
    flows = {"mine": TrainConfig.load("digits").flows[f"mvae_{flow}"]}
    config = tiny(tmp_path, epochs=1, batch_size=200, models=["mine"], flows=flows)
    training.train_model("mine", config, splits)
    x, _ = splits.test[:5]
    assert model(tmp_path, "mine").elbo(x).isfinite().all()
