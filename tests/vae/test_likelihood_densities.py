"""Every likelihood against its density in closed form, from SciPy or written out."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit

from mvae_fast.vae import LIKELIHOODS, OrdinalLikelihood, mlp_modality
from mvae_fast.vae.likelihoods.registry import make_likelihood

SHAPE = (3, 2)
RAW = np.log(np.expm1(0.7 - 1e-3))
"""What softplus and the smallest scale make 0.7 of."""


def draw(kind, rows=4):
    generator = np.random.default_rng(0)
    shape = (rows, *SHAPE)
    if kind == "unit":
        return generator.uniform(0.01, 0.99, shape)
    if kind == "counts":
        return generator.poisson(3.0, shape).astype(float) * generator.integers(0, 2, shape)
    if kind == "levels":
        return generator.integers(0, 8, shape) / 7
    return generator.normal(size=shape)


def softplus(x):
    return np.log1p(np.exp(x)) + 1e-3


def continuous_bernoulli(x, o):
    p = expit(o)
    constant = 2 * np.arctanh(1 - 2 * p) / (1 - 2 * p)
    return np.log(constant) + x * np.log(p) + (1 - x) * np.log1p(-p)


def nb(x, mean, theta):
    return stats.nbinom.logpmf(x, theta, theta / (theta + mean))


def zinb(x, mean, logit, theta):
    lost = expit(logit)
    return np.log(lost * (x == 0) + (1 - lost) * np.exp(nb(x, mean, theta)))


def logistic(x, location, scale):
    low = np.where(x == 0, -np.inf, x - 0.5 / 7)
    high = np.where(x == 1, np.inf, x + 0.5 / 7)
    return np.log(
        stats.logistic.cdf(high, location, scale) - stats.logistic.cdf(low, location, scale)
    )


def levels(x, *logits):
    stacked = np.stack(logits, -1)
    log_p = stacked - np.log(np.exp(stacked).sum(-1, keepdims=True))
    return np.take_along_axis(log_p, np.rint(x * 7).astype(int)[..., None], -1)[..., 0]


LEARNED, PREDICTED = {"scale": "learned"}, {"scale": "predicted"}
NB, ZINB = "negative_binomial", "zero_inflated_negative_binomial"

CASES = [
    ("bernoulli", {}, "unit", lambda x, o: x * np.log(expit(o)) + (1 - x) * np.log(expit(-o))),
    ("continuous_bernoulli", {}, "unit", continuous_bernoulli),
    ("normal", {}, "real", lambda x, o: stats.norm.logpdf(x, o, 1)),
    ("gaussian", {"scale": 0.3}, "real", lambda x, o: stats.norm.logpdf(x, o, 0.3)),
    ("normal", LEARNED, "real", lambda x, o: stats.norm.logpdf(x, o, 0.7)),
    ("normal", PREDICTED, "real", lambda x, o, s: stats.norm.logpdf(x, o, softplus(s))),
    ("laplace", PREDICTED, "real", lambda x, o, s: stats.laplace.logpdf(x, o, softplus(s))),
    ("laplace", {}, "real", lambda x, o: stats.laplace.logpdf(x, o, 1)),
    ("student_t", {}, "real", lambda x, o: stats.t.logpdf(x, 4, o, 1)),
    ("student_t", {"df": 2.5, **LEARNED}, "real", lambda x, o: stats.t.logpdf(x, 2.5, o, 0.7)),
    ("poisson", {}, "counts", lambda x, o: stats.poisson.logpmf(x, np.exp(o))),
    (NB, {}, "counts", lambda x, o: nb(x, np.exp(o), 0.7)),
    (NB, {"dispersion": 5}, "counts", lambda x, o: nb(x, np.exp(o), 5)),
    (NB, {"dispersion": "predicted"}, "counts", lambda x, o, r: nb(x, np.exp(o), softplus(r))),
    (ZINB, {}, "counts", lambda x, o, g: zinb(x, np.exp(o), g, 0.7)),
    (
        ZINB,
        {"dispersion": "predicted"},
        "counts",
        lambda x, o, g, r: zinb(x, np.exp(o), g, softplus(r)),
    ),
    ("beta", {}, "unit", lambda x, a, b: stats.beta.logpdf(x, softplus(a), softplus(b))),
    ("logistic_levels", {"levels": 8}, "levels", lambda x, o: logistic(x, o, 0.7)),
    ("logistic_levels", {"levels": 8, "scale": 0.2}, "levels", lambda x, o: logistic(x, o, 0.2)),
    (
        "logistic_levels",
        {"levels": 8, **PREDICTED},
        "levels",
        lambda x, o, s: logistic(x, o, softplus(s)),
    ),
    ("categorical_levels", {"levels": 8}, "levels", levels),
]


def made(name, options):
    """A likelihood in double precision, all that it learns at 0.7."""
    likelihood = make_likelihood({"name": name, **options}, SHAPE)
    if isinstance(likelihood, torch.nn.Module):
        likelihood.double()
        for parameter in likelihood.parameters():
            torch.nn.init.constant_(parameter, RAW)
    return likelihood


def outputs(likelihood, rows=4):
    generator = torch.Generator().manual_seed(1)
    k = likelihood.n_outputs
    shape = (rows, *SHAPE) if k == 1 else (rows, k, *SHAPE)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("name", "options", "kind", "density"), CASES)
def test_log_prob(name, options, kind, density):
    likelihood = made(name, options)
    x, output = draw(kind), outputs(likelihood)
    parts = [output] if likelihood.n_outputs == 1 else output.unbind(1)
    wanted = density(x, *(part.numpy() for part in parts)).sum((1, 2))
    target = torch.from_numpy(x)
    likelihood.check(target)
    got = likelihood(output.requires_grad_()).log_prob(target)
    # float64; the continuous Bernoulli's constant cancels near 1/2, where torch takes a series.
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(got.sum(), output)
    assert gradient.isfinite().all()


def test_every_likelihood_is_among_the_cases():
    assert {name for name, *_ in CASES} == set(LIKELIHOODS)


@pytest.mark.parametrize(("name", "options", "kind", "density"), CASES)
def test_samples_have_the_mean_and_can_be_scored(name, options, kind, density):
    likelihood = made(name, options)
    distribution = likelihood(outputs(likelihood))
    torch.manual_seed(0)
    samples = distribution.sample((20_000,))
    likelihood.check(samples.flatten(0, 1))
    assert samples.shape[1:] == (4, *SHAPE) == distribution.mean.shape
    # Six standard errors; a t of 2.5 degrees of freedom converges too slowly for them.
    if options.get("df") != 2.5:
        # What hardly ever happens is in no sample.
        often = distribution.variance > 1e-2
        error = 6 * (distribution.variance / len(samples)).sqrt()
        assert ((samples.mean(0) - distribution.mean).abs() < error)[often].all()
        # The variance has an error of its own, by the fourth moment; of a t that is infinite.
        if name != "student_t":
            off = (samples - distribution.mean).square()
            error = 6 * (off.var(0) / len(samples)).sqrt()
            assert ((off.mean(0) - distribution.variance).abs() < error)[often].all()
            assert often.any()


@pytest.mark.parametrize(
    "name", ["poisson", "negative_binomial", "zero_inflated_negative_binomial"]
)
def test_counts_have_probabilities_that_sum_to_one(name):
    likelihood = made(name, {})
    counts = torch.arange(3000, dtype=torch.float64)
    output = outputs(likelihood, 1).expand(3000, *outputs(likelihood).shape[1:])
    distribution = likelihood(output).base_dist
    total = distribution.log_prob(counts[:, None, None].expand(-1, *SHAPE)).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_ordinal_is_the_cumulative_model():
    likelihood = OrdinalLikelihood(4).double()
    torch.nn.init.constant_(likelihood.first, -1.0)
    torch.nn.init.constant_(likelihood.gaps, math.log(math.expm1(1.5)))
    eta = torch.randn(6, dtype=torch.float64)
    edges = np.array([-np.inf, -1.0, 0.5, 2.0, np.inf])
    wanted = np.diff(expit(edges - eta.numpy()[:, None]), axis=1)
    got = [likelihood(eta).log_prob(torch.full((6,), k)) for k in range(4)]
    np.testing.assert_allclose(torch.stack(got, 1).exp().detach().numpy(), wanted, rtol=1e-12)


def test_ordinal_classes_begin_equally_likely():
    probs = OrdinalLikelihood(7)(torch.zeros(1)).base_dist.probs
    torch.testing.assert_close(probs, torch.full((1, 7), 1 / 7))


@pytest.mark.parametrize("value", [-1e4, -30.0, 30.0, 1e4])
@pytest.mark.parametrize("name", ["logistic_levels", "ordinal"])
def test_intervals_far_out_keep_their_probability_and_gradient(name, value):
    if name == "ordinal":
        likelihood, x = OrdinalLikelihood(3), torch.tensor([1])
        output = torch.tensor([value], requires_grad=True)
    else:
        likelihood, x = make_likelihood({"name": name, "levels": 8}, (1,)), torch.tensor([[3 / 7]])
        output = torch.tensor([[value]], requires_grad=True)
    log_prob = likelihood(output).log_prob(x)
    log_prob.sum().backward()
    assert log_prob.isfinite().all() and output.grad.isfinite().all()
    assert output.grad.sign().item() == -math.copysign(1, value)


@pytest.mark.parametrize(
    ("name", "x", "message"),
    [
        ("poisson", [1.5], "needs whole numbers >= 0, got 1.5"),
        ("negative_binomial", [-1.0], "needs whole numbers >= 0, got -1"),
        ("poisson", [math.nan], "needs whole numbers >= 0, got nan"),
        ("beta", [0.0], r"needs data in \(0, 1\)"),
        ("continuous_bernoulli", [1.5], r"needs data in \[0, 1\]"),
        ("categorical_levels", [0.123], "needs data on 256 levels k / 255, got 0.123"),
        ("logistic_levels", [2.0], r"needs data in \[0, 1\]"),
        ("laplace", [math.inf], "a Laplace likelihood needs finite data"),
    ],
)
def test_data_that_cannot_be_scored_are_named(name, x, message):
    with pytest.raises(ValueError, match=message):
        make_likelihood(name, (1,)).check(torch.tensor([x]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gauss", "likelihood: got 'gauss', expected one of"),
        ({"scale": 2.0}, "likelihood: got None, expected one of"),
        ({"name": "normal", "sigma": 2.0}, r"normal has no argument \['sigma'\], only \['scale'\]"),
        ({"name": "normal", "scale": -1.0}, "scale: got -1.0, expected > 0"),
        ({"name": "normal", "scale": "fixed"}, "scale: got 'fixed', expected a number > 0"),
        ({"name": "student_t", "df": 0}, "df: got 0, expected > 0"),
        ({"name": "negative_binomial", "dispersion": "x"}, "dispersion: got 'x', expected"),
        ({"name": "logistic_levels", "levels": 1}, "levels: got 1, expected an integer >= 2"),
    ],
)  # fmt: skip
def test_bad_descriptions_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        mlp_modality(4, 2, likelihood=given)


def test_a_decoder_with_too_few_outputs_is_named():
    with pytest.raises(ValueError, match=r"needs a decoder's output \(B, 2, ...\), got \(4, 3\)"):
        make_likelihood({"name": "normal", "scale": "predicted"}, (3,))(torch.zeros(4, 3))
