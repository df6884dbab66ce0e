import copy

import pytest
import torch
from torch.distributions import Independent, Normal

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.vae import MVAE, gaussian_kl, product_of_experts
from tests.vae.models import AffineFlow, D, bimodal, data, image, label, trimodal

ALL = ("image", "label", "sound")


def some_missing():
    """Data with NaN and impossible labels where a mask says that they are missing."""
    x = data(7, ALL)
    mask = {
        "image": torch.tensor([True, False, True, True, False, True, False]),
        "label": torch.tensor([True, True, False, True, False, True, False]),
        "sound": torch.tensor([False, True, True, True, True, True, False]),
    }
    x["image"][~mask["image"]] = torch.nan
    x["label"][~mask["label"]] = -100
    x["sound"][~mask["sound"]] = torch.inf
    return x, mask


@pytest.mark.parametrize("flow", [None, AffineFlow()], ids=["none", "affine"])
def test_missing_data_poison_nothing(flow):
    model = trimodal(flow)
    x, mask = some_missing()
    clean = data(7, ALL)
    loss = model.loss(x, mask, generator=torch.Generator().manual_seed(0))
    loss.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    same = model.loss(clean, mask, generator=torch.Generator().manual_seed(0))
    same.backward()
    assert loss.isfinite() and loss == same
    for gradient, p in zip(gradients, model.parameters(), strict=True):
        assert gradient.isfinite().all()
        assert torch.equal(gradient, p.grad)


def test_a_batch_with_missing_data_is_the_sum_of_its_rows():
    model = trimodal(AffineFlow()).double()
    x, mask = some_missing()
    x = {name: v.double() if v.is_floating_point() else v for name, v in x.items()}
    together = model(x, mask, at="mean").loss
    alone = 0.0
    for row in range(6):  # the last row has nothing
        has = [name for name in ALL if mask[name][row]]
        alone = alone + model({name: x[name][row : row + 1] for name in has}, at="mean").loss
    torch.testing.assert_close(together * 7, alone, rtol=1e-12, atol=0)


def test_a_row_with_one_modality_has_its_unimodal_term_once():
    model = bimodal()
    terms = model({"image": data()["image"]}).terms
    assert terms.active.sum(dim=1).tolist() == [0, 7, 0]


@pytest.mark.parametrize("make_flow", [lambda: None, AffineFlow], ids=["none", "affine"])
def test_every_parameter_gets_a_gradient(make_flow):
    model = trimodal(make_flow(), n_random_subsets=1)
    model.loss(data(7, ALL)).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


def test_every_parameter_of_the_cnf_gets_a_gradient():
    flow = FastCNF(ODEfunc(ODEnet((9,), (D,), layer_type="squash")), n_steps=3, trace="exact")
    model = bimodal(flow)
    model.loss(data()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("x", "mask"),
    [
        (data(), {"label": torch.zeros(7, dtype=torch.bool)}),
        ({"image": data()["image"], "label": None}, None),
        (data(names=("image",)), None),
    ],
    ids=["masked", "none", "left out"],
)
def test_networks_get_defined_gradients_even_without_rows(x, mask):
    """Distributed training waits for the gradient of every parameter."""
    model = bimodal()
    model.loss(x, mask).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all((p.grad == 0).all() for p in model.modalities["label"].parameters())


def test_no_network_without_rows_is_touched_where_there_are_no_gradients():
    model = bimodal()
    with torch.no_grad():
        for p in model.modalities["label"].parameters():
            p.fill_(torch.inf)
        assert model.elbo(data(names=("image",))).isfinite().all()


def test_encode_is_the_product_of_what_is_present():
    model = trimodal()
    x, mask = some_missing()
    posterior = model.encode(x, mask)
    assert posterior.batch_shape == (7,) and posterior.event_shape == (D,)
    assert (posterior.loc[6] == 0).all() and (posterior.logvar[6] == 0).all()
    one = data(7, ALL)
    experts = [model.modalities[name].encoder(one[name][1:2]) for name in ("label", "sound")]
    mean, logvar = product_of_experts(
        torch.stack([e[0] for e in experts], 1), torch.stack([e[1] for e in experts], 1)
    )
    torch.testing.assert_close(posterior.loc[1:2], mean)
    torch.testing.assert_close(posterior.logvar[1:2], logvar)


def test_none_and_left_out_mean_missing():
    model = bimodal()
    images = data()["image"]
    for x in ({"image": images}, {"image": images, "label": None}):
        torch.testing.assert_close(model.encode(x).loc, model.encode({"image": images}).loc)


