r"""A CNF whose weights depend on time through a hypernet, as a user of torchdiffeq has it.

.. math:: f(z, t) = \frac{1}{K} \sum_k u_k(t) \sigma(g_k(t)) \tanh(w_k(t) \cdot z + b_k(t))

with K = 64 units, whose numbers an MLP of t (tanh, 32-32) makes. This is the net of torchdiffeq's
example, written from its formula: time runs from 10 to 0, the trace is the sum of D derivatives by
autograd, the solver is dopri5 with tolerances of 1e-5, the gradient `odeint_adjoint`'s. For the
engine each evaluation's weights are a row of its tables, from one call of the hypernet. It takes
fixed steps, as many as bring it nearer to the true solution than dopri5 comes
(tests/benchmarks/test_own_nets.py).

References:
    Neural Ordinary Differential Equations (Chen et al., 2018), section 4,
    https://arxiv.org/abs/1806.07366
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from benchmarks.peers.own_nets import OURS, ByTables, Flow, OwnNet
from mvae_fast.core.tables import Tables

START, END, STEPS, UNITS, HIDDEN = 10.0, 0.0, 10, 64, 32


class HyperNet(nn.Module):
    """Weights by time, and the augmented velocity that torchdiffeq is given."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        sizes = (1, HIDDEN, HIDDEN, UNITS * (3 * dim + 1))
        first, second, last = (nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.net = nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), last)

    def weights(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Into the units (E, K, D), their biases (E, K), out of the units (E, D, K)."""
        block = UNITS * self.dim
        inward, outward, gate, bias = self.net(t[:, None]).split((block, block, block, UNITS), 1)
        outward = (outward * torch.sigmoid(gate)).unflatten(1, (UNITS, self.dim))
        return inward.unflatten(1, (UNITS, self.dim)), bias, outward.mT / UNITS

    def forward(self, t: Tensor, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Velocity and minus its trace, as torchdiffeq calls it."""
        z = states[0]
        (inward,), (bias,), (outward,) = self.weights(t.view(1))
        with torch.enable_grad():
            z.requires_grad_(True)
            velocity = torch.tanh(z @ inward.T + bias) @ outward.T
            trace = torch.zeros_like(z[:, 0])
            for i in range(self.dim):
                (row,) = torch.autograd.grad(velocity[:, i].sum(), z, create_graph=True)
                trace = trace + row[:, i]
        return velocity, -trace

    def tables(self, t: Tensor) -> Tables:
        """The same velocity for an engine."""
        inward, bias, outward = self.weights(t)
        weight = torch.cat((inward.flatten(1), outward.flatten(1)), 1)
        biases = torch.cat((bias, bias.new_zeros(len(t), self.dim)), 1)
        return Tables(weight, None, biases, (self.dim, UNITS, self.dim), "tanh")


def hypernet_problem(dim: int, batch: int, dtype: torch.dtype) -> OwnNet:
    """The flow on random states."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = HyperNet(dim).to(dtype)
        z = torch.randn(batch, dim, dtype=dtype)

    def by(integrator: Any, **settings: Any) -> Flow:
        def flow(x: Tensor) -> tuple[Tensor, Tensor]:
            times = torch.tensor([START, END], dtype=x.dtype)
            start = x.detach().clone(), x.new_zeros(len(x))
            z_path, change = integrator(net, start, times, **settings)
            return z_path[-1], change[-1]

        return flow

    step = {"step_size": (START - END) / STEPS}
    peers = {
        "odeint rk4": by(odeint, method="rk4", options=step),
        "odeint_adjoint dopri5": by(odeint_adjoint, method="dopri5", atol=1e-5, rtol=1e-5),
    }
    ours = ByTables(net.tables, START, END, STEPS)
    return OwnNet(
        f"weights from a hypernet of t: D={dim}, {UNITS} tanh units, B={batch}, t from 10 to 0; "
        f"rk4 with {STEPS} steps; exact traces",
        z,
        tuple(net.parameters()),
        {OURS: ours, **peers},
        {
            "odeint rk4": 2e-5 if dtype == torch.float32 else 1e-11,
            "odeint_adjoint dopri5": 1e-2,
        },
    )
