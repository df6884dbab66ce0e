"""Exact traces and the log-determinant of the steps, asked for in one call of any flow."""

import copy

import pytest
import torch
from torch import nn

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.distributions import FlowPosterior
from mvae_fast.flows import AmortizedCNF, PlanarFlow, SequentialFlow, has_exact_log_det
from mvae_fast.flows.base import arguments
from tests.flows.kinds import COND, inputs, log_det


def cnf(**settings):
    settings = {"n_steps": 2, **settings}
    return FastCNF(ODEfunc(ODEnet((5,), (3,), layer_type="squash")), **settings).double()


def settings_of(flow):
    names = ("log_det", "trace", "engine", "adjoint", "precision", "n_steps", "solver")
    return [
        {name: getattr(part, name) for name in names if hasattr(part, name)}
        for part in flow.modules()
    ]


def amortised(**settings):
    return AmortizedCNF(3, COND, (5,), n_steps=2, **settings).double()


def asked(flow, z, logp, cond, **exact):
    return flow(z, logp, **cond, **arguments(flow, **exact))


FLOWS = {
    "exact": lambda: cnf(trace="exact"),
    "hutchinson": lambda: cnf(trace="hutchinson", n_probes=3),
    "follow": lambda: cnf(trace=None),
    "adjoint": lambda: cnf(adjoint=True),
    "midpoint": lambda: cnf(solver="midpoint"),
    "engine": lambda: cnf(engine="reference"),
    "bias": amortised,
    "rank": lambda: amortised(kind="rank", trace="hutchinson"),
    "chain": lambda: SequentialFlow([cnf(), PlanarFlow(3, 2).double(), amortised()]),
    "chain of chains": lambda: SequentialFlow([SequentialFlow([cnf()]), amortised()]),
    "compiled": lambda: SequentialFlow([torch.compile(cnf(), backend="eager")]),
}


names = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name == "compiled" else name for name in FLOWS],
)


@names
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.slow
def test_it_is_the_change_of_the_map_in_this_call_alone(name, training):
    flow = FLOWS[name]()
    flow.train(training)
    assert has_exact_log_det(flow)
    cond_dim = getattr(flow, "cond_dim", 0)
    z, logp, cond = inputs(3, cond_dim)
    before = settings_of(flow)
    z_out, logp_out = asked(flow, z, logp, cond, log_det="exact")
    assert settings_of(flow) == before
    oracle = copy.deepcopy(flow)
    for part in oracle.modules():
        if isinstance(part, FastCNF):
            part.adjoint = False  # autograd would see the adjoint's own Jacobian
    expected = logp - log_det(oracle, z, cond).unsqueeze(1)
    torch.testing.assert_close(logp_out, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(flow(z, **cond), z_out, rtol=0, atol=1e-12)
    assert (flow(z, logp, **cond)[1] - expected).abs().max() > 1e-5


@names
def test_exact_traces_have_no_noise(name):
    flow = FLOWS[name]()
    z, logp, cond = inputs(3, getattr(flow, "cond_dim", 0))
    before = settings_of(flow)
    one, two = (asked(flow, z, logp, cond, trace="exact")[1] for _ in range(2))
    assert settings_of(flow) == before
    assert torch.equal(one, two)
    for part in flow.modules():
        if hasattr(part, "trace"):
            part.trace = "exact"
    assert torch.equal(flow(z, logp, **cond)[1], one)


def test_it_works_with_each_engine_named(engine):
    flow = cnf(engine=engine)
    z, logp, _ = inputs(3)
    logp_out = asked(flow, z, logp, {}, log_det="exact")[1]
    assert flow.engine == engine
    expected = logp - log_det(flow, z, {}).unsqueeze(1)
    torch.testing.assert_close(logp_out, expected, rtol=0, atol=1e-10)


def test_half_precision_gives_way():
    flow = FastCNF(ODEfunc(ODEnet((5,), (3,))), n_steps=2, precision="bf16")
    z, logp, _ = inputs(3)
    got = asked(flow, z.float(), logp.float(), {}, log_det="exact")[1]
    flow.precision = "full"
    expected = logp - log_det(flow.double(), z, {}).unsqueeze(1)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)


def test_autocast_keeps_what_was_asked_for():
    flow = AmortizedCNF(3, COND, (5,), n_steps=2, trace="hutchinson")
    z, logp, cond = (x.float() if isinstance(x, torch.Tensor) else x for x in inputs(3, COND))
    cond = {"cond": cond["cond"].float()}
    expected = flow(z, logp, **cond, log_det="exact")[1]
    with torch.autocast("cpu"):
        torch.testing.assert_close(flow(z, logp, **cond, log_det="exact")[1], expected)
        one, two = (flow(z, logp, **cond, trace="exact")[1] for _ in range(2))
    assert torch.equal(one, two)


