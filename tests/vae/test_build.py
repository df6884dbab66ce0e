import json

import pytest
import torch

from mvae_fast import FastCNF
from mvae_fast.vae import build_mvae, cnf_posterior, load_mvae, save_mvae
from tests.vae.models import bimodal

CONFIG = {
    "latent_dim": 6,
    "modalities": {
        "image": {"type": "mlp", "shape": [3, 4], "hidden": 8},
        "label": {"type": "label", "num_classes": 4, "hidden": 8, "weight": 50.0},
        "sound": {"type": "mlp", "shape": [6], "hidden": 8, "likelihood": "normal"},
    },
    "flow": {"type": "cnf", "hidden": [9], "n_steps": 3},
    "n_random_subsets": 1,
}


def test_a_description_becomes_the_model_it_describes():
    model = build_mvae(json.loads(json.dumps(CONFIG)))
    assert list(model.modalities) == ["image", "label", "sound"]
    assert [m.weight for m in model.modalities.values()] == [1.0, 50.0, 1.0]
    assert isinstance(model.flow, FastCNF)
    assert model.n_random_subsets == 1
    assert model.config == CONFIG


def test_the_papers_posterior():
    flow = cnf_posterior(128)
    # Two squash layers 128-256-128: weight, bias, and time weight and bias of the gate.
    assert sum(p.numel() for p in flow.parameters()) == 2 * 128 * 256 + 3 * (256 + 128)
    assert flow.solver == "euler"
    assert flow.trace == "exact"


def test_saved_models_load_safely_and_are_equal(tmp_path):
    torch.manual_seed(0)
    model = build_mvae(CONFIG)
    save_mvae(model, tmp_path / "model.pt")
    torch.manual_seed(1)
    loaded = load_mvae(tmp_path / "model.pt")
    assert not loaded.training
    assert loaded.config == CONFIG
    x = {"image": torch.rand(3, 3, 4), "label": torch.arange(3), "sound": torch.randn(3, 6)}
    one, two = (
        m.eval().elbo(x, generator=torch.Generator().manual_seed(2)) for m in (model, loaded)
    )
    assert torch.equal(one, two)


def test_what_is_set_later_is_not_saved(tmp_path):
    model = build_mvae(CONFIG)
    model.flow.n_steps = 7
    model.validate_args = False
    save_mvae(model, tmp_path / "model.pt")
    loaded = load_mvae(tmp_path / "model.pt")
    assert loaded.flow.n_steps == 3 and loaded.validate_args


def test_a_hand_made_model_has_no_description_to_save(tmp_path):
    with pytest.raises(ValueError, match="only a model made by build_mvae"):
        save_mvae(bimodal(), tmp_path / "model.pt")


def test_other_files_and_damaged_ones_are_named(tmp_path):
    save_mvae(build_mvae(CONFIG), tmp_path / "model.pt")
    whole = (tmp_path / "model.pt").read_bytes()
    for content in (b"", b"hello world", b"epochs: 3\n", whole[:10], whole[: len(whole) // 2]):
        (tmp_path / "other.pt").write_bytes(content)
        with pytest.raises(ValueError, match="other.pt is not a checkpoint of mvae-fast"):
            load_mvae(tmp_path / "other.pt")
    weights = build_mvae(CONFIG).state_dict()
    for saved, message in (
        (torch.zeros(1), r"it lacks \['config', 'state_dict'\]"),
        ({"state_dict": weights}, r"it lacks \['config', 'state_dict'\]"),
        ({"config": 3, "state_dict": weights}, "config must be a mapping, got 3"),
        ({"config": {**CONFIG, "modalities": 3}, "state_dict": weights}, "items"),
        ({"config": {"lr": 3}, "state_dict": weights}, r"unknown keys \['lr'\]"),
        ({"config": {**CONFIG, "latent_dim": 5}, "state_dict": weights}, "size mismatch"),
    ):
        torch.save(saved, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=f"(?s)other.pt is not a .* mvae-fast: .*{message}"):
            load_mvae(tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match="none.pt"):
        load_mvae(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": 3}, r"unknown keys \['latents'\]"),
        ({"flow": {"type": "planer"}}, r"flow: type must be one of .*'planar'.*, got 'planer'"),
        ({"flow": {"type": "cnf", "n_step": 3}}, "flow: .*n_step"),
        ({"modalities": {"a": {"shape": [3]}}}, "modality 'a': type must be one of"),
        ({"modalities": {"a": {"type": "mlp"}}}, "modality 'a': .*shape"),
    ],
)
def test_mistakes_in_a_description_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        build_mvae({**CONFIG, **change})


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"config lacks \['modalities'\]"):
        build_mvae({"latent_dim": 3})
