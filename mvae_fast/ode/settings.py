"""How a flow is solved, as one value, and FFJORD's attributes for it, which scripts set from
outside."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import torch
from torch import nn

from mvae_fast import engines
from mvae_fast.checks import boolean, integer, mapping, non_negative, one_of
from mvae_fast.core.problem import (
    LOG_DETS,
    MEMORIES,
    PRECISIONS,
    TRACES,
    LogDet,
    Memory,
    Precision,
    Trace,
)
from mvae_fast.core.tableaus import EMBEDDED, TABLEAUS

#: Steps of a fixed-step solver where none are given.
N_STEPS = 20
#: The solvers: the engines' own (`mvae_fast.core.tableaus`), and those of torchdiffeq.
Solver = Literal[
    "euler", "midpoint", "heun2", "heun3", "rk4",
    "explicit_adams", "implicit_adams", "fixed_adams",
    "dopri5", "tsit5", "bosh3", "fehlberg2", "adaptive_heun", "dopri8", "scipy_solver",
]  # fmt: skip
#: Solvers that take the steps they are told to.
FIXED_GRID: tuple[str, ...] = (*TABLEAUS, "explicit_adams", "implicit_adams", "fixed_adams")
#: Solvers that choose their steps by ``atol`` and ``rtol``.
ADAPTIVE = (*EMBEDDED, "dopri8", "scipy_solver")
#: Of these, the one that torchdiffeq has not.
ENGINES_ALONE = ("tsit5",)
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
class Settings:
    """How to solve: what the arguments of `mvae_fast.FastCNF` of the same names say.

    ``test_solver``, ``test_atol`` and ``test_rtol`` hold in eval mode where they are not None.

    Example:
        >>> Settings(solver="rk4", test_solver="euler").present(training=False).solver
        'euler'
    """

    solver: Solver = "euler"
    atol: float = 1e-5
    rtol: float = 1e-5
    n_steps: int | None = None
    trace: Trace | None = None
    n_probes: int = 1
    engine: engines.EngineName = "auto"
    adjoint: bool = False
    log_det: LogDet = "trace"
    checkpoint_every: int = 1
    precision: Precision | None = None
    memory: Memory | int = "auto"
    test_solver: Solver | None = None
    test_atol: float | None = None
    test_rtol: float | None = None
    solver_options: Mapping[str, Any] = field(default_factory=dict)
    check_finite: bool = False

    def check(self, training: bool) -> None:
        """Raise ValueError for a setting that does not fit in a mode."""
        if self.n_steps is not None:
            integer("n_steps", self.n_steps, 1)
        integer("n_probes", self.n_probes, 1)
        integer("checkpoint_every", self.checkpoint_every, 1)
        boolean("adjoint", self.adjoint)
        boolean("check_finite", self.check_finite)
        one_of("trace", self.trace, (None, *TRACES))
        one_of("log_det", self.log_det, LOG_DETS)
        one_of("precision", self.precision, (None, *PRECISIONS))
        if isinstance(self.memory, str):
            one_of("memory", self.memory, MEMORIES)
        else:
            integer("memory", self.memory, 0)
        engines.check_name(self.engine)
        mapping("solver_options", self.solver_options)
        prefix, present = "" if training else "test_", self.present(training)
        check_solver(present.solver, f"{prefix}solver")
        non_negative(f"{prefix}atol", present.atol)
        non_negative(f"{prefix}rtol", present.rtol)

    def present(self, training: bool) -> Settings:
        """The settings of a mode, as if they were those of training."""
        if training:
            return self
        tests = {"solver": self.test_solver, "atol": self.test_atol, "rtol": self.test_rtol}
        changes: dict[str, Any] = {name: x for name, x in tests.items() if x is not None}
        return replace(self, **changes) if changes else self

    @property
    def steps(self) -> int:
        """Of a fixed-step solver, in each interval between times."""
        n_steps = N_STEPS if self.n_steps is None else int(self.n_steps)
        # Settings that are an argument of a compiled flow are traced as numbers that may change.
        # This one is how many steps there are in the graph, and a list has a length that is known.
        return len([None] * n_steps) if torch.compiler.is_compiling() else n_steps


def _attribute(name: str) -> Any:
    """A setting as FFJORD has it: an attribute, which may be set at any time."""

    def get(self: HasSettings) -> Any:
        found = getattr(self.settings, name)
        return getattr(self.settings, name.removeprefix("test_")) if found is None else found

    def set_(self: HasSettings, value: Any) -> None:
        self.settings = replace(self.settings, **{name: value})
        self._told_solver = self._told_solver or name.endswith("solver")

    return property(get, set_)


class HasSettings(nn.Module):
    """A module with `Settings`, each of which is an attribute, too.

    Args:
        settings: The settings at first.
    """

    solver: Solver = _attribute("solver")
    atol: float = _attribute("atol")
    rtol: float = _attribute("rtol")
    trace: Trace | None = _attribute("trace")
    n_probes: int = _attribute("n_probes")
    engine: engines.EngineName = _attribute("engine")
    adjoint: bool = _attribute("adjoint")
    log_det: LogDet = _attribute("log_det")
    checkpoint_every: int = _attribute("checkpoint_every")
    precision: Precision | None = _attribute("precision")
    memory: Memory | int = _attribute("memory")
    check_finite: bool = _attribute("check_finite")
    test_solver: Solver | None = _attribute("test_solver")
    test_atol: float | None = _attribute("test_atol")
    test_rtol: float | None = _attribute("test_rtol")
    solver_options: Mapping[str, Any] = _attribute("solver_options")

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self._told_solver = False  # whether a solver was set from outside
        self._checked: tuple[Settings, bool] | None = None
        self.check_settings()

    @property
    def n_steps(self) -> int:
        """Steps of a fixed-step solver in each interval between times."""
        return N_STEPS if self.settings.n_steps is None else self.settings.n_steps

    @n_steps.setter
    def n_steps(self, n_steps: int) -> None:
        self.settings = replace(self.settings, n_steps=n_steps)

    def check_settings(self) -> None:
        """Raise ValueError for a setting that does not fit; done on every call of the flow."""
        settings, training = self.settings, self.training
        checked = self._checked
        if checked is None or checked[0] is not settings or checked[1] is not training:
            settings.check(training)
            self._checked = (settings, training)
        if self._told_solver:
            self._warn_of_steps()

    def _warn_of_steps(self) -> None:
        options = self.settings.solver_options
        told = options.get("step_size") is not None or "grid_constructor" in options
        told = told or self.settings.n_steps is not None or torch.compiler.is_compiling()
        if not told and self.settings.present(self.training).solver in FIXED_GRID:
            _warn_once(
                "solver: a fixed-step solver was set from outside without steps, and takes "
                f"{N_STEPS}, where FFJORD takes one; remedy: n_steps=1 for FFJORD's result, "
                f"n_steps={N_STEPS} to keep this one"
            )


@cache
def _warn_once(message: str) -> None:
    """Once a process, whatever the filters of warnings are."""
    warnings.warn(message, stacklevel=2)
