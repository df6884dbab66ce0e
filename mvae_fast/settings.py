"""How a flow is solved: the attributes that FFJORD's scripts set from outside."""

from __future__ import annotations

from typing import Any

from torch import nn

from mvae_fast import engines, problem
from mvae_fast.checks import integer
from mvae_fast.dynamics import TRACES
from mvae_fast.logdet import LOG_DETS
from mvae_fast.solvers import SolverConfig, check_solver

__all__ = ["PRECISIONS", "SolverSettings"]

#: Of the operands of a flow's products; None follows autocast.
PRECISIONS: tuple[str | None, ...] = (None, *problem.PRECISIONS)


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
        n_steps: int,
        trace: str | None,
        n_probes: int,
        engine: str,
        adjoint: bool,
        log_det: str,
        checkpoint_every: int,
        precision: str | None,
    ) -> None:
        super().__init__()
        self.solver = solver
        self.atol = atol
        self.rtol = rtol
        self.solver_options: dict[str, Any] = {}
        self.n_steps = n_steps
        self.trace = trace
        self.n_probes = n_probes
        self.engine = engine
        self.adjoint = adjoint
        self.log_det = log_det
        self.checkpoint_every = checkpoint_every
        self.precision = precision
        self._test: dict[str, Any] = {}
        engines.check_name(engine)
        self.check_settings()

    def check_settings(self) -> None:
        """Raise ValueError for a setting that does not fit; done on every call of the flow."""
        for name in ("n_steps", "n_probes", "checkpoint_every"):
            integer(name, getattr(self, name), 1)
        if self.trace is not None and self.trace not in TRACES:
            raise ValueError(f"trace: got {self.trace!r}, expected None, 'exact' or 'hutchinson'")
        if self.log_det not in LOG_DETS:
            names = ", ".join(map(repr, LOG_DETS))
            raise ValueError(f"log_det: got {self.log_det!r}, expected one of {names}")
        if self.precision not in PRECISIONS:
            names = ", ".join(map(repr, PRECISIONS))
            raise ValueError(f"precision: got {self.precision!r}, expected one of {names}")
        if self.training:
            check_solver(self.solver)
        else:
            check_solver(self.test_solver, "test_solver")

    def solver_config(self) -> SolverConfig:
        """The settings of the present mode, as torchdiffeq takes them."""
        if self.training:
            solver, atol, rtol = self.solver, self.atol, self.rtol
        else:
            solver, atol, rtol = self.test_solver, self.test_atol, self.test_rtol
        return SolverConfig(solver, self.n_steps, atol, rtol, self.solver_options, self.adjoint)

    @property
    def test_solver(self) -> str:
        """Solver in eval mode: ``solver`` unless it is set."""
        return self._test.get("solver", self.solver)

    @test_solver.setter
    def test_solver(self, name: str) -> None:
        self._test["solver"] = name

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
