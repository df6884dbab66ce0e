"""Sums over rows in float32: at a million rows as near to float64 as eager PyTorch comes."""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.engines import cpp as ops
from tests.oracles import distance, ffjord_euler, gradients, random_net

pytestmark = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")

STEPS = 2
END = 0.5

# layer type, hidden widths, nonlinearity, residual, Hutchinson's trace: every table that rows are
# summed into.
NETS = [
    ("ignore", (), "tanh", False, False),  # weight, bias and trace that do not vary
    ("squash", (), "tanh", True, False),
    ("concatsquash", (3,), "tanh", False, False),  # gates, biases and traces that do
    ("concatsquash", (3,), "tanh", True, True),
    ("squash", (2, 3), "tanh", False, False),  # M of two hidden layers
    ("blend", (2,), "tanh", False, False),  # weights that vary
    ("hyper", (2,), "softplus", False, True),
    ("squash", (3,), "swish", False, False),  # gates that hold the learned slope
]
PENALTIES = ("l1int", "l2int", "kinetic_energy")


def by_engine(net, z, noise, residual):
    odefunc = ODEfunc(net, residual=residual)
    flow = FastCNF(odefunc, END, train_T=True, n_steps=STEPS, engine="cpp", trace="exact")
    if noise is not None:
        flow.trace = "hutchinson"
    results = flow.to(z.dtype)(z, z[:, 0] * 0, probes=noise)
    return [*results, *gradients(results, [z, *net.parameters(), flow.sqrt_end_time])]


def by_hand(net, z, noise, residual):
    root = torch.tensor(END).sqrt().to(z.dtype).requires_grad_()
    results = ffjord_euler(net, z, root.square(), STEPS, noise, residual)
    return [*results, *gradients(results, [z, *net.parameters(), root])]


@pytest.mark.parametrize("rows", [1, 1_000, 1_000_000])
@pytest.mark.parametrize(("layer_type", "hidden", "nonlinearity", "residual", "sampled"), NETS)
@pytest.mark.slow
def test_error_does_not_grow_with_the_rows(
    layer_type, hidden, nonlinearity, residual, sampled, rows
):
    net = random_net(hidden, 1, layer_type, nonlinearity, torch.float32)
    z = torch.randn(rows, 1)
    noise = torch.randn(rows, 1) if sampled else None

    def run(compute, dtype):
        net.to(dtype)
        probes = None if noise is None else noise.to(dtype)
        return compute(net, z.to(dtype).requires_grad_(), probes, residual)

    check(run, by_engine, by_hand)


def check(run, by_engine, by_hand):
    oracle = run(by_hand, torch.float64)
    ours, eager = (
        [distance(x, y) for x, y in zip(run(compute, torch.float32), oracle, strict=True)]
        for compute in (by_engine, by_hand)
    )
    # All together, since a number may come out exact by luck; of one row, all of them may.
    few = 4 * torch.finfo(torch.float32).eps
    assert sum(ours) <= 2 * sum(eager) + few
    assert max(ours) <= 2 * max(eager) + few


def penalties_by_engine(net, z):
    flow = FastCNF(ODEfunc(net), END, True, PENALTIES, n_steps=STEPS, engine="cpp", trace="exact")
    flow = flow.to(z.dtype)
    z_t, _ = flow(z, z[:, 0] * 0)
    results = (z_t, *flow.get_regularization_states())
    return [*results, *gradients(results, [z, *net.parameters(), flow.sqrt_end_time])]


def penalties_by_hand(net, z):
    root = torch.tensor(END).sqrt().to(z.dtype).requires_grad_()
    h = root.square() / STEPS
    state, totals = z, [0.0, 0.0, 0.0]
    for step in range(STEPS):
        velocity = net(step * h, state)
        size = torch.linalg.vector_norm(velocity, dim=1)
        means = (velocity.abs().mean(), (size / z.shape[1] ** 0.5).mean(), size.square().mean())
        totals = [total + h * mean for total, mean in zip(totals, means, strict=True)]
        state = state + h * velocity
    results = (state, *totals)
    return [*results, *gradients(results, [z, *net.parameters(), root])]


@pytest.mark.parametrize("rows", [1, 1_000, 1_000_000])
@pytest.mark.slow
def test_the_error_of_penalties_does_not_grow_with_the_rows(rows):
    net = random_net((3,), 2, "concatsquash", "tanh", torch.float32)
    z = torch.randn(rows, 2)

    def run(compute, dtype):
        return compute(net.to(dtype), z.to(dtype).requires_grad_())

    check(run, penalties_by_engine, penalties_by_hand)
