"""Weights as functions of time: torchdiffeq's example, and a user's own hypernetwork."""

import pytest
import torch
from torch import nn

from mvae_fast import FastCNF
from mvae_fast.core.tables import Tables
from mvae_fast.integrate import integrate
from mvae_fast.nets.timed import TimedNet
from tests.oracles import distance, ffjord_euler, gradients

DIM, WIDTH, STEPS = 2, 6, 5


class Example(nn.Module):
    """The hypernetwork of torchdiffeq's examples/cnf.py, to its description: at each time WIDTH
    units, each with its own weight, bias and gated output; the velocity is their mean."""

    def __init__(self):
        super().__init__()
        self.block = WIDTH * DIM
        self.fc = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.out = nn.Linear(8, 3 * self.block + WIDTH)

    def parts(self, t):
        flat = self.out(self.fc(t.reshape(-1, 1)))
        w, u, g, b = flat.split((self.block, self.block, self.block, WIDTH), dim=1)
        units = (-1, WIDTH, DIM)
        return w.view(units), b, u.view(units) * torch.sigmoid(g.view(units))

    def forward(self, t):
        w, b, u = self.parts(t)
        return [(w, b), (u.mT / WIDTH, None)]


class ByHand(nn.Module):
    """The velocity as that script writes it, one unit after the other."""

    def __init__(self, hyper):
        super().__init__()
        self.hyper = hyper

    def forward(self, t, z):
        w, b, u = self.hyper.parts(t)
        units = [torch.tanh(z @ w[0, k] + b[0, k]).unsqueeze(1) * u[0, k] for k in range(WIDTH)]
        return torch.stack(units).mean(0)


def states():
    z = torch.randn(4, DIM, dtype=torch.float64, requires_grad=True)
    return z, torch.randn(4, 1, dtype=torch.float64)


def test_the_hypernetwork_of_torchdiffeqs_example(engine):
    hyper = Example().double()
    net = TimedNet(hyper, (DIM, WIDTH, DIM), "tanh")
    settings = {"n_steps": STEPS, "train_T": True, "engine": engine}
    flow = FastCNF.from_module(net, **settings)
    assert flow.fused
    z, logp = states()
    z_t, change = ffjord_euler(ByHand(hyper), z, flow.sqrt_end_time.square(), STEPS)
    expected = z_t, logp + change.unsqueeze(1)
    got = flow(z, logp)
    leaves = [z, *flow.parameters()]
    for ours, theirs in zip(
        [*got, *gradients(got, leaves)], [*expected, *gradients(expected, leaves)], strict=True
    ):
        assert distance(ours, theirs) < 1e-11


def test_the_module_is_called_once_a_solve_and_by_torchdiffeq_at_each_time():
    hyper, seen = Example().double(), []
    hyper.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    flow = FastCNF.from_module(TimedNet(hyper, (DIM, WIDTH, DIM)), n_steps=STEPS)
    z, logp = states()
    expected = flow(z, logp)
    assert seen == [STEPS]
    flow.solver_options = {"interp": "linear"}
    got = flow(z, logp)
    assert set(seen[1:]) == {1}
    for a, b in zip(got, expected, strict=True):
        assert distance(a, b) < 1e-12


def test_it_trains():
    hyper = Example()
    flow = FastCNF.from_module(TimedNet(hyper, (DIM, WIDTH, DIM)), solver="rk4", n_steps=4)
    optimizer = torch.optim.Adam(hyper.parameters(), 0.02)
    z, losses = torch.randn(64, DIM) * 0.3 + 1, []
    for _ in range(30):
        optimizer.zero_grad()
        z_t, change = flow(z, torch.zeros(64, 1))
        loss = (0.5 * z_t.square().sum(1) + change[:, 0]).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


class Given(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, t):
        return self.layers(t)


def constant(t):
    """One layer that moves and one that does not."""
    first = t[:, None, None] * torch.ones(3, DIM, dtype=t.dtype)
    return ((first, torch.ones(3, dtype=t.dtype)), (torch.ones(DIM, 3, dtype=t.dtype), None))


