"""log_prob, sample and distribution of a FastCNF."""

import dataclasses
import importlib.util

import pytest
import torch
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.distributions import FlowDistribution
from mvae_fast.flows import PlanarFlow, SequentialFlow
from mvae_fast.nets.declared import Declared
from mvae_fast.nets.timed import TimedNet
from tests.density.linear import density_of, linear_flow
from tests.oracles import cnf


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-8), (torch.float32, 2e-5)])
@pytest.mark.parametrize("dim", [1, 3, 7])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,), (2, 0, 3), (1, 1)])
def test_the_density_of_a_linear_flow_is_its_gaussian(dtype, bound, dim, batch):
    flow, a = linear_flow(dim, dtype)
    x = torch.randn(*batch, dim, dtype=torch.float64)
    z = x @ torch.linalg.matrix_exp(a).T
    wanted = Normal(0.0, 1.0).log_prob(z).sum(-1) + a.trace()
    got = flow.log_prob(x.to(dtype))
    assert got.dtype == dtype and got.shape == batch
    torch.testing.assert_close(got.double(), wanted, rtol=bound, atol=bound)


def test_the_other_direction_is_that_of_integration_times():
    flow, a = linear_flow()
    x = torch.randn(5, 3, dtype=torch.float64)
    for times in ((1.0, 0.0), torch.tensor([1.0, 0.0], dtype=torch.float64)):
        got = flow.log_prob(x, integration_times=times)
        torch.testing.assert_close(got, density_of(a, reverse=True).log_prob(x))
    z, back = flow.sample(4000, integration_times=(1.0, 0.0)), density_of(a, reverse=True)
    # Of 4000 samples variances are off by sqrt(2 / 4000) = 2 %, covariances of 0 by 0.02: 5 sigma.
    torch.testing.assert_close(z.T.cov(), back.covariance_matrix, rtol=0.1, atol=0.1)


def test_samples_have_the_density():
    flow, a = linear_flow()
    x = flow.sample((40, 100), generator=torch.Generator().manual_seed(0)).flatten(0, 1)
    assert not x.requires_grad
    # 4000 samples know a covariance to sqrt(2 / 4000) = 2 %, by its largest entries.
    covariance = density_of(a).covariance_matrix
    assert (x.T.cov() - covariance).abs().max() < 0.1 * covariance.abs().max()


def test_the_jacobian_by_autograd_says_the_same():
    flow = cnf((8, 7), layer_type="concatsquash", log_det="exact", n_steps=5)
    x = torch.randn(6, 3, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: flow(row.unsqueeze(0))[0]))(x)
    z, unit = flow(x), Normal(0.0, 1.0)
    wanted = unit.log_prob(z).sum(1) + jacobian.slogdet().logabsdet
    torch.testing.assert_close(flow.log_prob(x), wanted, rtol=1e-10, atol=1e-10)


def test_the_density_integrates_to_one():
    flow = cnf((16,), dim=1, n_steps=100, solver="rk4")
    x = torch.linspace(-15, 15, 3001, dtype=torch.float64)
    mass = torch.trapezoid(flow.log_prob(x.unsqueeze(1)).exp(), x)
    assert mass.item() == pytest.approx(1, abs=1e-6)


def test_it_is_the_formula_of_ffjords_scripts():
    flow = cnf()
    x = torch.randn(5, 3, dtype=torch.float64)
    z, delta = flow(x, torch.zeros(5, 1, dtype=torch.float64))
    wanted = Normal(0.0, 1.0).log_prob(z).sum(1, keepdim=True) - delta
    torch.testing.assert_close(flow.log_prob(x), wanted.squeeze(1))


@pytest.mark.skipif(importlib.util.find_spec("zuko") is None, reason="zuko is not installed")
def test_it_is_what_zuko_says():
    from zuko.transforms import FreeFormJacobianTransform

    flow = cnf(solver="dopri5", atol=1e-9, rtol=1e-9)
    net, x = flow.odefunc.diffeq, torch.randn(5, 3, dtype=torch.float64)
    times = {"t0": torch.zeros((), dtype=x.dtype), "t1": torch.ones((), dtype=x.dtype)}
    theirs = FreeFormJacobianTransform(net, phi=tuple(net.parameters()), **times)
    z, ladj = theirs.call_and_ladj(x)
    wanted = Normal(0.0, 1.0).log_prob(z).sum(1) + ladj
    torch.testing.assert_close(flow.log_prob(x), wanted, rtol=0, atol=1e-4)  # their tolerance: 1e-5
    torch.testing.assert_close(
        flow.distribution().transform.inv(z), theirs.inv(z), rtol=0, atol=1e-4
    )


