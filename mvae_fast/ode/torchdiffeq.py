"""The solvers of torchdiffeq: every velocity that is not an `ODEnet` under Euler's method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mvae_fast.core.grid import stepped
from mvae_fast.ode.called import Called, base_of, graphless, must_be_called
from mvae_fast.ode.dynamics import velocity_and_trace
from mvae_fast.ode.odefunc import ODEfunc
from mvae_fast.ode.regularization import RegularizationFn, evaluate
from mvae_fast.ode.settings import ENGINES_ALONE, FIXED_GRID, Settings


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
        context: bool,
    ) -> None:
        super().__init__()
        self.context = context
        self.odefunc = odefunc
        self.evaluate = partial(
            velocity_and_trace,
            odefunc.diffeq,
            residual=odefunc.residual,
            trace=trace,
            probes=probes,
        )
        self.regularization_fns = tuple(regularization_fns)

    def forward(self, t: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.odefunc.evaluations += 1
        states = graphless(states)
        # A state that stays as it is: with the adjoint method only states and parameters get
        # gradients.
        z, extras = states[0], states[-1:] if self.context else ()
        still = tuple(torch.zeros_like(x) for x in extras)
        if not self.regularization_fns:
            velocity, tau = self.evaluate(t, z, extras=extras)
            return (velocity, *still) if tau is None else (velocity, -tau, *still)
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            velocity, tau = self.evaluate(t, z, extras=extras)
            assert tau is not None
            logp = states[1].unsqueeze(1)
            slope = -tau.unsqueeze(1)
            penalties = evaluate(self.regularization_fns, z, logp, velocity, slope)
        return velocity, -tau, *penalties, *still


def solve(
    odefunc: nn.Module,
    z: Tensor,
    times: Tensor,
    settings: Settings,
    *,
    context: Tensor | None = None,
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
        settings: How to solve, see `Settings.present`.
        context: (B, C), for a velocity that takes one.
        joined: As of `mvae_fast.core.grid.stepped`.
        trace: ``"exact"``, ``"hutchinson"``, or None for no trace.
        probes: (K, B, ...), scaled, for ``"hutchinson"``.
        regularization_fns: Integrated along the path; they need a trace.

    Returns:
        The states at ``times``.
    """
    if z.numel() == 0 and regularization_fns:  # whose mean over no rows would be NaN
        solution = solve(
            base_of(odefunc), z, times, settings, context=context, trace=trace, probes=probes
        )
        penalties = tuple(z.new_zeros(times.shape[0]) for _ in regularization_fns)
        return replace(solution, penalties=penalties)
    base = base_of(odefunc)
    dynamics: nn.Module
    start = [z]
    if must_be_called(odefunc) is None:
        assert isinstance(base, ODEfunc)
        base.evaluations = 0
        dynamics = _Dynamics(base, trace, probes, regularization_fns, context is not None)
        if trace is not None:
            start.append(z.new_zeros(z.shape[0]))
    else:
        dynamics = Called(odefunc, trace, probes)
        start.append(z.new_zeros((z.shape[0], 1)))
    start += [z.new_zeros(()) for _ in regularization_fns]
    if context is not None:
        start.append(context)
    path = integrate(dynamics, tuple(start), times, settings, joined)
    if trace is None:
        return Solution(path[0], None, ())
    return Solution(path[0], path[1], tuple(path[2 : 2 + len(regularization_fns)]))


def integrate(
    slopes: Callable[..., tuple[Tensor, ...]],
    start: tuple[Tensor, ...],
    times: Tensor,
    settings: Settings,
    joined: float = 0.0,
) -> tuple[Tensor, ...]:
    """The states of a system at ``times``, by torchdiffeq.

    Args:
        slopes: Derivatives of the states at a time; with ``settings.adjoint`` a module.
        start: The states at the first time, of which the first one has the rows.
        times: (len,), strictly monotone.
        settings: How to solve, see `Settings.present`.
        joined: As of `mvae_fast.core.grid.stepped`.
    """
    if start[0].numel() == 0:
        # Of no rows an adaptive solver finds no step small enough, and an implicit one no largest
        # error.
        settings = replace(settings, solver="euler", n_steps=1, solver_options={})
    if settings.solver in ENGINES_ALONE:
        raise ValueError(
            f"solver: {settings.solver!r} is one of the engines', which cannot take this velocity, "
            "its adjoint or its solver_options; remedy: solver='dopri5'"
        )
    options = dict(settings.solver_options)
    if settings.solver in FIXED_GRID and "grid_constructor" not in options:
        step_size = options.pop("step_size", None)
        options["grid_constructor"] = (
            equal_steps(settings.steps) if step_size is None else steps_of(step_size, joined)
        )
    from torchdiffeq import odeint, odeint_adjoint  # only now: it imports scipy

    integrator: Callable[..., tuple[Tensor, ...]] = odeint_adjoint if settings.adjoint else odeint
    return integrator(
        slopes,
        start,
        times,
        atol=float(settings.atol),
        rtol=float(settings.rtol),
        method=settings.solver,
        options=options,
    )


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
