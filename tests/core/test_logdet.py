"""The log-determinant of the steps, against autograd's Jacobian of the whole map."""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.core import grid, reference
from mvae_fast.core.logdet import log_det_steps
from mvae_fast.core.tableaus import EULER, TABLEAUS
from mvae_fast.nets.fields import field_of
from tests.oracles import distance, gradients, random_net

DIM = 3


def make(net, **settings):
    return FastCNF(ODEfunc(net), T=0.8, n_steps=3, trace="exact", **settings).double()


def log_det_by_autograd(flow, z):
    jacobians = [torch.autograd.functional.jacobian(lambda x: flow(x[None])[0], row) for row in z]
    return torch.linalg.slogdet(torch.stack(jacobians)).logabsdet


@pytest.mark.parametrize("solver", TABLEAUS)
@pytest.mark.parametrize("hidden", [(), (7,), (5, 4), (4, 5, 3)])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.slow
def test_exact_is_that_of_the_map(solver, hidden, residual):
    flow = make(random_net(hidden, DIM), solver=solver, log_det="exact")
    flow.odefunc.residual = residual
    z = torch.randn(4, DIM, dtype=torch.float64)
    z_t, logp_t = flow(z, torch.zeros(4, 1, dtype=torch.float64))
    torch.testing.assert_close(logp_t[:, 0], -log_det_by_autograd(flow, z), rtol=0, atol=1e-12)
    torch.testing.assert_close(z_t, flow(z), rtol=0, atol=1e-14)


@pytest.mark.parametrize("log_det", ["exact", "second_order"])
def test_evaluation_by_parts_is_the_same(monkeypatch, log_det):
    flow = make(random_net((7, 5), DIM), log_det=log_det)
    z, times = torch.randn(10, DIM, dtype=torch.float64), torch.tensor([0.0, 0.3, 0.8])
    expected = flow(z, z[:, :1], times)
    monkeypatch.setattr(reference, "_AT_ONCE", 4 * DIM * 7)
    with torch.no_grad():
        got = flow(z, z[:, :1], times)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("layer_type", ["squash", "ignore", "blend"])
@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_second_order_in_closed_form_equals_the_jacobian(capability, layer_type, engine):
    net = random_net((33,), DIM, layer_type)
    flow = make(net, log_det="second_order", engine=engine)
    z = torch.randn(50, DIM, dtype=torch.float64, requires_grad=True)
    got = flow(z, torch.zeros(50, dtype=torch.float64))
    steps = grid.from_zero(flow.sqrt_end_time.square(), 3, False)
    tables = field_of(net, steps.t).tables()
    z_out, change = log_det_steps(
        z,
        steps.h,
        lambda stage, e: reference.jacobian(stage, tables, e),
        EULER,
        (3,),
        second_order=True,
    )
    expected = (z_out[0], change[0])
    leaves = [z, *flow.parameters()]
    for ours, theirs in zip(
        [*got, *gradients(got, leaves)], [*expected, *gradients(expected, leaves)], strict=True
    ):
        assert distance(ours, theirs) < 1e-12


@pytest.mark.parametrize("hidden", [(7,), (5, 4)])
def test_errors_fall_by_orders_of_the_step_size(hidden):
    net = random_net(hidden, DIM)
    z = torch.randn(20, DIM, dtype=torch.float64)
    start = torch.zeros(20, dtype=torch.float64)

    def error(log_det, n_steps):
        flow = make(net)
        flow.n_steps = n_steps
        results = {}
        for kind in (log_det, "exact"):
            flow.log_det = kind
            results[kind] = flow(z, start)[1]
        return (results[log_det] - results["exact"]).abs().mean()

    # The sum over S steps of a term of order h^2, or h^3 with the second-order correction.
    assert 1.8 < error("trace", 10) / error("trace", 20) < 2.2
    assert 3.4 < error("second_order", 10) / error("second_order", 20) < 4.6
    assert error("second_order", 10) < error("trace", 10) / 3


def test_what_cannot_be_done_says_so():
    z = torch.randn(4, DIM, dtype=torch.float64)
    net = random_net((5,), DIM)
    with pytest.raises(ValueError, match="log_det: got 'none'"):
        make(net, log_det="none")
    with pytest.raises(ValueError, match="needs trace='exact'"):
        flow = make(net, log_det="exact")
        flow.trace = "hutchinson"
        flow(z, z[:, 0])
    with pytest.raises(ValueError, match="correction of Euler's method"):
        make(net, log_det="second_order", solver="rk4")(z, z[:, 0])
    with pytest.raises(ValueError, match="log_det: 'exact' is that of the steps"):
        make(net, log_det="exact", solver="dopri8")(z, z[:, 0])
    with pytest.raises(ValueError, match="engine: 'cpp' has log_det='exact' without derivatives"):
        make(net, log_det="exact", engine="cpp")(z, z[:, 0])
