"""The regularisers that the engines integrate, as a flow has them: against their definitions.

tests/engines/test_contract.py has those of the engines themselves.
"""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.ode.regularization import FUSED_PENALTIES, REGULARIZATION_FNS
from mvae_fast.ode.settings import Settings
from mvae_fast.ode.torchdiffeq import solve
from tests.oracles import distance, gradients, random_net

NAMES = tuple(name for name, fn in REGULARIZATION_FNS.items() if fn in FUSED_PENALTIES)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("hidden", [(), (7,), (5, 4), (3, 4, 5)])
def test_flow_equals_torchdiffeq(engine, residual, hidden):
    net = random_net(hidden, 3, "concatsquash")
    names = ("kinetic_energy", "l1int", "l2int")
    flow = FastCNF(
        ODEfunc(net, residual=residual),
        regularization_fns=names,
        n_steps=4,
        trace="exact",
        engine=engine,
    ).double()
    z = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    logp = torch.zeros(5, 1, dtype=torch.float64)
    results = [*flow(z, logp), *flow.get_regularization_states()]
    solution = solve(
        flow.odefunc.odefunc,
        z,
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        Settings("euler", n_steps=4, atol=0.0, rtol=0.0),
        trace="exact",
        regularization_fns=flow.regularization_fns,
    )
    expected = [solution.z[-1], solution.logp[-1].view(5, 1), *(p[-1] for p in solution.penalties)]
    leaves = [z, *net.parameters()]
    for ours, theirs in zip(
        [*results, *gradients(results, leaves)],
        [*expected, *gradients(expected, leaves)],
        strict=True,
    ):
        assert distance(ours, theirs) < 1e-12


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_jacobian_norm_of_given_probes(engine, trace):
    net = random_net((7,), 3, "squash")
    flow = FastCNF(
        ODEfunc(net), regularization_fns=("jacobian_norm",), n_steps=1, trace=trace, engine=engine
    ).double()
    z = torch.randn(5, 3, dtype=torch.float64)
    noise = torch.randn(2, 5, 3, dtype=torch.float64)
    zero = torch.tensor(0.0, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: net(zero, row)))(z)
    flow(z, z[:, 0], probes=noise)
    products = torch.einsum("bij,kbj->kbi", jacobian, noise)
    expected = products.square().sum(2).mean()
    torch.testing.assert_close(flow.get_regularization_states()[0], expected)


def test_times_and_order_of_the_integrals(engine):
    flow = FastCNF(
        ODEfunc(random_net((7,), 3)), regularization_fns=NAMES[::-1], n_steps=3, engine=engine
    ).double()
    z, times = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0.0, 0.5, 1.0]).double()
    noise = torch.randn(5, 3, dtype=torch.float64)
    flow(z, z[:, 0], times, probes=noise)
    path = flow.get_regularization_states()
    assert [p.shape for p in path] == [(3,)] * len(NAMES) and not any(p[0] for p in path)
    flow(z, z[:, 0], times[:2], probes=noise)
    for middle, whole in zip(flow.get_regularization_states(), path, strict=True):
        torch.testing.assert_close(middle, whole[1])
    alone = FastCNF(
        flow.odefunc.odefunc, regularization_fns=NAMES[:1], n_steps=3, engine=engine
    ).double()
    alone(z, z[:, 0], times[:2], probes=noise)
    torch.testing.assert_close(alone.get_regularization_states()[0], path[-1][1])
    flow.eval()(z, z[:, 0], probes=noise)
    assert flow.get_regularization_states() is None
