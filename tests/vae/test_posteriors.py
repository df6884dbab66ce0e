"""Every flow as the posterior of a model: by name, in training, in evaluation."""

import json

import pytest
import torch

from mvae_fast import FastCNF
from mvae_fast.distributions import FlowPosterior
from mvae_fast.flows import SequentialFlow
from mvae_fast.vae import build_mvae, load_mvae, save_mvae
from mvae_fast.vae.builders.posteriors import FLOWS, cnf_posterior
from tests.flows.kinds import log_det
from tests.vae.models import AffineFlow

D = 6
CNF = {"hidden": [9], "n_steps": 3}
#: Every name, and every option that makes another flow of it.
SPECS = [
    {"type": "cnf", **CNF},
    {"type": "cnf", **CNF, "n_blocks": 2},
    {"type": "cnf", **CNF, "log_det": "exact"},
    {"type": "cnf", **CNF, "adjoint": True, "trace": "hutchinson", "n_probes": 2},
    {"type": "planar", "n_flows": 3},
    {"type": "planar", "n_flows": 3, "amortized": False},
    {"type": "sylvester", "n_flows": 2},
    {"type": "sylvester", "n_flows": 2, "variant": "householder", "n_householder": 3},
    {"type": "sylvester", "n_flows": 2, "variant": "triangular", "amortized": False},
    {"type": "iaf", "n_flows": 2, "hidden": [11]},
    {"type": "iaf", "n_flows": 2, "hidden": [11], "amortized": False},
    {"type": "cnf_bias", **CNF},
    {"type": "cnf_rank", **CNF, "rank": 2},
    {"type": "cnf_rank", **CNF, "n_blocks": 2},
]
specs = pytest.mark.parametrize("spec", SPECS, ids=lambda s: "-".join(map(str, s.values())))


def build(spec):
    torch.manual_seed(0)
    config = {
        "latent_dim": D,
        "modalities": {
            "image": {"type": "mlp", "shape": [3, 4], "hidden": 8},
            "label": {"type": "label", "num_classes": 4, "hidden": 8, "weight": 50.0},
        },
        "flow": spec,
    }
    return build_mvae(json.loads(json.dumps(config)))


def data():
    return {"image": torch.rand(5, 3, 4), "label": torch.arange(5) % 4}


def posterior(flow, rows=3, dtype=torch.float64):
    mean, logvar = torch.randn(2, rows, D, dtype=dtype)
    return FlowPosterior(mean, logvar, flow)


def test_every_name_is_tested():
    assert {spec["type"] for spec in SPECS} == set(FLOWS)


@specs
def test_a_model_trains_a_step(spec):
    model = build(spec)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    mask = {"label": torch.tensor([True, True, False, True, False])}
    before = model.loss(data(), mask, generator=torch.Generator().manual_seed(1))
    before.backward()
    for name, parameter in model.flow.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    optimizer.step()
    after = model.loss(data(), mask, generator=torch.Generator().manual_seed(1))
    assert after.isfinite() and after != before


@specs
@pytest.mark.slow
def test_a_model_comes_back_from_a_file(spec, tmp_path):
    model = build(spec).eval()
    save_mvae(model, tmp_path / "model.pt")
    loaded = load_mvae(tmp_path / "model.pt")
    x = data()

    def elbo(m):
        torch.manual_seed(2)
        return m.elbo(x, generator=torch.Generator().manual_seed(2))

    assert torch.equal(elbo(model), elbo(loaded))


@specs
@pytest.mark.slow
def test_shapes_with_samples_and_rows(spec):
    q = posterior(build(spec).flow.double())
    z, logp = q.rsample_and_log_prob((4, 2))
    assert z.shape == (4, 2, 3, D) and logp.shape == (4, 2, 3)
    assert q.rsample().shape == (3, D)
    assert q.log_prob(z).shape == (4, 2, 3)
    empty = FlowPosterior(q.loc[:0], q.logvar[:0], q.flow)
    z, logp = empty.rsample_and_log_prob((4,))
    assert z.shape == (4, 0, D) and logp.shape == (4, 0)


