import pytest
import torch
from torch import nn
from torch.distributions import Normal
from torch.nn import functional as F

from mvae_fast.vae import (
    MVAE,
    BernoulliLikelihood,
    ConvDecoder,
    ConvEncoder,
    EmbeddingEncoder,
    MLPDecoder,
    MLPEncoder,
    NormalLikelihood,
    attribute_modality,
    attributes_modality,
    build_mvae,
    conv_modality,
    label_modality,
    mlp_modality,
)


def linears(module):
    return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]


def test_an_attribute_is_a_bernoulli_of_the_difference_of_its_logits():
    modality = attribute_modality(4, hidden=6, weight=10.0)
    assert modality.weight == 10.0 and modality.shape == ()
    assert linears(modality.decoder) == [(4, 6), (6, 6), (6, 6), (6, 2)]
    z, x = torch.randn(5, 4), torch.tensor([0, 1, 1, 0, 1])
    no, yes = modality.decoder(z).unbind(1)
    wanted = -F.binary_cross_entropy_with_logits(yes - no, x.float(), reduction="none")
    torch.testing.assert_close(modality.decode(z).log_prob(x), wanted)
    modality.check(modality.decode(z).sample())  # what it generates can be a condition again


def test_attributes_are_one_modality_with_the_mvaes_nets():
    modality = attributes_modality(18, 100)
    assert linears(modality.encoder) == [(18, 512), (512, 512), (512, 200)]
    assert linears(modality.decoder) == [(100, 512), (512, 512), (512, 512), (512, 18)]
    for part, count in ((modality.encoder, 2), (modality.decoder, 3)):
        assert sum(isinstance(m, nn.BatchNorm1d) for m in part.modules()) == count


def test_conv_nets_with_and_without_the_hidden_layer():
    assert linears(conv_modality((3, 32, 32), 10)) == [(256, 20), (10, 256)]
    modality = conv_modality((3, 32, 32), 10, hidden=7, channels=2, likelihood="normal")
    assert linears(modality) == [(16, 7), (7, 20), (10, 7), (7, 16)]
    assert "NormalLikelihood" in repr(modality)


@pytest.mark.parametrize("build", [mlp_modality, conv_modality])
def test_unknown_likelihoods_are_named(build):
    with pytest.raises(ValueError, match="likelihood: got 'poison', expected one of 'bernoulli'"):
        build((3, 32, 32), 2, likelihood="poison")


def test_flickrs_descriptors_are_two_mlps():
    model = MVAE(
        {
            "image": mlp_modality((3857,), 4, hidden=5, likelihood="normal"),
            "tags": mlp_modality((2000,), 4, hidden=5, weight=50.0),
        },
        4,
    )
    x = {"image": torch.randn(3, 3857), "tags": torch.randint(0, 2, (3, 2000)).float()}
    assert model.loss(x).isfinite()
    assert model.generate(2, given={"tags": x["tags"]})["image"].mean.shape == (6, 3857)


def test_all_types_have_a_description():
    model = build_mvae(
        {
            "latent_dim": 4,
            "modalities": {
                "photo": {"type": "conv", "shape": [3, 32, 32], "channels": 2, "hidden": 5},
                "smiling": {"type": "attribute", "hidden": 5, "weight": 10.0},
                "others": {"type": "attributes", "n": 17, "hidden": 5, "weight": 10.0},
                "label": {"type": "label", "num_classes": 3, "hidden": 5},
                "sound": {"type": "mlp", "shape": [6], "hidden": 5, "likelihood": "normal"},
            },
        }
    )
    x = {
        "photo": torch.rand(4, 3, 32, 32),
        "smiling": torch.tensor([0, 1, 1, 0]),
        "others": torch.rand(4, 17).round(),
        "label": torch.tensor([0, 1, 2, 0]),
        "sound": torch.randn(4, 6),
    }
    assert model.loss(x).isfinite()


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (
            lambda: mlp_modality(3, 2, hidden=4),
            lambda: (MLPEncoder(3, 2, [4, 4]), MLPDecoder(2, (3,), [4] * 3)),
        ),
        (
            lambda: label_modality(3, 2, hidden=4),
            lambda: (EmbeddingEncoder(3, 2, [4, 4]), MLPDecoder(2, (3,), [4] * 3)),
        ),
        (
            lambda: conv_modality((1, 32, 32), 2, channels=2),
            lambda: (
                ConvEncoder((1, 32, 32), 2, (), 2),
                ConvDecoder(2, (1, 32, 32), (), 2),
            ),
        ),
    ],
)
def test_a_seed_gives_the_same_weights_as_ever(build, parts):
    torch.manual_seed(0)
    modality = build()
    torch.manual_seed(0)
    for made, wanted in zip((modality.encoder, modality.decoder), parts(), strict=True):
        for one, two in zip(made.parameters(), wanted.parameters(), strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("first", [NormalLikelihood(0.5), BernoulliLikelihood()])
def test_a_likelihood_gives_way_to_any_other(first):
    modality = mlp_modality(3, 2, hidden=4, likelihood=first)
    for other in (NormalLikelihood(0.1), BernoulliLikelihood(), lambda output: Normal(output, 1)):
        modality.likelihood = other
        assert modality.likelihood is other
    assert "likelihood" not in dict(modality.named_children())
