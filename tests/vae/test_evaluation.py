import copy
import math

import pytest
import torch

from mvae_fast.vae import cnf_posterior, evaluate
from mvae_fast.vae.elbo import posteriors
from mvae_fast.vae.evaluation import CONVENTIONS
from tests.vae.models import AffineFlow, bimodal, data, trimodal

ALL = ("image", "label", "sound")


def test_entries_are_the_terms_of_the_bounds():
    model = bimodal(AffineFlow())
    result = evaluate(model, [(data(), {})], n_samples=3)
    assert set(result) == {
        *(f"elbo/{name}" for name in ("joint", "image", "label")),
        *(f"kl/{name}" for name in ("joint", "image", "label")),
        *("nll/joint/image", "nll/joint/label", "nll/image", "nll/label", "log_det_error"),
    }
    value = {key: mean for key, (mean, _) in result.items()}
    assert value["elbo/joint"] == pytest.approx(
        value["nll/joint/image"] + value["nll/joint/label"] + value["kl/joint"], rel=1e-5
    )
    assert value["elbo/label"] == pytest.approx(value["nll/label"] + value["kl/label"], rel=1e-5)


def test_values_are_those_of_elbo():
    model = bimodal(AffineFlow())
    x = data()
    paper = evaluate(model, [(x, None)], "paper")
    wanted = -model.elbo(x, at="mean").double()
    assert paper["elbo/joint"][0] == pytest.approx(wanted.mean().item(), rel=1e-6)
    assert paper["elbo/joint"][1] == pytest.approx(wanted.std().item() / 7**0.5, rel=1e-5)
    image = -model.elbo({"image": x["image"]}, at="mean").double()
    assert paper["elbo/image"][0] == pytest.approx(image.mean().item(), rel=1e-6)


def test_batches_do_not_matter_at_the_mean():
    model = trimodal(AffineFlow())
    x = data(7, ("image", "label", "sound"))
    whole = evaluate(model, [(x, {})], "paper")
    parts = [({k: v[a:b] for k, v in x.items()}, {}) for a, b in ((0, 3), (3, 7))]
    parted = evaluate(model, parts, "paper")
    assert list(parted) == list(whole)
    for key in whole:
        assert parted[key] == pytest.approx(whole[key], rel=1e-5), key


def test_rows_without_a_modality_are_left_out_of_its_average():
    model = bimodal()
    x = data()
    mask = {"label": torch.tensor([True] * 3 + [False] * 4)}
    first = {name: value[:3] for name, value in x.items()}
    some = evaluate(model, [(x, mask)], "paper")
    for key in ("elbo/joint", "elbo/label", "nll/joint/image", "kl/joint"):
        assert some[key] == pytest.approx(evaluate(model, [(first, {})], "paper")[key], rel=1e-6)
    assert some["elbo/image"] == pytest.approx(evaluate(model, [(x, {})], "paper")["elbo/image"])


def test_seed_decides():
    model = bimodal(AffineFlow())
    one, two, other = (evaluate(model, [(data(), {})], seed=seed) for seed in (0, 0, 1))
    assert one == two != other


def test_every_module_is_left_in_the_mode_it_had():
    model = bimodal(AffineFlow()).train()
    model.modalities["image"].encoder.eval()
    before = [part.training for part in model.modules()]
    seen = []
    model.flow.register_forward_hook(lambda flow, *_: seen.append(flow.training))
    evaluate(model, [(data(), {})])
    assert seen and not any(seen)
    assert [part.training for part in model.modules()] == before
    with pytest.raises(ValueError, match="unknown modalities"):
        evaluate(model, [({"smell": torch.zeros(7)}, {})])
    assert [part.training for part in model.modules()] == before


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_flow_that_trains_with_hutchinsons_noise_is_evaluated_without(convention):
    flow = cnf_posterior(5, hidden=[8], trace="hutchinson")
    model, batches = bimodal(flow), [(data(), {})] * 2
    noisy = evaluate(model, batches, convention, n_samples=2)
    assert flow.trace == "hutchinson"
    flow.trace = "exact"
    assert evaluate(model, batches, convention, n_samples=2) == noisy


