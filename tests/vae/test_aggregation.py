"""Posteriors of several experts, against slow formulas and a linear-Gaussian model."""

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from mvae_fast.vae import (
    FLOWS,
    MVAE,
    MixturePosterior,
    Modality,
    NormalLikelihood,
    build_mvae,
    evaluate,
    load_mvae,
    save_mvae,
)
from mvae_fast.vae.inference.aggregation import AggregationName, make_aggregation
from tests.vae.models import AffineFlow, D, data, trimodal

NAMES = get_args(AggregationName)
EVERY = ("image", "label", "sound")
NOISE = 1.0


def gaussians(name, mean, logvar, here, log_weights):
    """Means and variances of the parts that a row has, one by one."""
    experts = [
        (m, (v - w).exp()) for m, v, w, h in zip(mean, logvar, log_weights, here, strict=True) if h
    ]
    if name == "mixture":
        return experts or [(torch.zeros(D).double(), torch.ones(D).double())]
    chosen = [experts]
    if name == "mixture_of_products":
        sizes = range(1, len(experts) + 1)
        chosen = [c for n in sizes for c in itertools.combinations(experts, n)] or [[]]
    products = []
    for part in chosen:
        precision = 1 + sum((1 / v for _, v in part), torch.zeros(D).double())
        products.append(
            (sum((m / v for m, v in part), torch.zeros(D).double()) / precision, 1 / precision)
        )
    return products


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pairs", [None, torch.tensor([0, 3, 5, 8, 9])])
def test_log_density_and_moments_are_those_of_the_parts(name, pairs):
    torch.manual_seed(0)
    mean, logvar = torch.randn(2, 5, 3, D).double()
    members = torch.rand(2, 5, 3) > 0.4
    members[0, 0] = False  # given nothing
    aggregation = make_aggregation(name, 3, D).double()
    weights = torch.zeros(3, D)
    if name == "generalized_product":
        weights = nn.init.normal_(aggregation.log_weights).detach()
    flow = AffineFlow().double()
    posterior = aggregation(mean, logvar, members, flow, pairs)
    z = torch.randn(len(posterior.loc), D).double()
    got = posterior.log_prob(z)
    scale, shift = flow.log_scale.exp(), flow.shift
    for row, place in enumerate(range(10) if pairs is None else pairs.tolist()):
        s, b = divmod(place, 5)
        parts = gaussians(name, mean[b], logvar[b], members[s, b], weights)
        z_0 = (z[row] - shift) / scale
        each = torch.stack([Normal(m, v.sqrt()).log_prob(z_0).sum() for m, v in parts])
        wanted = each.logsumexp(0) - math.log(len(parts)) - flow.log_scale.sum()
        torch.testing.assert_close(got[row], wanted)
        middle = sum(m for m, _ in parts) / len(parts)
        torch.testing.assert_close(posterior.loc[row], middle)
        variance = sum(v + (m - middle) ** 2 for m, v in parts) / len(parts)
        torch.testing.assert_close(posterior.logvar[row].exp(), variance)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_those_of_the_density(name):
    torch.manual_seed(0)
    mean, logvar = torch.randn(2, 4, 3, D).double()
    members = torch.tensor([[[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]]]).bool()
    flow = AffineFlow().double()
    posterior = make_aggregation(name, 3, D).double()(mean, logvar, members, flow)
    z, log_q = posterior.rsample_and_log_prob((40_000,))
    torch.testing.assert_close(log_q, posterior.log_prob(z))
    z_0 = (z - flow.shift) / flow.log_scale.exp()
    error = 5 * posterior.scale / 200
    assert ((z_0.mean(0) - posterior.loc).abs() < error).all()
    assert (z_0.var(0) / posterior.logvar.exp() - 1).abs().max() < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_expert(name):
    model = trimodal(AffineFlow(), aggregation=name)
    mask = {"label": torch.tensor([True, False] * 3 + [True])}
    model.loss(data(7, EVERY), mask).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


class Linear(nn.Module):
    """An encoder that is not the exact one."""

    def __init__(self, size):
        super().__init__()
        self.mean = nn.Linear(size, 2)

    def forward(self, x):
        return 0.2 * self.mean(x), torch.full((len(x), 2), 0.7, dtype=x.dtype)


def gentle():
    """A flow that leaves importance samples where the density is."""
    flow = AffineFlow(2)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(0.2)
    return flow


def linear_model(name, flow):
    torch.manual_seed(0)
    sizes = {"a": 3, "b": 2}
    modalities = {
        key: Modality(Linear(size), nn.Linear(2, size), NormalLikelihood(NOISE), shape=size)
        for key, size in sizes.items()
    }
    return MVAE(modalities, 2, flow, aggregation=name).double()


