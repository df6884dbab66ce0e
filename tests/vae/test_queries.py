"""Imputation, embedding and scores against a linear-Gaussian model, known in closed form."""

import math
from typing import get_args

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from mvae_fast.vae import MVAE, Modality, NormalLikelihood, build_mvae
from mvae_fast.vae.inference.aggregation import AggregationName
from tests.vae.models import AffineFlow, bimodal, data, trimodal

NOISE = 0.5


class LinearEncoder(nn.Module):
    """The likelihood of z, which is Gaussian and, for orthogonal columns of W, diagonal."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x):
        precision = self.weight.square().sum(0) / NOISE**2
        mean = (x - self.bias) @ self.weight / NOISE**2 / precision
        return mean, -precision.log().expand_as(mean)


def made(aggregation="product"):
    """A linear-Gaussian model, whose product of experts is exact, and its weights and biases."""
    torch.manual_seed(0)
    modalities, known = {}, {}
    for name, size in (("a", 4), ("b", 3), ("c", 5)):
        weight = torch.linalg.qr(torch.randn(size, 2, dtype=torch.double))[0] * torch.rand(2) * 2
        bias = torch.randn(size, dtype=torch.double)
        decoder = nn.Linear(2, size, dtype=torch.double)
        with torch.no_grad():
            decoder.weight.copy_(weight)
            decoder.bias.copy_(bias)
        modalities[name] = Modality(
            LinearEncoder(weight, bias), decoder, NormalLikelihood(NOISE), shape=(size,)
        )
        known[name] = weight, bias
    return MVAE(modalities, 2, aggregation=aggregation), known


@pytest.fixture
def linear():
    return made()


def joint(known, names):
    weight = torch.cat([known[name][0] for name in names])
    bias = torch.cat([known[name][1] for name in names])
    covariance = weight @ weight.T + NOISE**2 * torch.eye(len(bias))
    return MultivariateNormal(bias, covariance)


def rows_of(known, n=6):
    drawn = joint(known, known).sample((n,))
    sizes = [len(bias) for _, bias in known.values()]
    return dict(zip(known, drawn.split(sizes, dim=1), strict=True))


def test_a_score_is_the_density(linear):
    model, known = linear
    x = rows_of(known)
    found = model.score(x, n_samples=100)
    wanted = joint(known, known).log_prob(torch.cat(list(x.values()), 1))
    torch.testing.assert_close(found.log_prob, wanted)
    # The posterior is exact: all weights are equal.
    torch.testing.assert_close(found.effective_samples, torch.full_like(wanted, 100.0))


@pytest.mark.parametrize(("of", "given"), [("a", None), ("a", ["b"]), (["a", "c"], "b")])
def test_a_score_given_others_is_the_conditional_density(linear, of, given):
    model, known = linear
    x = rows_of(known)
    top, below = [of] if isinstance(of, str) else of, list(given or [])

    def log_prob(names):
        return joint(known, names).log_prob(torch.cat([x[name] for name in names], 1))

    wanted = log_prob([*top, *below]) - (log_prob(below) if below else 0)
    torch.testing.assert_close(model.score(x, of=of, given=given, n_samples=3).log_prob, wanted)


def test_a_row_is_scored_by_what_it_has(linear):
    model, known = linear
    x = rows_of(known, 3)
    mask = {"b": torch.tensor([True, False, False]), "a": torch.tensor([True, True, False])}
    score = model.score(x, mask, of=["a", "b"], given="c", n_samples=2).log_prob
    for row, names in ((0, ["a", "b"]), (1, ["a"])):
        one = {name: rows[row : row + 1] for name, rows in x.items()}
        torch.testing.assert_close(
            score[row : row + 1], model.score(one, of=names, given="c", n_samples=2).log_prob
        )
    assert score[2].isnan()
    # Given nothing, a conditional score is the marginal one.
    mask = {"c": torch.zeros(3, dtype=torch.bool)}
    torch.testing.assert_close(
        model.score(x, mask, of="a", given="c", n_samples=2).log_prob,
        model.score(x, of="a", n_samples=2).log_prob,
    )


def test_imputed_is_the_conditional_mean_and_spread(linear):
    model, known = linear
    x = rows_of(known)
    (weight_a, bias_a), (weight_c, bias_c) = known["a"], known["c"]
    precision = torch.eye(2) + weight_a.T @ weight_a / NOISE**2
    covariance = precision.inverse()
    latent = (x["a"] - bias_a) @ weight_a / NOISE**2 @ covariance
    mean = latent @ weight_c.T + bias_c
    std = ((weight_c @ covariance @ weight_c.T).diagonal() + NOISE**2).sqrt()
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    done = model.impute({"a": x["a"]}, n_samples=n, generator=generator)
    assert (done.values["c"] - mean).abs().max() < 5 / math.sqrt(n)
    assert (done.uncertainty["c"] - std).abs().max() < 5 / math.sqrt(n)
    torch.testing.assert_close(model.embed({"a": x["a"]}), latent)


@pytest.mark.parametrize("aggregation", get_args(AggregationName))
def test_any_aggregation_is_right_with_weights(aggregation):
    model, known = made(aggregation)
    x = rows_of(known, 4)
    generator = torch.Generator().manual_seed(0)
    found = model.score(x, n_samples=20_000, generator=generator)
    wanted = joint(known, known).log_prob(torch.cat(list(x.values()), 1))
    assert (found.effective_samples > 200).all()
    assert (found.log_prob - wanted).abs().max() < 5 / found.effective_samples.min().sqrt()
    given = joint(known, ["a", "b", "c"])
    size = len(known["c"][1])
    covariance = given.covariance_matrix
    gain = covariance[-size:, :-size] @ covariance[:-size, :-size].inverse()
    rest = torch.cat([x["a"] - known["a"][1], x["b"] - known["b"][1]], 1)
    mean = known["c"][1] + rest @ gain.T
    std = (covariance[-size:, -size:] - gain @ covariance[:-size, -size:]).diagonal().sqrt()
    rows = {name: x[name] for name in ("a", "b")}
    done = model.impute(rows, n_samples=4000, weighted=True, generator=generator)
    assert (done.values["c"] - mean).abs().max() < 0.1
    assert (done.uncertainty["c"] - std).abs().max() < 0.1


@pytest.mark.parametrize("weighted", [False, True])
def test_imputing_keeps_what_is_there(weighted):
    model = trimodal(AffineFlow()).train()
    x = data(7, ("image", "label"))
    here = torch.arange(7) < 4
    x["image"] = torch.where(here[:, None, None], x["image"], torch.nan)
    masks = {"image": here, "label": ~here}
    done = model.impute(x, masks, n_samples=3, weighted=weighted)
    assert model.training
    assert torch.equal(done.values["image"][:4], x["image"][:4])
    assert torch.equal(done.values["label"][4:], x["label"][4:])
    assert (done.uncertainty["image"][:4] == 0).all() and (done.uncertainty["image"][4:] > 0).all()
    assert (done.uncertainty["label"][4:] == 1).all() and (done.uncertainty["label"][:4] < 1).all()
    assert done.values["label"].dtype == torch.int64
    assert all(value.isfinite().all() for value in done.values.values())
    assert done.filled["sound"].all() and done.values["sound"].shape == (7, 6)
    assert torch.equal(done.filled["image"], ~here)


def test_nothing_is_missing():
    x = data()
    done = bimodal().impute(x)
    assert all(torch.equal(done.values[name], x[name]) for name in x)
    assert (done.uncertainty["image"] == 0).all() and (done.uncertainty["label"] == 1).all()


def test_a_flow_with_a_known_map_has_the_score_of_evaluation():
    model = bimodal(AffineFlow())
    x = data()
    one, many = (
        model.score(x, n_samples=n, generator=torch.Generator().manual_seed(0)) for n in (1, 500)
    )
    assert many.log_prob.mean() > one.log_prob.mean()
    assert ((many.effective_samples >= 1) & (many.effective_samples <= 500)).all()
    assert torch.allclose(one.effective_samples, torch.ones(7))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"of": "imgae"}, "did you mean image"),
        ({"given": ["label", "x"]}, "given: got 'x'"),
        ({"of": "image", "given": "image"}, "of: got ['image'], expected modalities that are not"),
        ({"given": ["image", "label"]}, "expected to leave some to score"),
        ({"n_samples": 0}, "n_samples"),
    ],
)
def test_a_score_that_cannot_be(arguments, told):
    with pytest.raises(ValueError) as error:
        bimodal().score(data(), **arguments)
    assert told in str(error.value)


def test_standardised_data_have_densities_in_their_own_units():
    description = {"type": "mlp", "shape": [2], "hidden": 4, "likelihood": "normal"}
    units = {"mean": [10.0, -3.0], "std": [4.0, 0.1]}

    def model(**more):
        torch.manual_seed(0)
        return build_mvae({"latent_dim": 2, "modalities": {"x": {**description, **more}}})

    plain, own = model(), model(standardize=units)
    y = torch.randn(5, 2)
    x = y * torch.tensor(units["std"]) + torch.tensor(units["mean"])
    torch.testing.assert_close(own.embed({"x": x}), plain.embed({"x": y}), rtol=1e-4, atol=1e-4)
    z = torch.randn(5, 2)
    ours, theirs = own.decode(z)["x"], plain.decode(z)["x"]
    jacobian = math.log(4.0) + math.log(0.1)
    torch.testing.assert_close(
        ours.log_prob(x), theirs.log_prob(y) - jacobian, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        ours.mean, theirs.mean * torch.tensor([4.0, 0.1]) + torch.tensor([10.0, -3.0])
    )
    torch.testing.assert_close(ours.stddev, theirs.stddev * torch.tensor([4.0, 0.1]))
    drawn = ours.sample((4000,))
    assert (drawn.mean(0) - ours.mean).abs().max() < 5 * 4 / math.sqrt(4000)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"standardize": True}, "standardize: got True, expected a mapping of mean and std"),
        ({"standardize": {"mean": 0.0}}, "expected a mapping of mean and std"),
        ({"standardize": {"mean": 0.0, "std": [1.0, 0.0]}}, "standardize.std: got [1.0, 0.0]"),
        ({"standardize": {"mean": [0.0] * 3, "std": 1.0}}, "standardize.mean: got [0.0, 0.0, 0.0]"),
        ({"standardize": {"mean": "m", "std": 1.0}}, "standardize.mean: got 'm'"),
        ({"standardize": {"mean": 0, "std": 1}, "likelihood": "poisson"}, "PoissonLikelihood()"),
    ],
)
def test_standardising_that_cannot_be(change, told):
    described = {"type": "mlp", "shape": [2], "likelihood": "normal", **change}
    with pytest.raises(ValueError) as error:
        build_mvae({"latent_dim": 2, "modalities": {"x": described}})
    assert told in str(error.value)