@names
def test_a_posterior_hands_it_to_its_flow(name):
    flow = FLOWS[name]()
    if getattr(flow, "cond_dim", 0):
        flow = SequentialFlow([AmortizedCNF(3, 6, (5,), n_steps=2, trace="hutchinson").double()])
    mean, logvar = (torch.randn(4, 3, dtype=torch.float64) for _ in range(2))
    posterior = FlowPosterior(mean, logvar, flow)
    cond = {} if posterior.cond is None else {"cond": posterior.cond}
    start = posterior.base_dist.log_prob(mean).unsqueeze(1)
    for exact in ({"trace": "exact"}, {"log_det": "exact"}):
        z, log_q = posterior.transport(mean, **exact)
        expected = asked(flow, mean, start, cond, **exact)[1].squeeze(1)
        torch.testing.assert_close(log_q, expected, rtol=0, atol=1e-12)
        noise = torch.zeros_like(mean)
        assert torch.equal(posterior.transport_noise(noise, **exact)[1], log_q)
        generator = torch.Generator().manual_seed(0)
        by_sample = posterior.rsample_and_log_prob(generator=generator, **exact)
        noise = posterior.draw_noise(generator=torch.Generator().manual_seed(0))
        assert torch.equal(by_sample[1], posterior.transport_noise(noise, **exact)[1])
        back = asked(flow, z, torch.zeros_like(start), {**cond, "reverse": True}, **exact)
        expected = posterior.base_dist.log_prob(back[0]) - back[1].squeeze(1)
        torch.testing.assert_close(posterior.log_prob(z, **exact), expected, rtol=0, atol=1e-10)


def test_flows_of_others_go_on_working():
    class Module(nn.Module):
        def forward(self, z, logp, reverse=False):
            return 2 * z, logp - 3 * torch.tensor(2.0).log()

    def function(z, logp):
        return 2 * z, logp - 3 * torch.tensor(2.0).log()

    mean = torch.randn(4, 3)
    for flow in (Module(), function, SequentialFlow([Module()])):
        posterior = FlowPosterior(mean, mean, flow)
        plain = posterior.transport(mean)
        for exact in ({"trace": "exact"}, {"log_det": "exact"}):
            torch.testing.assert_close(posterior.transport(mean, **exact), plain)
        assert has_exact_log_det(flow)


def test_a_module_that_holds_a_flow_has_to_take_the_argument():
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.flow = cnf(trace="hutchinson")

        def forward(self, z, logp, reverse=False):
            return self.flow(z, logp, reverse=reverse)

    class Telling(Silent):
        def forward(self, z, logp, reverse=False, *, trace=None, log_det=None):
            exact = arguments(self.flow, trace=trace, log_det=log_det)
            return self.flow(z, logp, reverse=reverse, **exact)

    z, logp, _ = inputs(3)
    silent, telling = Silent(), Telling()
    assert not has_exact_log_det(silent) and has_exact_log_det(telling)
    assert not has_exact_log_det(SequentialFlow([silent]))
    for exact in ({"trace": "exact"}, {"log_det": "exact"}):
        name = next(iter(exact))
        with pytest.raises(ValueError, match=f"^{name}: got 'exact', but the forward of Silent"):
            SequentialFlow([silent])(z, logp, **exact)
        assert torch.equal(
            SequentialFlow([telling])(z, logp, **exact)[1],
            asked(telling.flow, z, logp, {}, **exact)[1],
        )
    assert SequentialFlow([silent])(z, logp)[0].shape == z.shape


@pytest.mark.parametrize("name", ["trace", "log_det"])
@pytest.mark.parametrize("value", ["trace", "hutchinson", True, 1])
def test_only_exact_can_be_asked_for(name, value):
    z, logp, cond = inputs(3, COND)
    for flow in (amortised(), SequentialFlow([amortised()])):
        with pytest.raises(ValueError, match=f"^{name}: got .*, expected one of None, 'exact'"):
            flow(z, logp, **cond, **{name: value})
    with pytest.raises(ValueError, match=f"^{name}: got .*, expected one of None, 'exact'"):
        FlowPosterior(z, z, cnf()).transport(z, **{name: value})


@pytest.mark.parametrize("make", [cnf, amortised])
def test_a_solver_without_steps_of_its_own_says_so(make):
    flow = make(solver="dopri8")
    z, logp, cond = inputs(3, getattr(flow, "cond_dim", 0))
    assert not has_exact_log_det(SequentialFlow([cnf(), flow]))
    assert flow.log_det == "trace"
    with pytest.raises(ValueError, match="log_det: 'exact' is that of the s"):
        asked(flow, z, logp, cond, log_det="exact")


def test_an_exact_log_det_may_be_there_in_one_mode_only():
    flow = cnf()
    flow.test_solver = "dopri8"
    assert has_exact_log_det(flow.train())
    assert not has_exact_log_det(flow.eval())


def test_a_velocity_without_tables_has_no_exact_log_det():
    flow = FastCNF(ODEfunc(nn.Linear(3, 3)))
    assert not flow.fused
    assert not has_exact_log_det(flow)


@pytest.mark.slow
def test_it_is_traced_into_the_graph():
    flow = SequentialFlow([cnf(trace="hutchinson"), PlanarFlow(3, 2).double()])
    z, logp, _ = inputs(3)
    compiled = torch.compile(flow, backend="eager", fullgraph=True)
    for exact in ({"trace": "exact"}, {"log_det": "exact"}):
        torch.testing.assert_close(compiled(z, logp, **exact), flow(z, logp, **exact))
