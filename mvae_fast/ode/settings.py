"""How a flow is solved: the attributes that FFJORD's scripts set from outside."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import nn

from mvae_fast import engines
from mvae_fast.checks import boolean, integer, mapping, non_negative, one_of
from mvae_fast.core import problem
from mvae_fast.core.logdet import LOG_DETS
from mvae_fast.ode.dynamics import TRACES
from mvae_fast.ode.torchdiffeq import FIXED_GRID, SolverConfig, check_solver

__all__ = ["PRECISIONS", "SolverSettings"]

#: Steps of a fixed-step solver where none are given.
N_STEPS = 20
#: Of the operands of a flow's products; None follows autocast.
PRECISIONS: tuple[str | None, ...] = (None, *problem.PRECISIONS)

_TRACES: tuple[str | None, ...] = (None, *TRACES)


class SolverSettings(nn.Module):
    """Solver, steps, tolerances, trace and engine of a flow.

    Every argument is an attribute that may be set at any time. ``solver``, ``atol`` and ``rtol``
    hold in both modes, unless ``test_solver``, ``test_atol`` or ``test_rtol`` is set for eval mode;
    ``solver_options`` hold in both modes.

    Args: as of `mvae_fast.FastCNF`.
    """

    def __init__(
        self,
        *,
        solver: str,
        atol: float,
        rtol: float,
        n_steps: int | None,
        trace: str | None,
        n_probes: int,
        engine: str,
        adjoint: bool,
        log_det: str,
        checkpoint_every: int,
        precision: str | None,
    ) -> None:
        super().__init__()
        self._solver = solver
        self._solver_was_set = False
        self.atol = atol
        self.rtol = rtol
        self.solver_options: dict[str, Any] = {}
        self._n_steps = n_steps
        self.trace = trace
        self.n_probes = n_probes
        self.engine = engine
        self.adjoint = adjoint
        self.log_det = log_det
        self.checkpoint_every = checkpoint_every
        self.precision = precision
        self._test: dict[str, Any] = {}
        self.check_settings()
        self.solver_config()

    def check_settings(self) -> None:
        """Raise ValueError for a setting that does not fit; done on every call of the flow."""
        for name in ("n_steps", "n_probes", "checkpoint_every"):
            integer(name, getattr(self, name), 1)
        boolean("adjoint", self.adjoint)
        one_of("trace", self.trace, _TRACES)
        one_of("log_det", self.log_det, LOG_DETS)
        one_of("precision", self.precision, PRECISIONS)
        engines.check_name(self.engine)
        mapping("solver_options", self.solver_options)
        solver = self.solver if self.training else self.test_solver
        check_solver(solver, "solver" if self.training else "test_solver")
        options = self.solver_options
        told = options.get("step_size") is not None or "grid_constructor" in options
        told = told or self._n_steps is not None
        if self._solver_was_set and solver in FIXED_GRID and not told:
            _warn_of_steps()

    def solver_config(self) -> SolverConfig:
        """The settings of the present mode, as torchdiffeq takes them.

        Raises:
            ValueError: If a tolerance does not fit.
        """
        prefix = "" if self.training else "test_"
        atol, rtol = (
            non_negative(name, getattr(self, name)) for name in (f"{prefix}atol", f"{prefix}rtol")
        )
        return SolverConfig(
            self.solver if self.training else self.test_solver,
            int(self.n_steps),
            atol,
            rtol,
            self.solver_options,
            bool(self.adjoint),
        )

    @property
    def solver(self) -> str:
        """Solver of both modes, unless ``test_solver`` is set."""
        return self._solver

    @solver.setter
    def solver(self, name: str) -> None:
        self._solver = name
        self._solver_was_set = True

    @property
    def n_steps(self) -> int:
        """Steps of a fixed-step solver in each interval between times."""
        return N_STEPS if self._n_steps is None else self._n_steps

    @n_steps.setter
    def n_steps(self, n_steps: int) -> None:
        self._n_steps = n_steps

    @property
    def test_solver(self) -> str:
        """Solver in eval mode: ``solver`` unless it is set."""
        return self._test.get("solver", self.solver)

    @test_solver.setter
    def test_solver(self, name: str) -> None:
        self._test["solver"] = name
        self._solver_was_set = True

    @property
    def test_atol(self) -> float:
        """Absolute tolerance in eval mode: ``atol`` unless it is set."""
        return self._test.get("atol", self.atol)

    @test_atol.setter
    def test_atol(self, atol: float) -> None:
        self._test["atol"] = atol

    @property
    def test_rtol(self) -> float:
        """Relative tolerance in eval mode: ``rtol`` unless it is set."""
        return self._test.get("rtol", self.rtol)

    @test_rtol.setter
    def test_rtol(self, rtol: float) -> None:
        self._test["rtol"] = rtol


def _warn_of_steps() -> None:
    if not torch.compiler.is_compiling():
        _warn_once(
            f"solver: a fixed-step solver was set from outside without steps, and takes {N_STEPS}, "
            f"where FFJORD takes one; remedy: n_steps=1 for FFJORD's result, n_steps={N_STEPS} to "
            "keep this one"
        )


@cache
def _warn_once(message: str) -> None:
    """Once a process, whatever the filters of warnings are."""
    warnings.warn(message, stacklevel=2)