def test_gradients_are_those_of_the_gaussian():
    flow, a = linear_flow()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    a.requires_grad_()
    weight = flow.odefunc.diffeq.layers[0]._layer.weight
    got = torch.autograd.grad(flow.log_prob(x).sum(), [x, weight])
    z = x @ torch.linalg.matrix_exp(a).T
    exact = -0.5 * z.square().sum() + len(x) * a.trace()
    for ours, wanted in zip(got, torch.autograd.grad(exact, [x, a]), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-6)


def test_contexts_are_broadcast():
    flow = cnf_with_context()
    x, context = torch.randn(5, 3).double(), torch.randn(2, 1, 4).double()
    got = flow.log_prob(x, context)
    assert got.shape == (2, 5)
    for i in range(2):
        for j in range(5):
            torch.testing.assert_close(got[i, j], flow.log_prob(x[j], context[i, 0]))
    assert flow.sample((7, 8), context).shape == (7, 8, 2, 1, 3)
    assert flow.sample((), context[0, 0]).shape == (3,)
    assert flow.sample(0, context).shape == (0, 2, 1, 3)


def cnf_with_context(**settings):
    net = ODEnet((8,), (3,), context_dim=4)
    nn.init.normal_(net.context_layers[0].weight)
    return FastCNF(ODEfunc(net), **{"trace": "exact", "n_steps": 4, **settings}).double()


def test_a_base_of_ones_own():
    flow, a = linear_flow()
    x = torch.randn(5, 3, dtype=torch.float64)
    base = MultivariateNormal(torch.ones(3).double(), 4 * torch.eye(3).double())
    z = x @ torch.linalg.matrix_exp(a).T
    torch.testing.assert_close(flow.log_prob(x, base=base), base.log_prob(z) + a.trace())
    parts = Independent(Normal(torch.zeros(2, 3).double(), torch.ones(2, 3).double()), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), parts)  # which has no rsample
    assert flow.sample(6, base=mixture).shape == (6, 3)
    assert not flow.distribution(base=mixture).has_rsample


def test_images_by_the_event_shape_of_the_base():
    net = ODEnet((4,), (1, 4, 4), strides=(1, 1), conv=True)
    flow = FastCNF(ODEfunc(net), trace="exact", n_steps=2)
    base = Independent(Normal(torch.zeros(1, 4, 4), torch.ones(1, 4, 4)), 3)
    x = torch.randn(2, 3, 1, 4, 4)
    z, change = flow(x.flatten(0, 1), torch.zeros(6))
    wanted = (base.log_prob(z) - change).view(2, 3)
    torch.testing.assert_close(flow.log_prob(x, base=base), wanted)
    assert flow.sample(5, base=base).shape == (5, 1, 4, 4)
    with pytest.raises(ValueError, match="base: got None, but FastCNF does not say the size D"):
        flow.sample(5)


class Constant(nn.Module):
    """Weights that no time changes."""

    def forward(self, t):
        return [(torch.ones(len(t), 3, 3), torch.ones(len(t), 3))]


@pytest.mark.parametrize(
    "velocity",
    [
        Declared(nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 3))),
        TimedNet(Constant(), (3, 3), "tanh"),
    ],
)
def test_a_net_that_is_read_says_how_many_dimensions_there_are(velocity):
    flow = FastCNF(ODEfunc(velocity), n_steps=2)
    assert flow.sample(5).shape == (5, 3)
    with pytest.raises(ValueError, match=r"x: got shape \(5, 2\), expected"):
        flow.log_prob(torch.zeros(5, 2))


def test_a_net_that_is_called_does_not():
    net = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    with pytest.raises(ValueError, match="base: got None, but FastCNF does not say the size D"):
        FastCNF.from_module(net).sample(5)


