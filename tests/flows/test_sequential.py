import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.flows import IAF, PlanarFlow, SequentialFlow
from tests.flows.kinds import COND, inputs, log_det


def cnf(dim=3, n_steps=4, trace="exact", log_det="exact"):
    return FastCNF(ODEfunc(ODEnet((5,), (dim,))), n_steps=n_steps, trace=trace, log_det=log_det)


def chain():
    parts = [PlanarFlow(3, 2, COND), cnf(), IAF(3, 1, COND, hidden=(7,)), PlanarFlow(3, 2)]
    return SequentialFlow(parts).double()


def test_it_is_the_composition_and_the_condition_goes_where_it_is_wanted():
    flow = chain()
    z, logp, cond = inputs(3, COND)
    x, lp = z, logp
    for part, extra in zip(flow.chain, (cond, {}, cond, {}), strict=True):
        x, lp = part(x, lp, **extra)
    z_out, logp_out = flow(z, logp, **cond)
    assert torch.equal(z_out, x) and torch.equal(logp_out, lp)
    torch.testing.assert_close(flow(z, **cond), x, rtol=0, atol=1e-14)
    expected = logp - log_det(flow, z, cond).unsqueeze(1)
    torch.testing.assert_close(logp_out, expected, rtol=0, atol=1e-10)


def test_reverse_runs_the_chain_backwards():
    flow = SequentialFlow([PlanarFlow(3, 2, COND), IAF(3, 2, hidden=(7,))]).double()
    z, logp, cond = inputs(3, COND)
    back, logp_back = flow(*flow(z, logp, **cond), reverse=True, **cond)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-10)
    torch.testing.assert_close(logp_back, logp, rtol=0, atol=1e-10)
    torch.testing.assert_close(flow(flow(z, **cond), reverse=True, **cond), z)


def test_keys_are_those_of_ffjord():
    flow = SequentialFlow([cnf(), cnf()])
    assert {key.split(".odefunc.")[0] for key in flow.state_dict() if "odefunc" in key} == {
        "chain.0",
        "chain.1",
    }
    other = SequentialFlow([cnf(), cnf()])
    other.load_state_dict(flow.state_dict())
    z, logp, _ = inputs(3)
    assert torch.equal(flow.double()(z), other.double()(z))


def test_chains_nest():
    inner = SequentialFlow([PlanarFlow(3, 2, COND)])
    flow = SequentialFlow([inner, PlanarFlow(3, 2)]).double()
    z, _, cond = inputs(3, COND)
    assert flow.cond_dim == COND
    assert torch.equal(flow(z, **cond), flow.chain[1](inner(z, **cond)))


def test_a_generator_goes_to_the_flows_that_take_one():
    noisy = cnf(trace="hutchinson", log_det="trace")
    flow = SequentialFlow([PlanarFlow(3, 2), noisy, SequentialFlow([noisy])]).double()
    z, logp, _ = inputs(3)

    def density(seed):
        return flow(z, logp, generator=torch.Generator().manual_seed(seed))[1]

    assert torch.equal(density(0), density(0))
    assert not torch.equal(density(0), density(1))


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="flows: got none"):
        SequentialFlow([])
    with pytest.raises(ValueError, match=r"flows: got cond_dim \[2, 3\], expected one size"):
        SequentialFlow([PlanarFlow(3, 1, 2), PlanarFlow(3, 1, 3)])
    z, _, cond = inputs(3, COND)
    with pytest.raises(ValueError, match="cond: given, but the flow is not amortised"):
        SequentialFlow([PlanarFlow(3, 1)])(z, **cond)
    with pytest.raises(ValueError, match=r"cond: got None, expected \(6, 4\)"):
        chain()(z)
