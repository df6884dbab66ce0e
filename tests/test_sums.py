"""Sums over rows in float32: at a million rows as near to float64 as eager PyTorch comes."""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ops
from tests.oracles import distance, ffjord_euler, gradients, random_net

pytestmark = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")

STEPS = 2
END = 0.5

# layer type, hidden widths, residual, Hutchinson's trace: every table that rows are summed into.
NETS = [
    ("ignore", (), False, False),  # weight, bias and trace that do not vary
    ("squash", (), True, False),
    ("concatsquash", (3,), False, False),  # gates, biases and traces that do
    ("concatsquash", (3,), True, True),
    ("squash", (2, 3), False, False),  # M of two hidden layers
    ("blend", (2,), False, False),  # weights that vary
]


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
@pytest.mark.parametrize(("layer_type", "hidden", "residual", "sampled"), NETS)
def test_error_does_not_grow_with_the_rows(layer_type, hidden, residual, sampled, rows):
    net = random_net(hidden, 1, layer_type, "tanh", torch.float32)
    z = torch.randn(rows, 1)
    noise = torch.randn(rows, 1) if sampled else None

    def run(compute, dtype):
        net.to(dtype)
        probes = None if noise is None else noise.to(dtype)
        return compute(net, z.to(dtype).requires_grad_(), probes, residual)

    oracle = run(by_hand, torch.float64)
    ours, eager = (
        [distance(x, y) for x, y in zip(run(compute, torch.float32), oracle, strict=True)]
        for compute in (by_engine, by_hand)
    )
    # All together, since a number may come out exact by luck; of one row, all of them may.
    few = 4 * torch.finfo(torch.float32).eps
    assert sum(ours) <= 2 * sum(eager) + few
    assert max(ours) <= 2 * max(eager) + few
