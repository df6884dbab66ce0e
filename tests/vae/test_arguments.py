"""Arguments that a stranger gets wrong, and those that mean what they seem to."""

from functools import partial

import numpy as np
import pytest
import torch

from mvae_fast.vae import (
    MVAE,
    BernoulliLikelihood,
    CategoricalLikelihood,
    ConvDecoder,
    ConvEncoder,
    EmbeddingEncoder,
    MLPDecoder,
    MLPEncoder,
    Modality,
    NormalLikelihood,
    attributes_modality,
    cnf_bias_posterior,
    cnf_posterior,
    cnf_rank_posterior,
    conv_modality,
    elbo_terms,
    evaluate,
    iaf_posterior,
    label_modality,
    mlp_modality,
    planar_posterior,
    sylvester_posterior,
)
from tests.vae.models import AffineFlow, D, bimodal, data, image

EVERYTHING = torch.ones(7, 2).bool()


def terms(**options):
    model, x = bimodal(), data()
    experts, modalities = model.experts(x, EVERYTHING), dict(model.items())
    subsets = torch.ones(1, 2).bool()
    return elbo_terms(experts, modalities, model.flow, x, EVERYTHING, subsets, **options)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda word: bimodal().elbo(data(), at=word), "at"),
        (lambda word: bimodal()(data(), at=word), "at"),
        (lambda word: bimodal().reconstruct(data(), at=word), "at"),
        (lambda word: terms(at=word), "at"),
        (lambda word: terms(kl=word), "kl"),
        (lambda word: evaluate(bimodal(), [(data(), {})], word), "convention"),
        (lambda word: evaluate(bimodal(), [(data(), {})], log_det=word), "log_det"),
    ],
)
@pytest.mark.parametrize("word", ["Mean", "mode", "closed", "", None, 0, True])
def test_a_word_is_one_of_those_that_are_known(call, name, word):
    with pytest.raises(ValueError, match=rf"^{name}.* got {word!r}"):
        call(word)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda flag: bimodal(validate_args=flag), "validate_args"),
        (lambda flag: terms(every_row=flag), "every_row"),
        (lambda flag: terms(log_det_error=flag), "log_det_error"),
        (lambda flag: MLPEncoder((3,), 2, batch_norm=flag), "batch_norm"),
        (lambda flag: MLPDecoder(2, (3,), batch_norm=flag), "batch_norm"),
        (lambda flag: planar_posterior(2, amortized=flag), "amortized"),
        (lambda flag: sylvester_posterior(2, amortized=flag), "amortized"),
        (lambda flag: iaf_posterior(2, amortized=flag), "amortized"),
    ],
)
@pytest.mark.parametrize("flag", ["False", 0, None, np.int64(1)])
def test_a_flag_is_true_or_false(call, name, flag):
    with pytest.raises(ValueError, match=f"^{name}: got .*, expected True or False"):
        call(flag)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (partial(MVAE, {"image": image()}), "latent_dim"),
        (lambda n: bimodal(n_random_subsets=n), "n_random_subsets"),
        (lambda n: bimodal().generate(n, {"label": 1}), "n"),
        (lambda n: bimodal().sample(n), "n"),
        (lambda n: bimodal().elbo(data(), n_samples=n), "n_samples"),
        (lambda n: evaluate(bimodal(), [(data(), {})], n_samples=n), "n_samples"),
        (lambda n: evaluate(bimodal(), [(data(), {})], seed=n), "seed"),
        (lambda n: mlp_modality(5, n), "latent_dim"),
        (lambda n: mlp_modality(5, 3, hidden=n), "hidden"),
        (lambda n: label_modality(n, 3), "num_classes"),
        (lambda n: label_modality(4, 3, hidden=n), "hidden"),
        (lambda n: conv_modality((1, 32, 32), n), "latent_dim"),
        (lambda n: conv_modality((1, 32, 32), 2, channels=n), "channels"),
        (lambda n: attributes_modality(n, 3), "n"),
        (CategoricalLikelihood, "num_classes"),
        (lambda n: EmbeddingEncoder(n, 3), "num_classes"),
        (lambda n: MLPEncoder((3, n), 3), "shape"),
        (lambda n: MLPDecoder(3, (3, n)), "shape"),
        (lambda n: MLPDecoder(3, (3,), (4, n)), "hidden"),
        (lambda n: ConvEncoder((n, 32, 32), 3), "shape"),
        (lambda n: ConvDecoder(3, (1, 32, 32), (n,)), "hidden"),
        (lambda n: cnf_posterior(3, hidden=(n,)), "hidden"),
        (lambda n: cnf_bias_posterior(3, hidden=n), "hidden"),
        (lambda n: cnf_rank_posterior(3, hidden=n), "hidden"),
        (lambda n: iaf_posterior(3, hidden=n), "hidden"),
        (lambda n: Modality(torch.nn.Identity(), torch.nn.Identity(), print, shape=n), "shape"),
    ],
)
@pytest.mark.parametrize("n", [-1, 2.0, "3", True])
@pytest.mark.slow
def test_a_size_is_an_integer(call, name, n):
    with pytest.raises(ValueError, match=f"^{name}: got {n!r}, expected an integer >= "):
        call(n)


@pytest.mark.parametrize("weight", [0, -1, torch.nan, torch.inf, "50", True, None])
def test_a_weight_is_a_positive_number(weight):
    for build in (partial(mlp_modality, 5), partial(label_modality, 4)):
        with pytest.raises(ValueError, match="^weight: got .*, expected > 0, a finite number"):
            build(2, weight=weight)