def test_hutchinson_is_the_flows_own_setting_and_exact_is_for_a_call():
    flow = cnf(trace=None)
    exact = cnf()
    exact.load_state_dict(flow.state_dict())
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    assert not torch.equal(flow.log_prob(x), flow.log_prob(x))
    one, two = (flow.log_prob(x, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(flow.log_prob(x, trace="exact"), exact.log_prob(x))
    assert torch.equal(flow.distribution(trace="exact").log_prob(x), exact.log_prob(x))
    settings = dataclasses.replace(flow.settings, n_steps=9)
    exact.n_steps = 9
    assert torch.equal(flow.log_prob(x, trace="exact", settings=settings), exact.log_prob(x))
    assert flow.trace is None


@pytest.mark.parametrize("batch", [(), (5,), (2, 5)])
def test_probes_are_like_the_data(batch):
    flow = cnf(trace="hutchinson")
    x, probes = torch.randn(2, *batch, 3, dtype=torch.float64)
    more = torch.stack((probes, -2 * probes, probes + 1))
    single = torch.stack([flow.log_prob(x, probes=probe) for probe in more])
    torch.testing.assert_close(flow.log_prob(x, probes=more), single.mean(0))
    with pytest.raises(ValueError, match=r"probes: got shape \(4, 4\)"):
        flow.log_prob(x, probes=torch.zeros(4, 4, dtype=torch.float64))


def test_other_flows_are_densities_too():
    parts = [cnf(), PlanarFlow(3, n_flows=2).double(), cnf()]
    chain = SequentialFlow(parts)
    base = Independent(Normal(torch.zeros(3).double(), torch.ones(3).double()), 1)
    p = FlowDistribution(chain, base)
    x = torch.randn(4, 3, dtype=torch.float64)
    z, change = chain(x, torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(p.log_prob(x), Normal(0.0, 1.0).log_prob(z).sum(1) - change)
    assert p.sample((6,)).shape == (6, 3)


def test_torch_func_compile_and_autocast():
    flow = cnf()
    x = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(flow.log_prob)(x), flow.log_prob(x))
    single = cnf().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert single.log_prob(x.bfloat16()).dtype == torch.float32


@pytest.mark.slow
def test_compiled_in_one_graph():
    flow = cnf()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), flow.log_prob(x))


def test_what_does_not_fit_is_named():
    flow = cnf()
    x, context = torch.randn(5, 3).double(), torch.randn(5, 4).double()
    with pytest.raises(TypeError, match="x: got a list"):
        flow.log_prob([0.0])
    with pytest.raises(ValueError, match=r"x: got shape \(5, 4\), expected \(\*, 3\)"):
        flow.log_prob(context)
    with pytest.raises(ValueError, match=r"x: got shape \(\), expected \(\*, 3\)"):
        flow.log_prob(x[0, 0])
    with pytest.raises(ValueError, match=r"x: got torch.float32 on cpu, but the flow is .*float64"):
        flow.log_prob(x.float())
    with pytest.raises(ValueError, match="context: given, expected None"):
        flow.log_prob(x, context)
    wrong = r"context: got shape \(5, 4\), expected .* goes with that of x, \(3,\)"
    with pytest.raises(ValueError, match=wrong):
        cnf_with_context().log_prob(x[:3], context)
    with pytest.raises(ValueError, match="trace: got 'none'"):
        flow.log_prob(x, trace="none")
    with pytest.raises(ValueError, match="integration_times: got 3, expected 2"):
        flow.log_prob(x, integration_times=(0.0, 0.5, 1.0))
    with pytest.raises(ValueError, match="integration_times: got"):
        flow.log_prob(x, integration_times=torch.tensor(1.0))
    with pytest.raises(TypeError, match="base: got a int"):
        flow.log_prob(x, base=3)
    with pytest.raises(ValueError, match=r"base: got event_shape \(\), with batch_shape \(3,\)"):
        flow.log_prob(x, base=Normal(torch.zeros(3), torch.ones(3)))
    with pytest.raises(ValueError, match="shape: got -1, expected an integer >= 0"):
        flow.sample(-1)
    base = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    with pytest.raises(ValueError, match="generator: given, but a MultivariateNormal takes none"):
        flow.sample(4, base=base, generator=torch.Generator())
