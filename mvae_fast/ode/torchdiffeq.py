"""The solvers of torchdiffeq: every velocity that is not an `ODEnet` under Euler's method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from mvae_fast.checks import one_of
from mvae_fast.core.grid import stepped
from mvae_fast.ode.called import Called, base_of, must_be_called
from mvae_fast.ode.dynamics import velocity_and_trace
from mvae_fast.ode.odefunc import ODEfunc
from mvae_fast.ode.regularization import RegularizationFn, evaluate

__all__ = [
    "ADAPTIVE",
    "FIXED_GRID",
    "Solution",
    "SolverConfig",
    "check_solver",
    "equal_steps",
    "solve",
    "steps_of",
]

#: Solvers that take the steps they are told to.
FIXED_GRID: tuple[str, ...] = (
    "euler",
    "midpoint",
    "heun2",
    "heun3",
    "rk4",
    "explicit_adams",
    "implicit_adams",
    "fixed_adams",
)
#: Solvers that choose their steps by ``atol`` and ``rtol``.
ADAPTIVE: tuple[str, ...] = (
    "dopri5",
    "dopri8",
    "bosh3",
    "fehlberg2",
    "adaptive_heun",
    "scipy_solver",
)
_REMOVED = {
    "adams": "'explicit_adams' or 'implicit_adams' (fixed steps), or 'dopri5' (adaptive)",
    "bdf": "'implicit_adams', or 'scipy_solver' with solver_options={'solver': 'BDF'}",
}


def check_solver(name: str, argument: str = "solver") -> None:
    """Raise ValueError unless ``name`` is a solver.

    Example:
        >>> check_solver("bdf")
        Traceback (most recent call last):
        ValueError: solver: 'bdf' is gone from torchdiffeq; use 'implicit_adams', or ...
    """
    if isinstance(name, str) and name in _REMOVED:
        raise ValueError(
            f"{argument}: {name!r} is gone from torchdiffeq; use {_REMOVED[name]} instead"
        )
    one_of(argument, name, FIXED_GRID + ADAPTIVE)


@dataclass(frozen=True)
class SolverConfig:
    """How to solve.

    Args:
        solver: A name of `FIXED_GRID` or `ADAPTIVE`.
        n_steps: Steps between consecutive times, for fixed-grid solvers without a ``step_size``.
        atol: Absolute tolerance of adaptive solvers.
        rtol: Relative tolerance of adaptive solvers.
        options: Further options of the solver.
        adjoint: Gradients by the continuous adjoint instead of through the steps.
    """

    solver: str
    n_steps: int
    atol: float
    rtol: float
    options: Mapping[str, Any] = field(default_factory=dict)
    adjoint: bool = False


@dataclass(frozen=True)
class Solution:
    """States at the times of a solve, the start included.

    Args:
        z: (len, B, ...).
        logp: (len, B), the log-density change, or None when no trace was wanted.
        penalties: (len,) for each regulariser.
    """

    z: Tensor
    logp: Tensor | None
    penalties: tuple[Tensor, ...]


class _Dynamics(nn.Module):
    """What torchdiffeq integrates in one solve.

    Noise and kind of trace belong to the solve, not to the ODE function: with the adjoint method
    the backward solve must see its own noise, also when the flow was called again in between. A
    module, because `odeint_adjoint` collects its parameters.
    """

    def __init__(
        self,
        odefunc: ODEfunc,
        trace: str | None,
        probes: Tensor | None,
        regularization_fns: Sequence[RegularizationFn],
    ) -> None:
        super().__init__()
        self.odefunc = odefunc
        self.trace = trace
        self.probes = probes
        self.regularization_fns = tuple(regularization_fns)

    def forward(self, t: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.odefunc.evaluations += 1
        z = states[0]
        if not self.regularization_fns:
            velocity, tau = self._evaluate(t, z)
            return (velocity,) if tau is None else (velocity, -tau)
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            velocity, tau = self._evaluate(t, z)
            assert tau is not None
            logp = states[1].unsqueeze(1)
            slope = -tau.unsqueeze(1)
            penalties = evaluate(self.regularization_fns, z, logp, velocity, slope)
        return velocity, -tau, *penalties

    def _evaluate(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor | None]:
        return velocity_and_trace(
            self.odefunc.diffeq,
            t,
            z,
            residual=self.odefunc.residual,
            trace=self.trace,
            probes=self.probes,
        )


def solve(
    odefunc: nn.Module,
    z: Tensor,
    times: Tensor,
    config: SolverConfig,
    *,
    joined: float = 0.0,
    trace: str | None = None,
    probes: Tensor | None = None,
    regularization_fns: Sequence[RegularizationFn] = (),
) -> Solution:
    """Solve with torchdiffeq.

    Args:
        odefunc: The ODE function, or the wrapper of the regularisers around it; its count of
            evaluations is restarted.
        z: (B, ...), the start state.
        times: (len,), strictly monotone.
        config: The solver.
        joined: As of `mvae_fast.core.grid.stepped`.
        trace: ``"exact"``, ``"hutchinson"``, or None for no trace.
        probes: (K, B, ...), scaled, for ``"hutchinson"``.
        regularization_fns: Integrated along the path; they need a trace.

    Returns:
        The states at ``times``.
    """
    if z.numel() == 0:
        # Of no rows an adaptive solver finds no step small enough, and an implicit one no largest
        # error; the mean of a regulariser would be NaN.
        config = replace(config, solver="euler", n_steps=1, options={})
        if regularization_fns:
            solution = solve(base_of(odefunc), z, times, config, trace=trace, probes=probes)
            penalties = tuple(z.new_zeros(times.shape[0]) for _ in regularization_fns)
            return replace(solution, penalties=penalties)
    options = dict(config.options)
    if config.solver in FIXED_GRID and "grid_constructor" not in options:
        step_size = options.pop("step_size", None)
        options["grid_constructor"] = (
            equal_steps(config.n_steps) if step_size is None else steps_of(step_size, joined)
        )
    base = base_of(odefunc)
    dynamics: nn.Module
    start = [z]
    if must_be_called(odefunc) is None:
        assert isinstance(base, ODEfunc)
        base.evaluations = 0
        dynamics = _Dynamics(base, trace, probes, regularization_fns)
        if trace is not None:
            start.append(z.new_zeros(z.shape[0]))
    else:
        dynamics = Called(odefunc, trace, probes)
        start.append(z.new_zeros((z.shape[0], 1)))
    start += [z.new_zeros(()) for _ in regularization_fns]
    integrator: Callable[..., tuple[Tensor, ...]] = odeint_adjoint if config.adjoint else odeint
    path = integrator(
        dynamics,
        tuple(start),
        times,
        atol=config.atol,
        rtol=config.rtol,
        method=config.solver,
        options=options,
    )
    if trace is None:
        return Solution(path[0], None, ())
    return Solution(path[0], path[1], tuple(path[2:]))


def steps_of(step_size: float, joined: float) -> Callable[[Any, Any, Tensor], Tensor]:
    """torchdiffeq's ``grid_constructor`` for the steps of `mvae_fast.core.grid.stepped`."""

    def grid(func: Any, y0: Any, t: Tensor) -> Tensor:
        return torch.cat((stepped(t, step_size, joined=joined).t, t[-1:]))

    return grid


def equal_steps(n_steps: int) -> Callable[[Any, Any, Tensor], Tensor]:
    """torchdiffeq's ``grid_constructor`` for ``n_steps`` equal steps between any two times."""

    def grid(func: Any, y0: Any, t: Tensor) -> Tensor:
        share = torch.arange(n_steps, dtype=t.dtype, device=t.device) / n_steps
        steps = t[:-1, None] + t.diff()[:, None] * share
        # The times themselves stay exact: torchdiffeq compares them with ==.
        return torch.cat((steps.flatten(), t[-1:]))

    return grid