@pytest.mark.parametrize("convention", ["elbo", "iwae"])
def test_with_the_trace_asked_for_it_is_the_flows_own(convention):
    flow = cnf_posterior(5, hidden=[8], trace="hutchinson")
    model, batches = bimodal(flow), [(data(), {})]
    own = evaluate(model, batches, convention, n_samples=2, log_det="trace")
    assert evaluate(model, batches, convention, n_samples=2, log_det="trace") == own
    flow.trace = "exact"
    assert evaluate(model, batches, convention, n_samples=2, log_det="trace") != own


def test_models_with_and_without_a_flow_see_the_same_noise():
    """A flow that does nothing changes nothing, in later batches neither."""
    flow = AffineFlow()
    with torch.no_grad():
        flow.log_scale.zero_()
        flow.shift.zero_()
    batches = [(data(), {})] * 3
    for convention in ("elbo", "iwae"):
        with_flow = evaluate(bimodal(flow), batches, convention, n_samples=2)
        without = evaluate(bimodal(), batches, convention, n_samples=2)
        for key, value in without.items():
            assert with_flow[key] == pytest.approx(value, rel=1e-5), key


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="convention: got .*, expected one of"):
        evaluate(bimodal(), [(data(), {})], "bound")
    with pytest.raises(ValueError, match="at least one batch"):
        evaluate(bimodal(), [])
    with pytest.raises(ValueError, match="log_det: got .*, expected one of"):
        evaluate(bimodal(), [(data(), {})], log_det="second_order")


def test_a_flow_whose_log_det_is_exact_needs_no_correction():
    model = bimodal(AffineFlow())
    result = evaluate(model, [(data(), {})], seed=3)
    assert result["log_det_error"] == pytest.approx((0.0, 0.0), abs=1e-6)
    trace = evaluate(model, [(data(), {})], log_det="trace", seed=3)
    assert "log_det_error" not in trace
    assert result["elbo/joint"][0] == pytest.approx(trace["elbo/joint"][0], rel=1e-6)


@pytest.mark.parametrize("convention", ["elbo", "iwae"])
def test_an_adaptive_flow_has_no_exact_log_det(convention):
    flow = cnf_posterior(5, hidden=[8], solver="dopri8")
    model, batches = bimodal(flow), [(data(), {})]
    with pytest.raises(ValueError, match="log_det: 'exact' is that of the steps"):
        evaluate(model, batches, convention, n_samples=2)
    available = evaluate(model, batches, convention, n_samples=2, log_det="available")
    trace = evaluate(model, batches, convention, n_samples=2, log_det="trace")
    error = available.pop("log_det_error", None)
    assert available == trace
    assert all(map(math.isnan, error)) if convention == "elbo" else error is None


def test_available_means_exact_where_there_is_one():
    model, batches = one_large_step(), [(data(), {})]
    assert evaluate(model, batches, log_det="available") == evaluate(model, batches)


def with_exact_steps(model):
    """A model like it whose flow has the log-determinant of its steps in place of a trace."""
    model = copy.deepcopy(model)
    model.flow.log_det = model.flow.trace = "exact"
    return model


def one_large_step(make=bimodal):
    torch.manual_seed(1)
    flow = cnf_posterior(5, hidden=[16], T=2.0, n_steps=1)
    with torch.no_grad():
        for p in flow.parameters():
            p.mul_(3.0)
    return make(flow)


@pytest.mark.parametrize("convention", ["elbo", "iwae"])
def test_the_correction_is_that_of_the_first_sample(convention):
    """With one sample it is exact, in later batches too and for models in double precision."""
    model = one_large_step(trimodal).double()
    batches = [(data(7, ALL, torch.float64), {})] * 2
    result = evaluate(model, batches, convention, n_samples=1)
    trace = evaluate(model, batches, convention, n_samples=1, log_det="trace")
    exact = with_exact_steps(model)
    wanted = evaluate(exact, batches, convention, n_samples=1, log_det="trace")
    for key in wanted:
        assert result[key] == pytest.approx(wanted[key], rel=1e-9), key
    moved = [key for key in wanted if not key.startswith("nll/") and "|" not in key]
    assert all(abs(wanted[key][0] - trace[key][0]) > 0.01 for key in moved)


def test_of_several_samples_the_first_is_corrected():
    model = one_large_step().double()
    x = data(dtype=torch.float64)
    several = evaluate(model, [(x, {})], n_samples=3)
    x, present = model.prepare(x, None)
    experts = model.experts(x, present)
    posterior, *_ = posteriors(experts, model.flow, present, torch.tensor([[True, True]]))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 3, 7, 5, dtype=torch.float64, generator=generator)[0, 0]
    exact = posterior.transport_noise(noise, log_det="exact")[1]
    error = exact - posterior.transport_noise(noise)[1]
    assert several["log_det_error"][0] == pytest.approx(error.mean().item(), rel=1e-9)


