import copy

import pytest
import torch
from torch import nn

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.flows import (
    AmortizedCNF,
    PlanarFlow,
    SequentialFlow,
    exact_log_det,
    exact_trace,
    has_exact_log_det,
)
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
}


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("training", [True, False])
def test_it_is_the_change_of_the_map_and_settings_come_back(name, training):
    flow = FLOWS[name]()
    flow.train(training)
    assert has_exact_log_det(flow)
    cond_dim = getattr(flow, "cond_dim", 0)
    z, logp, cond = inputs(3, cond_dim)
    before = settings_of(flow)
    with exact_log_det(flow):
        z_out, logp_out = flow(z, logp, **cond)
    assert settings_of(flow) == before
    oracle = copy.deepcopy(flow)
    oracle.adjoint = False  # autograd would see the adjoint's own Jacobian
    expected = logp - log_det(oracle, z, cond).unsqueeze(1)
    torch.testing.assert_close(logp_out, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(flow(z, **cond), z_out, rtol=0, atol=1e-12)
    assert (flow(z, logp, **cond)[1] - expected).abs().max() > 1e-5


@pytest.mark.parametrize("name", FLOWS)
def test_exact_traces_have_no_noise_and_settings_come_back(name):
    flow = FLOWS[name]()
    z, logp, cond = inputs(3, getattr(flow, "cond_dim", 0))
    before = settings_of(flow)
    with exact_trace(flow):
        one, two = (flow(z, logp, **cond)[1] for _ in range(2))
    assert settings_of(flow) == before
    assert torch.equal(one, two)
    for part in flow.modules():
        if hasattr(part, "trace"):
            part.trace = "exact"
    assert torch.equal(flow(z, logp, **cond)[1], one)


def test_it_works_with_each_engine_named(engine):
    flow = cnf(engine=engine)
    z, logp, _ = inputs(3)
    with exact_log_det(flow):
        assert flow.engine == "auto"
        logp_out = flow(z, logp)[1]
    assert flow.engine == engine
    expected = logp - log_det(flow, z, {}).unsqueeze(1)
    torch.testing.assert_close(logp_out, expected, rtol=0, atol=1e-10)


def test_half_precision_gives_way():
    flow = FastCNF(ODEfunc(ODEnet((5,), (3,))), n_steps=2, precision="bf16")
    z, logp, _ = inputs(3)
    with exact_log_det(flow):
        got = flow(z.float(), logp.float())[1]
    flow.precision = "full"
    expected = logp - log_det(flow.double(), z, {}).unsqueeze(1)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)


def test_settings_come_back_after_an_error_and_from_within():
    flow = cnf()
    before = settings_of(flow)
    with pytest.raises(KeyError), exact_log_det(flow):
        raise KeyError
    assert settings_of(flow) == before
    with exact_log_det(flow):
        within = settings_of(flow)
        with exact_log_det(flow):
            pass
        assert settings_of(flow) == within
    assert settings_of(flow) == before


def test_a_module_without_flows_is_left_alone():
    module = nn.Linear(2, 2)
    before = dict(vars(module))
    with exact_log_det(module):
        assert vars(module) == before
    assert vars(module) == before


@pytest.mark.parametrize("make", [cnf, amortised])
def test_a_solver_without_steps_of_its_own_says_so(make):
    flow = make(solver="dopri5")
    z, logp, cond = inputs(3, getattr(flow, "cond_dim", 0))
    assert not has_exact_log_det(SequentialFlow([cnf(), flow]))
    assert flow.log_det == "trace"
    with exact_log_det(flow), pytest.raises(ValueError, match="log_det: 'exact' is that of the s"):
        flow(z, logp, **cond)


def test_an_exact_log_det_may_be_there_in_one_mode_only():
    flow = cnf()
    flow.test_solver = "dopri5"
    assert has_exact_log_det(flow.train())
    assert not has_exact_log_det(flow.eval())


def test_a_velocity_without_tables_has_no_exact_log_det():
    flow = FastCNF(ODEfunc(nn.Linear(3, 3)))
    assert not flow.fused
    assert not has_exact_log_det(flow)
