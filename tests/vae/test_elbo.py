import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.vae import (
    cnf_bias_posterior,
    cnf_posterior,
    gaussian_kl,
    joint_and_unimodal,
)
from tests.vae.models import AffineFlow, D, bimodal, data, trimodal


def cnf():
    return FastCNF(ODEfunc(ODEnet((9,), (D,), layer_type="squash")), n_steps=3, trace="exact")


def separate_passes(model, x, noise, weights, beta):
    """The objective as the paper writes it: one pass a subset, all in plain formulas."""
    names = list(x)
    total = 0.0
    for s, subset in enumerate([names, *([name] for name in names)]):
        precision, moment = 1.0, 0.0
        for name in subset:
            mean, logvar = model.modalities[name].encoder(x[name])
            precision = precision + torch.exp(-logvar)
            moment = moment + mean * torch.exp(-logvar)
        mean, std = moment / precision, precision**-0.5
        q0 = Independent(Normal(mean, std), 1)
        prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(std)), 1)
        z0 = mean + std * noise[s]
        if model.flow is None:
            z, kl = z0, kl_divergence(q0, prior)
        else:
            z, logp = model.flow(z0, q0.log_prob(z0).unsqueeze(1))
            kl = logp.squeeze(1) - prior.log_prob(z)
        loss = beta * kl
        for name in subset:
            output = model.modalities[name].decoder(z)
            if name == "image":
                nll = F.binary_cross_entropy_with_logits(output, x[name], reduction="none")
                nll = nll.flatten(1).sum(1)
            elif name == "label":
                nll = F.cross_entropy(output, x[name], reduction="none")
            else:
                nll = -Normal(output, 0.5).log_prob(x[name]).sum(1)
            loss = loss + weights[name] * nll
        total = total + loss.mean()
    return total