def log_density(model, x, names):
    decoders = [model.modalities[name].decoder for name in names]
    weight = torch.cat([decoder.weight for decoder in decoders])
    bias = torch.cat([decoder.bias for decoder in decoders])
    covariance = weight @ weight.T + NOISE**2 * torch.eye(len(bias))
    return MultivariateNormal(bias, covariance).log_prob(torch.cat([x[n] for n in names], 1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flow", [None, gentle()])
def test_importance_samples_find_the_likelihood_and_the_bound_is_below(name, flow):
    model = linear_model(name, flow)
    x = {"a": torch.randn(40, 3).double(), "b": torch.randn(40, 2).double()}
    with torch.no_grad():
        iwae = evaluate(model, [(x, None)], "iwae", n_samples=4000)
        elbo = evaluate(model, [(x, None)], "elbo", n_samples=200)
        for key, names in (("joint", "ab"), ("a", "a"), ("b", "b")):
            truth = -log_density(model, x, names).mean().item()
            assert iwae[f"iwae/{key}"][0] == pytest.approx(truth, abs=0.03)
            assert elbo[f"elbo/{key}"][0] > truth
        given = -(log_density(model, x, "ab") - log_density(model, x, "b")).mean().item()
        assert iwae["iwae/a|rest"][0] == pytest.approx(given, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flow", [None, *FLOWS])
def test_built_saved_and_loaded_with_every_flow(name, flow, tmp_path):
    modalities = {key: {"type": "mlp", "shape": 3, "hidden": 4} for key in ("a", "b")}
    described = None if flow is None else {"type": flow}
    if flow == "iaf":
        described["hidden"] = [8]
    config = {"latent_dim": 2, "modalities": modalities, "flow": described, "aggregation": name}
    model = build_mvae(config)
    x = {key: torch.rand(5, 3) for key in modalities}
    model.loss(x).backward()
    save_mvae(model, tmp_path / "model.pt")
    model.eval()
    one, two = (
        m.loss(x, generator=torch.Generator().manual_seed(0))
        for m in (model, load_mvae(tmp_path / "model.pt"))
    )
    assert torch.equal(one, two)
    assert model.reconstruct(x)["a"].mean.shape == (5, 3)
    assert model.generate(3, {"a": x["a"]})["b"].mean.shape == (15, 3)
    paper = evaluate(model, [(x, None)], "paper")
    assert all(math.isfinite(value) for value, _ in paper.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_importance_weighted_objective_is_the_estimate_of_the_likelihood(name):
    model = linear_model(name, gentle())
    x = {"a": torch.randn(40, 3).double(), "b": torch.randn(40, 2).double()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        loss = model.loss(x, n_samples=2000, objective="iwae", generator=generator).item()
    truth = -sum(log_density(model, x, names).mean().item() for names in ("ab", "a", "b"))
    assert loss == pytest.approx(truth, abs=0.06)
    one, two = (
        model.loss(x, objective=objective, generator=torch.Generator().manual_seed(0))
        for objective in ("elbo", "iwae")
    )
    torch.testing.assert_close(one, two)
    with pytest.raises(ValueError, match="objective: got 'dreg', expected 'elbo' or 'iwae'"):
        model.loss(x, objective="dreg")


def test_weights_and_beta_are_inside_of_the_importance_weights():
    model = trimodal(AffineFlow())
    found = model(data(7, EVERY), beta=0.3, n_samples=3, objective="iwae")
    each = 0.3 * found.terms.kl
    for name, nll in found.terms.nll.items():
        each = each + model.modalities[name].weight * nll
    wanted = -(torch.exp(-each.double()).mean(0)).log().sum() / 7
    # The loss is a sum of some hundred numbers in float32.
    torch.testing.assert_close(found.loss.double(), wanted, rtol=1e-5, atol=0)


def test_a_mixture_has_no_closed_form():
    model = trimodal(aggregation="mixture")
    with pytest.raises(ValueError, match='kl="closed_form" needs a Gaussian posterior'):
        x, present = model.prepare(data(7, EVERY), None)
        model.terms(x, present, torch.ones(1, 3).bool(), kl="closed_form")
    assert isinstance(model.encode(data(7, EVERY)), MixturePosterior)


@pytest.mark.parametrize(
    ("name", "n", "message"),
    [
        ("sum", 2, "aggregation: got 'sum', expected one of 'product', 'generalized_product'"),
        (None, 2, "aggregation: got None, expected one of"),
        ("mixture_of_products", 9, "of 9 modalities, expected at most 8"),
    ],
)
def test_what_cannot_be_is_named(name, n, message):
    with pytest.raises(ValueError, match=message):
        make_aggregation(name, n, 2)


def test_a_product_adds_nothing_to_a_checkpoint():
    assert not [key for key in trimodal().state_dict() if "aggregation" in key]
    assert not [key for key in trimodal(aggregation="mixture").state_dict() if "aggreg" in key]