@specs
@pytest.mark.slow
def test_log_prob_is_that_of_the_samples(spec):
    flow = build(spec).flow.double()
    if spec["type"].startswith("cnf"):
        for part in flow.modules():
            if hasattr(part, "n_steps"):
                part.n_steps, part.solver, part.trace = 80, "rk4", "exact"
    q = posterior(flow)
    z, logp = q.rsample_and_log_prob((4,))
    torch.testing.assert_close(q.log_prob(z), logp, rtol=0, atol=1e-7)


@specs
def test_exact_change_is_that_of_the_map(spec):
    flow = build(spec).flow.double().eval()
    q = posterior(flow)
    z0 = q.loc
    extra = {} if q.cond is None else {"cond": q.cond}
    for part in flow.modules():
        if isinstance(part, FastCNF):
            part.adjoint = False  # autograd would see the adjoint's own Jacobian
    expected = log_det(flow, z0, extra)
    _, log_q = q.transport(z0, log_det="exact")
    change = log_q - q.base_dist.log_prob(z0)
    torch.testing.assert_close(change, -expected, rtol=0, atol=1e-10)


@specs
def test_each_row_has_its_own_condition(spec):
    flow = build(spec).flow.double()
    q = posterior(flow)
    z0 = torch.randn(4, 3, D, dtype=torch.float64)
    torch.manual_seed(0)
    z, logp = q.transport(z0)
    if spec.get("trace") == "hutchinson":
        logp = None  # each call has noise of its own
    for i in range(3):
        alone = FlowPosterior(q.loc[i : i + 1], q.logvar[i : i + 1], flow)
        z_i, logp_i = alone.transport(z0[:, i : i + 1])
        torch.testing.assert_close(z_i, z[:, i : i + 1], rtol=0, atol=1e-12)
        if logp is not None:
            torch.testing.assert_close(logp_i, logp[:, i : i + 1], rtol=0, atol=1e-12)


def test_the_condition_is_mean_and_log_variance():
    q = posterior(FLOWS["planar"](D))
    assert torch.equal(q.cond, torch.cat((q.loc, q.logvar), 1))
    assert posterior(None).cond is None
    assert posterior(AffineFlow(D)).cond is None
    assert posterior(cnf_posterior(D)).cond is None


def test_gradients_reach_the_encoder_through_the_condition():
    q = posterior(FLOWS["cnf_bias"](D, hidden=(7,)).double())
    q.loc.requires_grad_()
    # z_0 does not depend on the mean here: only the condition does.
    z, _ = q.transport(torch.zeros(3, D, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(z.sum(), q.loc)
    assert gradient.any(1).all()


def test_another_size_of_condition_is_named():
    with pytest.raises(ValueError, match="flow has cond_dim=10, expected 0 or 2 D = 12"):
        posterior(FLOWS["planar"](5))


def test_one_block_keeps_its_keys_and_several_have_ffjords():
    one, two = cnf_posterior(D), cnf_posterior(D, n_blocks=2)
    assert isinstance(one, FastCNF) and isinstance(two, SequentialFlow)
    assert set(two.state_dict()) == {f"chain.{i}.{key}" for i in (0, 1) for key in one.state_dict()}
    assert "odefunc.diffeq.layers.0._layer.weight" in one.state_dict()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "cnf", "n_blocks": 0}, "n_blocks: got 0, expected an integer >= 1"),
        ({"type": "cnf_bias", "rank": 2}, "flow: .*rank"),
        ({"type": "planar", "amortised": True}, "flow: .*amortised"),
        ({"type": "sylvester", "variant": "odd"}, "variant: got 'odd'"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(ValueError, match=message):
        build(spec)