@pytest.mark.parametrize(
    "make_flow", [lambda: None, AffineFlow, cnf], ids=["none", "affine", "cnf"]
)
@pytest.mark.parametrize("make_model", [bimodal, trimodal])
def test_one_pass_equals_separate_passes(make_model, make_flow):
    model = make_model(make_flow()).double()
    x = data(names=tuple(model.modalities), dtype=torch.float64)
    loss = model.loss(x, beta=0.3, generator=torch.Generator().manual_seed(5))
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    n_terms = len(x) + 1
    noise = torch.randn(
        n_terms, 7, D, dtype=torch.float64, generator=torch.Generator().manual_seed(5)
    )
    weights = {"image": 1.0, "label": 50.0, "sound": 2.0}
    wanted = separate_passes(model, x, noise, weights, beta=0.3)
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)
    for got, want in zip(
        gradients, torch.autograd.grad(wanted, list(model.parameters())), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


def test_each_network_runs_once_and_only_on_the_rows_that_need_it():
    flow = AffineFlow()
    model = trimodal(flow)
    rows = {}
    for name, modality in model.modalities.items():
        for part in ("encoder", "decoder"):
            seen = rows.setdefault((name, part), [])
            getattr(modality, part).register_forward_hook(
                lambda module, args, output, seen=seen: seen.append(len(args[0]))
            )
    x = data(7, ("image", "label", "sound"))
    model.loss(x)
    # Joint, and alone: two terms score each modality; four terms go through the flow.
    assert rows == {
        (name, part): [7 if part == "encoder" else 14]
        for name in x
        for part in ("encoder", "decoder")
    }
    assert flow.rows == [28]

    for seen in (flow.rows, *rows.values()):
        seen.clear()
    mask = {
        "label": torch.tensor([True, False, True, False, False, True, False]),
        "image": torch.tensor([True, True, False, True, True, True, False]),
    }
    model.loss(x, mask)
    # Row 6 has the sound alone, so no joint term.
    assert rows == {
        ("image", "encoder"): [5],
        ("image", "decoder"): [5 + 5],
        ("label", "encoder"): [3],
        ("label", "decoder"): [3 + 3],
        ("sound", "encoder"): [7],
        ("sound", "decoder"): [6 + 7],
    }
    assert flow.rows == [6 + 5 + 3 + 7]


def test_random_subsets_join_the_same_pass():
    flow = AffineFlow()
    model = trimodal(flow, n_random_subsets=2)
    objective = model(data(7, ("image", "label", "sound")))
    assert flow.rows == [6 * 7]
    assert objective.terms.subsets[4:].sum(dim=1).tolist() == [2, 2]
    torch.manual_seed(3)
    first = model(data(7, ("image", "label", "sound"))).terms.subsets
    torch.manual_seed(3)
    assert torch.equal(first, model(data(7, ("image", "label", "sound"))).terms.subsets)


def test_gaussian_kl_is_that_of_torch():
    mean, logvar = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    q = Independent(Normal(mean, (0.5 * logvar).exp()), 1)
    p = Independent(Normal(torch.zeros_like(mean), 1.0), 1)
    torch.testing.assert_close(gaussian_kl(mean, logvar), kl_divergence(q, p), rtol=1e-12, atol=0)
    near = torch.full((1, 1), 1e-6)
    assert gaussian_kl(torch.zeros(1, 1), near).item() == pytest.approx(2.5e-13, abs=1e-13)


@pytest.mark.parametrize("flow", [None, AffineFlow()], ids=["none", "affine"])
def test_sampled_kl_converges_to_the_closed_form(flow):
    model = bimodal(flow).double()
    x = data(4, dtype=torch.float64)
    present = torch.ones(4, 2, dtype=torch.bool)
    terms = model.terms(
        x,
        present,
        joint_and_unimodal(2),
        n_samples=4000,
        generator=torch.Generator().manual_seed(0),
    )
    posterior = model.encode(x)
    mean, logvar = posterior.loc, posterior.logvar
    if flow is not None:  # an affine image of a Gaussian is a Gaussian
        mean = mean * flow.log_scale.exp() + flow.shift
        logvar = logvar + 2 * flow.log_scale
    joint = terms.kl[:, 0]
    error = (joint.mean(0) - gaussian_kl(mean, logvar)).abs()
    # Five standard errors: a correct estimator fails once in a million seeds.
    assert (error < 5 * joint.std(0) / 4000**0.5).all()
    assert (joint.std(0) > 0.1).all()


HUTCHINSON = {
    "cnf": lambda: cnf_posterior(D, hidden=(7,), trace="hutchinson"),
    "cnf_bias": lambda: cnf_bias_posterior(D, hidden=(7,), trace="hutchinson"),
    "chain": lambda: cnf_posterior(D, hidden=(7,), trace="hutchinson", n_blocks=2),
}


@pytest.mark.parametrize(
    "make_flow", [AffineFlow, *HUTCHINSON.values()], ids=["affine", *HUTCHINSON]
)
def test_at_the_mean_there_is_no_noise(make_flow):
    model = bimodal(make_flow())
    first, second = (model(data(), at="mean").loss for _ in range(2))
    assert first == second


@pytest.mark.parametrize("make_flow", HUTCHINSON.values(), ids=HUTCHINSON)
def test_generator_decides_all_noise_of_the_loss(make_flow):
    model = bimodal(make_flow())
    one, two, other = (
        model.loss(data(), generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert one == two != other


def test_closed_form_needs_a_gaussian():
    model = bimodal(AffineFlow())
    with pytest.raises(ValueError, match="closed_form"):
        model.terms(
            data(),
            torch.ones(7, 2, dtype=torch.bool),
            joint_and_unimodal(2),
            kl="closed_form",
        )


@pytest.mark.parametrize("arguments", [{"n_samples": 0}, {"n_samples": 2, "at": "mean"}])
def test_n_samples_must_fit(arguments):
    with pytest.raises(ValueError, match="n_samples"):
        model = bimodal()
        model.terms(data(), torch.ones(7, 2, dtype=torch.bool), joint_and_unimodal(2), **arguments)


def test_a_likelihood_must_give_one_number_a_row():
    model = bimodal()
    model.modalities["image"].likelihood = lambda output: Normal(output, 1.0)
    with pytest.raises(ValueError, match="'image': the likelihood must give one log_prob for each"):
        model.loss(data())
