import pytest
import torch
from torch import nn

from mvae_fast.vae import (
    BernoulliLikelihood,
    MLPEncoder,
    NormalLikelihood,
    build_mvae,
    label_modality,
    load_mvae,
    save_mvae,
)

CONFIG = {
    "latent_dim": 4,
    "modalities": {
        "image": {"type": "mlp", "shape": [6], "hidden": 5},
        "sound": {"type": "mlp", "shape": [6], "hidden": 5, "likelihood": "normal"},
        "flags": {"type": "attributes", "n": 3, "hidden": 5},
    },
    "flow": {"type": "cnf", "hidden": [7], "n_steps": 2},
}


def another_module(model):
    model.modalities["image"].encoder = nn.Identity()


def another_size(model):
    model.modalities["image"].encoder = MLPEncoder((6,), 4, [5, 6])


def another_activation(model):
    model.modalities["image"].decoder.net[0][1] = nn.Tanh()


def a_layer_less(model):
    del model.modalities["image"].encoder.net[1][2:]


def a_modality_more(model):
    model.modalities["label"] = label_modality(3, 4, hidden=5)


def another_flow(model):
    model.flow = None


def a_weight_of_another_shape(model):
    model.modalities["image"].decoder.net[0][0].bias = nn.Parameter(torch.zeros(1))


def tied_weights(model):
    model.modalities["sound"].encoder = model.modalities["image"].encoder


def one_tied_weight(model):
    image, sound = model.modalities["image"], model.modalities["sound"]
    sound.encoder.net[1][0].weight = image.encoder.net[1][0].weight


def a_weight_that_is_no_parameter(model):
    layer = model.modalities["image"].decoder.net[0][0]
    bias = layer.bias.detach()
    del layer.bias
    layer.register_buffer("bias", bias)


def a_parametrization(model):
    nn.utils.parametrizations.weight_norm(model.modalities["image"].decoder.net[0][0])


def spectral_norm(model):
    nn.utils.spectral_norm(model.modalities["image"].decoder.net[0][0])


def a_hook(model):
    model.modalities["image"].decoder.register_forward_hook(lambda part, x, y: 2 * y)


def a_pre_hook(model):
    model.flow.register_forward_pre_hook(lambda part, x: x)


def a_backward_hook(model):
    model.modalities["image"].encoder.register_full_backward_hook(lambda part, x, y: None)


def a_function(model):
    model.modalities["image"].encoder.forward = lambda x: (x[:, :4], x[:, :4])


def another_likelihood(model):
    model.modalities["sound"].likelihood = NormalLikelihood(0.5)


def a_likelihood_of_another_kind(model):
    model.modalities["sound"].likelihood = BernoulliLikelihood()


def synchronized_batch_norm(model):
    model.modalities["flags"] = nn.SyncBatchNorm.convert_sync_batchnorm(model.modalities["flags"])


def a_compiled_part(model):
    model.modalities["image"].decoder = torch.compile(model.modalities["image"].decoder)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (another_module, "modalities.image.encoder is Identity, not MLPEncoder"),
        (another_size, "modalities.image.encoder.net.2.linear.weight"),
        (another_activation, "modalities.image.decoder.net.0.1 is Tanh, not SiLU"),
        (a_layer_less, "modalities.image.encoder.net.1.2 is missing, not Linear"),
        (a_modality_more, "modalities.label is Modality, not there"),
        (another_flow, "flow is missing, not FastCNF"),
        (a_weight_of_another_shape, r"image.decoder.net.0.0.bias is \(1,\), not \(5,\)"),
        (tied_weights, "modalities.sound.encoder is missing"),
        (one_tied_weight, "modalities.sound.encoder.net.1.0.weight is missing"),
        (a_weight_that_is_no_parameter, "modalities.image.decoder.net.0.0.bias is missing"),
        (a_parametrization, "modalities.image.decoder.net.0.0 is ParametrizedLinear"),
        (spectral_norm, "modalities.image.decoder.net.0.0.weight"),
        (a_hook, "modalities.image.decoder._forward_hooks"),
        (a_pre_hook, "flow._forward_pre_hooks"),
        (a_backward_hook, "modalities.image.encoder._backward_hooks"),
        (a_function, "modalities.image.encoder.forward was replaced"),
        (another_likelihood, "modalities.sound.likelihood was replaced"),
        (a_likelihood_of_another_kind, "modalities.sound.likelihood was replaced"),
        (synchronized_batch_norm, "is SyncBatchNorm, not BatchNorm1d"),
        (a_compiled_part, "modalities.image.decoder is OptimizedModule, not MLPDecoder"),
    ],
)
@pytest.mark.slow
def test_a_changed_model_is_refused_when_it_is_saved(tmp_path, change, place):
    path = tmp_path / "model.pt"
    save_mvae(build_mvae(CONFIG), path)
    before = path.read_bytes()
    model = build_mvae(CONFIG)
    change(model)
    with pytest.raises(ValueError, match=f"can be saved whole, but .*{place}.*state_dict"):
        save_mvae(model, path)
    assert path.read_bytes() == before


def test_a_hook_that_is_gone_is_forgotten(tmp_path):
    model = build_mvae(CONFIG)
    model.flow.register_forward_hook(lambda part, x, y: None).remove()
    save_mvae(model, tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda m: setattr(m.flow, "n_steps", 7), r"flow.n_steps=7 \(not 2\)"),
        (lambda m: setattr(m.flow, "test_solver", "rk4"), r"flow.test_solver='rk4' \(not None\)"),
        (lambda m: setattr(m.modalities["image"], "weight", 3.0), r"image.weight=3.0 \(not 1.0\)"),
        (lambda m: setattr(m.flow, "solver", "rk4"), r"flow.solver='rk4' \(not 'euler'\)"),
        (lambda m: setattr(m, "n_random_subsets", 1), "n_random_subsets=1"),
        (lambda m: setattr(m, "forward", m.forward), "forward=.*MVAE.forward"),
        (lambda m: setattr(m, "note", "mine"), r"note='mine' \(not None\)"),
    ],
)
def test_settings_that_are_lost_are_named(tmp_path, change, phrase):
    model = build_mvae(CONFIG)
    change(model)
    with pytest.warns(UserWarning, match=f"are not saved: .*{phrase}"):
        save_mvae(model, tmp_path / "model.pt")
    load_mvae(tmp_path / "model.pt")