@pytest.mark.parametrize("logvar", [-60.0, -300.0])
def test_all_but_certain_posteriors_are_measured(logvar):
    model, x = one_large_step(), data()
    with torch.no_grad():
        for modality in model.modalities.values():
            modality.encoder.net[-1].linear.weight[5:] = 0.0
            modality.encoder.net[-1].linear.bias[5:] = logvar
    for convention in CONVENTIONS:
        for key, value in evaluate(model, [(x, {})], convention, n_samples=2).items():
            assert all(map(math.isfinite, value)), (convention, key)
    posterior = model.encode(x)
    exact = posterior.transport(posterior.loc, log_det="exact")[1]
    wanted = (exact - posterior.transport(posterior.loc)[1]).mean().item()
    got = evaluate(model, [(x, {})], n_samples=2)["log_det_error"][0]
    assert got == pytest.approx(wanted, abs=1e-3)


def test_corrected_importance_weights_are_near_exact_ones():
    model, batches = one_large_step(), [(data(300), {})]
    result = evaluate(model, batches, "iwae", n_samples=50)
    trace = evaluate(model, batches, "iwae", n_samples=50, log_det="trace")
    wanted = evaluate(with_exact_steps(model), batches, "iwae", n_samples=50, log_det="trace")
    for key in ("iwae/joint", "iwae/image", "iwae/label"):
        error, uncorrected = (abs(r[key][0] - wanted[key][0]) for r in (result, trace))
        assert error < 0.3 * uncorrected, key


@pytest.mark.parametrize("make", [bimodal, trimodal])
def test_conventions_share_the_log_determinants(make, monkeypatch):
    """Factorised once; the correction, of another sample, is unbiased all the same."""
    model = one_large_step(make)
    x = data(9, tuple(model.modalities))
    parts = [({k: v[a:b] for k, v in x.items()}, {}) for a, b in ((0, 4), (4, 9))]
    own = evaluate(model, [(x, {})], n_samples=2)
    errors = {}
    iwae = evaluate(model, parts, "iwae", n_samples=3, log_det_errors=errors)
    assert iwae == evaluate(model, parts, "iwae", n_samples=3)
    assert all(len(error) == 9 for error in errors.values())
    monkeypatch.setattr(torch.linalg, "slogdet", None)
    monkeypatch.setattr(torch.ops.mvae_fast, "log_det", None, raising=False)
    elbo = evaluate(model, [(x, {})], n_samples=2, log_det_errors=errors)
    trace = evaluate(model, [(x, {})], n_samples=2, log_det="trace")
    assert elbo.keys() == own.keys()
    everything = tuple(range(len(model.modalities)))
    mean = errors[everything].double().mean().item()
    assert elbo["log_det_error"][0] == pytest.approx(mean, rel=1e-6)
    assert elbo["elbo/joint"][0] == pytest.approx(trace["elbo/joint"][0] + mean, rel=1e-6)
    few = {name: value[:8] for name, value in x.items()}
    for batches, count in (([(few, {})], "8"), ([(few, {}), (few, {})], "at least 16")):
        with pytest.raises(ValueError, match=f"got those of 9 rows, but there are {count}"):
            evaluate(model, batches, n_samples=2, log_det_errors=errors)


@pytest.mark.slow
def test_elbo_has_the_log_det_of_the_steps_and_not_the_trace():
    """Unbiased: with many samples the corrected ELBO is that of exact log-determinants."""
    model, batches = one_large_step(), [(data(), {})]
    trace = evaluate(model, batches, n_samples=4000, log_det="trace")
    assert model.flow.log_det == "trace"
    wanted = evaluate(with_exact_steps(model), batches, n_samples=4000, log_det="trace")
    # One correction a row is noisy: average over many repetitions of the rows.
    rows = {name: value.repeat(20_000, *[1] * (value.dim() - 1)) for name, value in data().items()}
    result = evaluate(model, [(rows, {})], n_samples=1)
    for key in ("elbo/joint", "elbo/image", "elbo/label"):
        error = abs(result[key][0] - wanted[key][0])
        assert error < 4 * result[key][1] + 0.02
        assert error < 0.3 * abs(trace[key][0] - wanted[key][0]), key
    assert result["log_det_error"][0] == pytest.approx(
        wanted["kl/joint"][0] - trace["kl/joint"][0], abs=0.05
    )


