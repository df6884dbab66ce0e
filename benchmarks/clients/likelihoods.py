"""Exact log-likelihoods of a velocity that flow matching trained: FastCNF and flow_matching.

The velocity is an MLP with SiLU of state and time. ``ODESolver.compute_likelihood`` takes D
gradients an evaluation for the exact divergence and lets torchdiffeq do the steps; it runs here as
it is installed. FastCNF has the same weights in an `ODEnet`, of whose layers the first knows time.

References:
    Flow Matching Guide and Code (Lipman et al., 2024), https://arxiv.org/abs/2412.06264
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torchdiffeq import odeint

from benchmarks.clients.comparison import Comparison, Errors, Prepared, check, worst_error
from benchmarks.common.candidates import OURS
from benchmarks.peers.ffjord import Dynamics
from mvae_fast import FastCNF, ODEfunc, ODEnet

TOLERANCE = 1e-5
FINE = 1e-10
ROWS = 16
#: A power of two, so that a step is one also in float32 and torchdiffeq takes no step of length ~0.
STEPS = 16
HIDDEN = (256, 256)


class MLP(nn.Module):
    """The velocity as flow_matching's users have it, called with ``x`` (B, D) and ``t`` ()."""

    def __init__(self, dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        widths = (dim + 1, *hidden)
        layers: list[nn.Module] = []
        for m_in, m_out in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(m_in, m_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], dim))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The velocity (B, D)."""
        return self.layers(torch.cat((x, t.expand(len(x), 1)), 1))


def odenet(mlp: MLP, dim: int, hidden: tuple[int, ...]) -> ODEnet:
    """The same velocity as an `ODEnet`: its layers take time first, and only the first makes use
    of it."""
    net = ODEnet(hidden, (dim,), layer_type="concat", nonlinearity="silu")
    linears: list[Any] = [layer for layer in mlp.layers if isinstance(layer, nn.Linear)]
    layers: Any = net.layers
    with torch.no_grad():
        for index, (linear, layer) in enumerate(zip(linears, layers, strict=True)):
            of_state = linear.weight[:, :dim] if index == 0 else linear.weight
            of_time = linear.weight[:, dim:] if index == 0 else torch.zeros_like(of_state[:, :1])
            layer._layer.weight.copy_(torch.cat((of_time, of_state), 1))
            layer._layer.bias.copy_(linear.bias)
    return net


def log_source(z: Tensor) -> Tensor:
    """The log-density of N(0, I), (B,)."""
    normal = Normal(z.new_zeros(z.shape[1]), z.new_ones(z.shape[1]), validate_args=False)
    return Independent(normal, 1).log_prob(z)


@dataclass(frozen=True)
class Likelihood(Comparison):
    """log p(x) of a batch.

    Args:
        dim: D.
        solver: ``"euler"`` and ``"midpoint"`` take `STEPS` steps.
        batch: B.
        hidden: Of the MLP.
    """

    dim: int
    solver: str
    batch: int = 256
    hidden: tuple[int, ...] = HIDDEN
    peer = "flow_matching"
    mode = "inference"

    @property
    def name(self) -> str:  # type: ignore[override]
        """Of the row."""
        return f"likelihood D={self.dim}, {self.solver}"

    @property
    def shape(self) -> str:  # type: ignore[override]
        """The flow in words."""
        hidden = "-".join(map(str, self.hidden))
        solver = f"tolerance {TOLERANCE:g}" if self.solver == "dopri5" else f"{STEPS} steps"
        return f"MLP of SiLU, D={self.dim}, {hidden}, B={self.batch}, {solver}, trace exact"

    def build(self, dtype: torch.dtype) -> tuple[MLP, FastCNF, Any, Tensor]:
        """The velocity, as ours and as theirs, and data."""
        from flow_matching.solver import ODESolver

        with torch.random.fork_rng():
            torch.manual_seed(0)
            mlp = MLP(self.dim, self.hidden)
            x = torch.randn(self.batch, self.dim, dtype=dtype)
        flow = FastCNF(
            ODEfunc(odenet(mlp, self.dim, self.hidden)),
            solver=self.solver,
            atol=TOLERANCE,
            rtol=TOLERANCE,
            n_steps=STEPS,
            trace="exact",
        ).to(dtype)
        return mlp.to(dtype), flow, ODESolver(mlp), x

    def prepare(self, dtype: torch.dtype, clock: str) -> Prepared:
        """As of `Comparison`."""
        mlp, flow, solver, x = self.build(dtype)

        def ours(rows: Tensor = x) -> Tensor:
            with torch.no_grad():
                return flow.log_prob(rows, integration_times=(1.0, 0.0))

        def theirs(rows: Tensor = x) -> Tensor:
            adaptive = self.solver == "dopri5"
            # A clone: it switches on requires_grad of what it is given.
            _, log_p = solver.compute_likelihood(
                rows.clone(), log_source, None if adaptive else 1 / STEPS, self.solver,
                TOLERANCE, TOLERANCE, exact_divergence=True,
            )  # fmt: skip
            return log_p

        calls: dict[str, Callable[..., Tensor]] = {f"{OURS} {self.solver}": ours, self.peer: theirs}
        few = x[:ROWS]
        true = self.fine(mlp, few)
        errors = {}
        for name, log_p in calls.items():
            errors[name] = Errors(worst_error([log_p(few)], [true]))
            check(f"{name} on {self.name}", errors[name], self.bound(name))
        # All rows, against ours: a solver's steps depend on them.
        check(
            f"{self.peer} on {self.name}, all rows",
            Errors(worst_error([theirs()], [ours()])),
            self.bound(self.peer),
        )
        counts = []
        hook = mlp.register_forward_hook(lambda *_: counts.append(None))
        theirs()
        hook.remove()
        evaluations = {f"{OURS} {self.solver}": (flow.num_evals(), 0), self.peer: (len(counts), 0)}
        return Prepared(dict(calls), evaluations, errors)

    def bound(self, name: str) -> Errors:
        """What a candidate may be off by."""
        if self.solver != "dopri5":
            return Errors(2e-5)
        # Torchdiffeq's end is interpolated, as in benchmarks.clients.training.
        return Errors((500 if name == self.peer else 100) * TOLERANCE)

    def fine(self, mlp: MLP, x: Tensor) -> Tensor:
        """log p(x) in float64, by torchdiffeq and the divergence of `benchmarks.peers.ffjord`; with
        fixed steps, of those."""
        dynamics = Dynamics(_Swapped(copy.deepcopy(mlp).double()), exact=True)
        state = x.double(), x.new_zeros(len(x), 1, dtype=torch.float64)
        times = torch.tensor([1.0, 0.0], dtype=torch.float64)
        solver: dict[str, Any] = {"method": "dopri5", "rtol": FINE, "atol": FINE}
        if self.solver != "dopri5":
            solver = {"method": self.solver, "options": {"step_size": 1 / STEPS}}
        with torch.no_grad():
            z, change = odeint(dynamics, state, times, **solver)
            # logp_T = logp_0 + change, from the data at 1 to the source at 0.
            return log_source(z[-1]) - change[-1].squeeze(1)


class _Swapped(nn.Module):
    """An `MLP` called with time first."""

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity (B, D)."""
        return self.mlp(x, t)


LIKELIHOODS = tuple(
    Likelihood(dim, solver) for dim in (32, 64) for solver in ("euler", "midpoint", "dopri5")
)