def test_elbo_is_a_lower_bound_that_importance_sampling_tightens():
    model = bimodal(AffineFlow()).double()
    x = data(5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    elbo = model.elbo(x, n_samples=2000, generator=generator)
    # log p(x) by brute force from the prior, in a model whose decoders are smooth and 5-dimensional
    z = torch.randn(100_000, D, dtype=torch.float64, generator=generator)
    decoded = model.decode(z)
    logp = (
        torch.stack(
            [
                sum(decoded[name].log_prob(x[name][i : i + 1]) for name in x).logsumexp(0)
                for i in range(5)
            ]
        )
        - torch.tensor(100_000.0).log()
    )
    assert (elbo < logp).all()


def test_elbo_of_nothing_is_minus_the_kl():
    flow = AffineFlow()
    model = bimodal(flow)
    mask = {name: torch.zeros(7, dtype=torch.bool) for name in ("image", "label")}
    elbo = model.elbo(data(), mask, n_samples=5000, generator=torch.Generator().manual_seed(0))
    kl = gaussian_kl(flow.shift, 2 * flow.log_scale)
    torch.testing.assert_close(elbo, -kl.expand(7), rtol=0.05, atol=0)


def test_generate_groups_samples_by_condition():
    torch.manual_seed(0)
    model = bimodal(AffineFlow())
    given = torch.tensor([2, 0, 3])
    decoded = model.generate(4, {"label": given}, generator=torch.Generator().manual_seed(1))
    assert decoded["image"].mean.shape == (12, 3, 4)
    assert decoded["label"].sample().shape == (12,)
    posterior = model.encode({"label": given})
    z = posterior.rsample((4,), generator=torch.Generator().manual_seed(1))
    for condition in range(3):
        torch.testing.assert_close(
            decoded["image"].mean[4 * condition : 4 * condition + 4],
            model.decode(z[:, condition])["image"].mean,
        )


def test_each_row_is_a_condition_of_what_its_mask_leaves():
    model, x = bimodal(AffineFlow()), data(3)
    mask = {"label": torch.tensor([True, False, True])}
    partly, without = (
        model.generate(4, given, given_mask, generator=torch.Generator().manual_seed(1))["image"]
        for given, given_mask in ((x, mask), ({"image": x["image"]}, None))
    )
    same = (partly.mean == without.mean).flatten(1).all(1).view(3, 4)
    assert same.all(1).tolist() == [False, True, False]


def test_a_number_is_one_condition():
    decoded = bimodal().generate(4, {"label": 2})
    assert decoded["image"].mean.shape == (4, 3, 4)


def test_label_zero_can_be_given():
    model = bimodal()
    zero, one = (
        model.generate(1, {"label": k}, generator=torch.Generator().manual_seed(0))["image"].mean
        for k in (0, 1)
    )
    assert not torch.equal(zero, one)


def test_sample_decodes_the_prior_without_the_flow():
    flow = AffineFlow()
    model = bimodal(flow)
    decoded = model.sample(6, generator=torch.Generator().manual_seed(0))
    assert flow.rows == []
    z = torch.randn(6, D, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decoded["image"].mean, model.decode(z)["image"].mean)


def test_reconstruct_fills_in_what_is_missing():
    model = trimodal(AffineFlow())
    x, mask = some_missing()
    decoded = model.reconstruct(x, mask)
    assert set(decoded) == set(ALL)
    assert decoded["image"].mean.isfinite().all()
    flow = model.flow
    z = model.encode(x, mask).loc * flow.log_scale.exp() + flow.shift
    torch.testing.assert_close(decoded["sound"].mean, model.decode(z)["sound"].mean)
    sampled = model.reconstruct(x, mask, at="sample")
    assert not torch.equal(sampled["sound"].mean, decoded["sound"].mean)


def test_a_single_modality_has_one_term():
    torch.manual_seed(0)
    model = MVAE({"image": image()}, D)
    terms = model({"image": data()["image"]}).terms
    assert terms.active.tolist() == [[True] * 7]


def test_any_callable_likelihood_will_do():
    model = bimodal()
    model.modalities["image"].likelihood = lambda output: Independent(Normal(output, 0.1), 2)
    model.loss(data()).backward()


def test_copies_and_state_dicts_are_equal():
    model = bimodal(AffineFlow())
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1.0)
    other.load_state_dict(model.state_dict(), strict=True)
    a, b = (m.loss(data(), generator=torch.Generator().manual_seed(0)) for m in (model, other))
    assert a == b


@pytest.mark.parametrize(
    ("change", "mask", "error", "message"),
    [
        ({"smell": torch.zeros(7)}, {}, ValueError, r"x names unknown modalities \['smell'\]"),
        ({}, {"smell": torch.ones(7).bool()}, ValueError, r"mask names unknown modalities"),
        ({"image": torch.zeros(6, 3, 4)}, {}, ValueError, "same number of rows"),
        ({"image": torch.zeros(7, 12)}, {}, ValueError, r"'image': rows must have shape \(3, 4\)"),
        ({"image": torch.full((7, 3, 4), 2.0)}, {}, ValueError, r"'image': .* in \[0, 1\]"),
        ({"image": torch.full((7, 3, 4), torch.nan)}, {}, ValueError, "'image': .* got values"),
        ({"image": torch.ones(7, 3, 4).long()}, {}, TypeError, "'image': .* floating-point"),
        ({"image": {1, 2}}, {}, TypeError, "'image': data must be floats or integers"),
        ({"label": torch.full((7,), 4)}, {}, ValueError, r"'label': .* 0\.\.3"),
        ({"label": torch.full((7,), -1)}, {}, ValueError, r"'label': .* from -1"),
        ({"label": torch.zeros(7)}, {}, TypeError, "'label': .* int64"),
        ({"image": None, "label": None}, {}, ValueError, "x must hold at least one modality"),
        ({"label": None}, {"label": torch.ones(7).bool()}, ValueError, "x has no 'label'"),
        ({}, {"label": torch.ones(7)}, TypeError, r"mask\['label'\] must be boolean"),
        ({}, {"label": torch.ones(6).bool()}, ValueError, r"mask\['label'\] must be \(7,\)"),
    ],
)
def test_bad_data_are_named(change, mask, error, message):
    with pytest.raises(error, match=message):
        bimodal().loss({**data(), **change}, mask)