def exact_log_likelihood(model, x):
    """log p(x) of a model with a two-dimensional latent, on a grid."""
    axis = torch.linspace(-7, 7, 281, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    log_p = -0.5 * z.square().sum(1) - torch.log(torch.tensor(2 * torch.pi))
    likelihoods = model.decode(z.float())
    values = []
    for i in range(len(next(iter(x.values())))):
        terms = [
            likelihoods[k].log_prob(v[i : i + 1].expand(len(z), *v.shape[1:])) for k, v in x.items()
        ]
        values.append((sum(terms).double() + log_p).logsumexp(0) + 2 * (axis[1] - axis[0]).log())
    return torch.stack(values)


@pytest.mark.parametrize("flow", [None, AffineFlow])
@pytest.mark.slow
def test_importance_samples_near_the_exact_likelihood(flow):
    torch.manual_seed(0)
    model = bimodal(flow and flow(2), dim=2)
    with torch.no_grad():  # a posterior wider than the true one: weights of finite variance
        for modality in model.modalities.values():
            modality.encoder.net[-1].linear.bias[2:] = 3.0
        if flow:
            model.flow.log_scale.copy_(torch.tensor([0.1, 0.3]))
            model.flow.shift.mul_(0.3)
    x = data()
    exact = {
        "joint": exact_log_likelihood(model, x),
        **{name: exact_log_likelihood(model, {name: x[name]}) for name in x},
    }
    result = evaluate(model, [(x, {})], "iwae", n_samples=20_000)
    for label, wanted in exact.items():
        assert result[f"iwae/{label}"][0] == pytest.approx(-wanted.mean().item(), abs=0.02)
    given = exact["joint"] - exact["label"]
    assert result["iwae/image|rest"][0] == pytest.approx(-given.mean().item(), abs=0.03)
    assert result["iwae/joint"][0] < evaluate(model, [(x, {})])["elbo/joint"][0]


def test_conditionals_of_three_modalities_are_given_all_others():
    model = trimodal()
    x = data(7, ALL)
    result = evaluate(model, [(x, {})], "iwae", n_samples=5)
    assert set(result) == {
        *(f"iwae/{name}" for name in ("joint", "image", "label", "sound")),
        *(f"iwae/{name}|rest" for name in ("image", "label", "sound")),
    }


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_names_of_modalities_are_only_names(convention):
    plain, odd = trimodal(), trimodal()
    names = {"image": "-sound", "label": "rest", "sound": "nll"}
    odd.modalities = torch.nn.ModuleDict({names[k]: m for k, m in plain.modalities.items()})
    x = data(7, ALL)
    wanted = evaluate(plain, [(x, {})], convention, n_samples=2)
    result = evaluate(odd, [({names[k]: v for k, v in x.items()}, {})], convention, n_samples=2)
    assert list(result.values()) == list(wanted.values())


def test_conditionals_are_differences_in_rows_that_have_everything():
    model, x = trimodal(), data(7, ALL)
    mask = {
        "image": torch.tensor([True, True, True, True, True, False, True]),
        "sound": torch.tensor([True, True, True, False, True, True, False]),
    }
    result = evaluate(model, [(x, mask)], "iwae", n_samples=5, seed=4)
    conditions = [ALL, *((name,) for name in ALL), *(tuple(n for n in ALL if n != m) for m in ALL)]
    terms = model.terms(
        *model.prepare(x, mask),
        torch.tensor([[name in condition for name in ALL] for condition in conditions]),
        n_samples=5,
        generator=torch.Generator().manual_seed(4),
    )
    values = terms.elbo().exp().mean(dim=0).log().double()
    log_p = dict(zip(conditions, values, strict=True))
    whole = mask["image"] & mask["sound"]
    for name, rest in (
        ("image", ("label", "sound")),
        ("label", ("image", "sound")),
        ("sound", ("image", "label")),
    ):
        given = (log_p[rest] - log_p[ALL])[whole]
        wanted = (given.mean().item(), given.std().item() / 2)
        assert result[f"iwae/{name}|rest"] == pytest.approx(wanted, rel=1e-5), name
