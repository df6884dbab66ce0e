"""The exact trace against the autograd Jacobian, and Hutchinson's estimate against the exact."""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.core import reference
from mvae_fast.core.trace import exact_probes, trace_table
from mvae_fast.nets.fields import field_of
from tests.oracles import LAYER_TYPES, NONLINEARITIES, pairwise, random_net

TIMES = torch.tensor([0.0, 0.6], dtype=torch.float64)
DEPTHS = [(), (5,), (5, 4), (5, 4, 3), (3, 5, 4, 6)]


def jacobian_trace(net, t, z):
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: net(t, row.unsqueeze(0))[0]))(z)
    return jacobian.diagonal(dim1=1, dim2=2).sum(1)


@pytest.mark.parametrize(
    ("layer_type", "hidden", "nonlinearity"), pairwise(LAYER_TYPES, DEPTHS, NONLINEARITIES)
)
@pytest.mark.slow
def test_exact_trace_is_that_of_the_jacobian(layer_type, hidden, nonlinearity):
    net = random_net(hidden, 3, layer_type, nonlinearity)
    z = torch.randn(4, 3, dtype=torch.float64)
    tables = field_of(net, TIMES).tables()
    table = trace_table(tables)
    assert (table is None) == (len(hidden) > 2)
    for s in range(2):
        expected = jacobian_trace(net, TIMES[s], z)
        _, swept, _ = reference.dynamics(z, tables, s, probes=exact_probes(z))
        torch.testing.assert_close(swept, expected, rtol=1e-12, atol=1e-12)
        if table is not None:
            _, closed, _ = reference.dynamics(z, tables, s, trace=table)
            torch.testing.assert_close(closed, expected, rtol=1e-12, atol=1e-12)


def test_exact_probes_are_not_copied_for_each_row():
    probes = exact_probes(torch.zeros(1000, 6))
    assert probes.shape == (6, 1000, 6) and probes.stride(1) == 0
    assert torch.equal(probes[:, 17], torch.eye(6))


@pytest.mark.parametrize("rademacher", [False, True])
@pytest.mark.slow
def test_hutchinson_converges_at_the_rate_of_its_variance(engine, rademacher):
    # With S = (J + J^T) / 2 one probe has variance 2 |S|_F^2 (Gaussian), or the same without the
    # diagonal of S (Rademacher): the mean of n probes is off by the root of that over sqrt(n).
    dim, rows = 6, 4000
    net = random_net((9,), dim, "squash", "tanh")
    z = torch.randn(1, dim, dtype=torch.float64).expand(rows, dim)
    flow = FastCNF(ODEfunc(net, rademacher=rademacher), n_steps=1, engine=engine).double()
    zero = torch.zeros(rows, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda row: net(torch.zeros(()).double(), row))(z[0])
    symmetric = (jacobian + jacobian.T) / 2
    if rademacher:
        symmetric = symmetric - torch.diag(symmetric.diagonal())
    deviation = (2 * symmetric.square().sum()).sqrt().item()

    flow.trace = "exact"
    exact = flow(z, zero)[1]
    torch.testing.assert_close(exact, -jacobian.trace().expand(rows), rtol=1e-12, atol=1e-12)
    flow.trace = "hutchinson"
    for n_probes in (1, 16, 64):
        flow.n_probes = n_probes
        error = (flow(z, zero)[1] - exact).detach()
        expected = deviation / n_probes**0.5
        # The mean over the rows is off by less than 4 of its standard errors. The rms of 4000
        # errors estimates the deviation to 3 % even at the kurtosis of one squared Gaussian (15).
        assert abs(error.mean()) < 4 * expected / rows**0.5
        assert error.square().mean().sqrt() == pytest.approx(expected, rel=0.1)