def test_data_in_another_precision_are_named():
    model, x = bimodal(AffineFlow()), data(dtype=torch.float64)
    message = (
        "'image': got torch.float64 data, but its encoder is torch.float32; "
        r"remedy: x\['image'\].to\(torch.float32\)"
    )
    for call in (model.loss, model.encode, lambda given: model.generate(2, given)):
        with pytest.raises(TypeError, match=message):
            call(x)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=message):
        model.loss(x)
    half = {**x, "image": x["image"].bfloat16()}
    with pytest.raises(TypeError, match="'image': got torch.bfloat16 data"):
        model.loss(half)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.loss(half).isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_that_are_given_take_the_precision_of_the_model(dtype):
    model, images = bimodal().to(dtype), data(2, dtype=torch.float64)["image"]
    given = ({"image": images.numpy()}, {"image": images.tolist()}, {"image": images.to(dtype)})
    numpy, listed, tensor = (
        model.generate(3, x, generator=torch.Generator().manual_seed(0))["image"].mean
        for x in given
    )
    assert numpy.dtype == dtype
    torch.testing.assert_close(numpy, tensor, rtol=0, atol=0)
    torch.testing.assert_close(listed, tensor, rtol=0, atol=0)


def test_no_mask_may_be_none():
    model, x = bimodal(AffineFlow()), data()
    some = torch.tensor([True, False] * 3 + [True])
    for mask, same in (
        ({"image": None}, None),
        ({"image": None, "label": None}, {}),
        ({"image": None, "label": some}, {"label": some}),
    ):
        assert model(x, mask, at="mean").loss == model(x, same, at="mean").loss


def test_checks_can_be_turned_off():
    model = bimodal(validate_args=False)
    assert model.loss({**data(), "image": torch.full((7, 3, 4), 1.5)}).isfinite()
    # An encoder may take its data to its own precision itself.
    encoder = model.modalities["image"].encoder
    encoder.register_forward_pre_hook(lambda module, args: tuple(x.float() for x in args))
    assert model.encode({"image": data(dtype=torch.float64)["image"]}).loc.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({}, D), ValueError, "at least one modality"),
        (({"image": torch.nn.Linear(1, 1)}, D), TypeError, "'image' must be a Modality"),
        (({"a.b": image()}, D), ValueError, "'a.b' cannot be used"),
        (({"joint": image()}, D), ValueError, "'joint' cannot be used: measures are named"),
        (({"joint/image": image()}, D), ValueError, "'joint/image' cannot be used: measures"),
        (({"image|rest": image()}, D), ValueError, r"'image\|rest' cannot be used: measures"),
        (({"image": image()}, 0), ValueError, "latent_dim: got 0, expected an integer >= 1"),
    ],
)
def test_bad_models_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        MVAE(*arguments)


def test_two_modalities_have_no_random_subsets():
    with pytest.raises(ValueError, match=r"k must be in 0\.\.0"):
        bimodal(n_random_subsets=1)


def test_an_encoder_of_another_latent_size_is_named():
    model = MVAE({"image": image(), "label": label(dim=3)}, D)
    with pytest.raises(ValueError, match=r"'label': the encoder must give .* got \(7, 3\)"):
        model.loss(data())


def test_z_of_another_size_is_named():
    with pytest.raises(ValueError, match=r"z must be \(B, 5\), got \(2, 4\)"):
        bimodal().decode(torch.zeros(2, 4))


@pytest.mark.parametrize("cnf", [False, True])
def test_a_batch_without_anything_has_no_loss(cnf):
    flow = FastCNF(ODEfunc(ODEnet((9,), (D,))), n_steps=3, trace="exact") if cnf else AffineFlow()
    model = bimodal(flow)
    loss = model.loss(data(), {name: torch.zeros(7).bool() for name in ("image", "label")})
    loss.backward()
    assert loss == 0


def test_autocast_keeps_the_loss_in_full_precision():
    model = trimodal(AffineFlow())
    x, mask = some_missing()
    full = model(x, mask, at="mean").loss
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x, mask, at="mean").loss
    half.backward()
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(full.item(), rel=1e-2)
    assert half != full