def test_layers_with_and_without_the_axis_of_time():
    net = TimedNet(Given(constant), (DIM, 3, DIM), "sigmoid")
    t, z = torch.tensor([0.3, 0.8], dtype=torch.float64), states()[0]
    tables = net.field(t, None, False)
    assert tables.weight.shape == (2, 12) and tables.bias.shape == (1, 5)
    unit = torch.sigmoid(0.8 * z.sum(1, keepdim=True) + 1)
    torch.testing.assert_close(net(t[1], z), (3 * unit).expand(-1, DIM))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda t: [(torch.ones(3, DIM), None)], "expected a pair .* for each of 2 layers"),
        (lambda t: torch.ones(2, 3), "expected a pair"),
        (lambda t: [(torch.ones(DIM, 3), None)] * 2, r"W of layer 0 has shape \(2, 3\), expected"),
        (
            lambda t: [(torch.ones(3, DIM), torch.ones(7, 3)), (torch.ones(DIM, 3), None)],
            r"b of layer 0 has shape \(7, 3\), expected \(3,\) or \(1, 3\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(layers, message):
    with pytest.raises(ValueError, match=f"weights: {message}"):
        TimedNet(Given(layers), (DIM, 3, DIM))(torch.tensor(0.5), torch.zeros(1, DIM))


def test_arguments():
    with pytest.raises(TypeError, match="weights: got <function"):
        TimedNet(constant, (DIM, 3, DIM))
    with pytest.raises(ValueError, match="widths: got"):
        TimedNet(Given(constant), (DIM, 3))
    with pytest.raises(ValueError, match="nonlinearity: got 'swish'"):
        TimedNet(Given(constant), (DIM, 3, DIM), "swish")
    with pytest.raises(ValueError, match="call, time, net: given, but a TimedNet needs none"):
        FastCNF.from_module(TimedNet(Given(constant), (DIM, 3, DIM)), call="f(t, x)")
    with pytest.raises(ValueError, match="context: given"):
        net = TimedNet(Given(constant), (DIM, 3, DIM))
        FastCNF.from_module(net)(torch.zeros(1, DIM), context=torch.zeros(1, 1))


def test_hooks_and_subclasses_are_called():
    class Other(TimedNet):
        def forward(self, t, z):
            return -super().forward(t, z)

    for make in (TimedNet, Other):
        flow = FastCNF.from_module(make(Example(), (DIM, WIDTH, DIM)), n_steps=2)
        if make is TimedNet:
            assert flow.fused
            flow.odefunc.diffeq.register_forward_hook(lambda module, inputs, output: -output)
        assert not flow.fused
        z = torch.randn(3, DIM)
        plain = FastCNF.from_module(TimedNet(flow.odefunc.diffeq.weights, (DIM, WIDTH, DIM)))
        expected = z - 0.5 * plain.odefunc.diffeq(torch.tensor(0.0), z)
        got = flow(z, integration_times=[0.0, 0.5, 1.0], settings=None)
        step = flow.odefunc.diffeq(torch.tensor(0.0), z)
        torch.testing.assert_close(z + 0.5 * step, expected)
        assert torch.isfinite(got).all()


def test_tables_of_ones_own():
    t = torch.arange(STEPS) / STEPS
    w = torch.stack((torch.cos(t), -torch.sin(t), torch.sin(t), torch.cos(t)), 1)
    tables = Tables(w, None, torch.zeros(1, 2), (2, 2), "identity")
    z = torch.randn(3, 2)
    got = integrate(z, torch.full((STEPS,), 1 / STEPS), tables, trace="exact")
    expected, change = z, 0.0
    for k in range(STEPS):
        expected = expected + expected @ w[k].view(2, 2).T / STEPS
        change = change - 2 * torch.cos(t[k]) / STEPS
    torch.testing.assert_close(got.z[0], expected)
    torch.testing.assert_close(got.logp[0], change.expand(3))