def test_numbers_of_numpy_are_numbers():
    labels = np.array([0, 3, 1])
    modality = label_modality(
        labels.max() + 1, np.int64(4), hidden=np.int32(6), weight=np.float32(2)
    )
    model = MVAE({"label": modality}, np.int16(4), n_random_subsets=np.int64(0))
    assert model.generate(np.int64(2), {"label": 3})["label"].base_dist.probs.shape == (2, 4)
    assert type(modality.weight) is float and type(model.latent_dim) is int


@pytest.mark.parametrize("shape", [5, (5,), [5], np.array([5]), np.array(5), torch.Size([5])])
def test_one_size_stands_for_one_axis(shape):
    modality = mlp_modality(shape, 2, hidden=3)
    assert modality.shape == (5,)
    assert modality.decode(modality.encoder(torch.rand(4, 5))[0]).event_shape == (5,)


@pytest.mark.parametrize("build", [cnf_posterior, cnf_bias_posterior, iaf_posterior])
def test_one_width_stands_for_one_layer(build):
    weights = [
        {name: p.shape for name, p in build(3, hidden=hidden).named_parameters()}
        for hidden in (8, (8,), np.int64(8))
    ]
    assert weights[0] == weights[1] == weights[2]


@pytest.mark.parametrize("shape", [(), None, "28", (3, "4"), {3: 4}.values, [[3]]])
def test_a_shape_that_means_nothing_is_named(shape):
    with pytest.raises(ValueError, match="^shape: got "):
        mlp_modality(shape, 2)


@pytest.mark.parametrize("name", ["a.b", ""])
def test_names_that_pytorch_needs_are_refused(name):
    with pytest.raises(ValueError, match=f"modality name {name!r} cannot be used"):
        MVAE({name: image()}, D)


def test_a_name_is_a_string():
    with pytest.raises(TypeError, match="modality name 3 cannot be used: expected a string"):
        MVAE({3: image()}, D)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_value_just_outside_of_the_range_is_shown_as_it_is(dtype):
    above = torch.nextafter(torch.ones((), dtype=dtype), torch.full((), 2.0, dtype=dtype))
    x = torch.stack([torch.zeros((), dtype=dtype), above])
    assert above.item() != 1
    with pytest.raises(ValueError, match=f"to {above.item()!r}; remedy: .*x.clamp"):
        BernoulliLikelihood().check(x)
    BernoulliLikelihood().check(x.clamp(0, 1))


@pytest.mark.parametrize("x", [data()["image"], [1, 2], None, "image", data().items()])
def test_data_are_a_mapping(x):
    for call in (bimodal().loss, bimodal().encode, partial(bimodal().generate, 2)):
        with pytest.raises(TypeError, match="expected a mapping .*'image': ..., 'label': ..."):
            call(x)


def test_one_mask_for_all_is_refused():
    with pytest.raises(TypeError, match="^mask: got a Tensor, expected a mapping"):
        bimodal().loss(data(), torch.ones(7).bool())


def test_masks_are_tensors_arrays_or_lists():
    model, x = bimodal(AffineFlow()), data()
    mask = [True, False, True, True, False, True, False]
    losses = [
        model(x, {"label": here}, at="mean").loss
        for here in (torch.tensor(mask), np.array(mask), np.array(mask)[::-1][::-1], mask)
    ]
    assert all(loss == losses[0] for loss in losses)
    for here in ([1, 0, 1, 1, 0, 1, 0], ["yes"] * 7, np.ones(7)):
        with pytest.raises(TypeError, match=r"mask\['label'\] must be boolean"):
            model.loss(x, {"label": here})


def test_labels_that_are_given_may_be_of_any_integer_type():
    model = bimodal().eval()
    for value in (1, True, np.int8(1), np.array(1, np.uint16), np.array([1], ">i4"), [1]):
        drawn = model.generate(2, {"label": value}, generator=torch.Generator().manual_seed(0))
        wanted = model.generate(
            2, {"label": torch.tensor([1])}, generator=torch.Generator().manual_seed(0)
        )
        assert torch.equal(drawn["image"].mean, wanted["image"].mean)


@pytest.mark.parametrize("value", ["1", ["a", "b"], [None, 1], [[1], [2, 3]], {"a": 1}, 1j])
def test_what_is_given_are_numbers(value):
    with pytest.raises((TypeError, ValueError), match="^modality 'label': "):
        bimodal().generate(2, {"label": value})


def test_none_is_a_missing_modality():
    model = bimodal().eval()
    drawn, wanted = (
        model.generate(2, given, generator=torch.Generator().manual_seed(0))["image"].mean
        for given in ({"image": None, "label": 2}, {"label": 2})
    )
    assert torch.equal(drawn, wanted)
    for nothing in ({}, {"label": None}):
        with pytest.raises(ValueError, match="at least one modality; use sample"):
            model.generate(2, nothing)


def test_reversed_arrays_are_given_as_they_read():
    model, images = bimodal().eval(), np.random.default_rng(0).random((2, 3, 4))
    drawn, wanted = (
        model.generate(1, {"image": x}, generator=torch.Generator().manual_seed(0))["label"]
        for x in (images[::-1], torch.from_numpy(images[::-1].copy()).float())
    )
    torch.testing.assert_close(drawn.base_dist.probs, wanted.base_dist.probs, rtol=0, atol=0)


def test_scales_are_positive_numbers():
    for scale in (0, -1.0, torch.nan, "1"):
        with pytest.raises(ValueError, match="^scale: got "):
            NormalLikelihood(scale)
