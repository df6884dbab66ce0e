"""The end time of a flow, and the steps over its interval [0, T]."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mvae_fast import engines
from mvae_fast.checks import boolean, positive
from mvae_fast.core import adaptive, grid
from mvae_fast.core.field import Field
from mvae_fast.core.problem import Problem
from mvae_fast.core.tableaus import EULER, Embedded, Tableau
from mvae_fast.core.tables import Tables
from mvae_fast.ode.settings import Settings


class HasEndTime(nn.Module):
    """A module with FFJORD's ``sqrt_end_time``: a buffer or, where T is learned, a parameter."""

    sqrt_end_time: Tensor

    def _register_end_time(self, T: float, train_T: bool) -> None:
        root = torch.tensor(positive("T", T)).sqrt()
        if boolean("train_T", train_T):
            self.register_parameter("sqrt_end_time", nn.Parameter(root))
        else:
            self.register_buffer("sqrt_end_time", root)
        self._kept: tuple[tuple[Any, ...], grid.Grid] | None = None

    def _grid(
        self, settings: Settings, times: Tensor | None, reverse: bool
    ) -> tuple[grid.Grid, Tensor | None]:
        """The steps, and the times that they lead through, where these are not the default."""
        step_size = settings.solver_options.get("step_size")
        if step_size is not None:
            joined = self._joined(times)
            times = self._default_times(reverse) if times is None else times
            return grid.stepped(times, step_size, joined=joined), times
        if times is None:
            return self._kept_grid(settings.steps, reverse), None
        return grid.subdivided(times, settings.steps), times

    def _kept_grid(self, n_steps: int, reverse: bool) -> grid.Grid:
        """``n_steps`` equal steps to T or back, made once while T is a constant.

        They took a tenth of a call of a small net.
        """
        if torch.compiler.is_compiling() or engines.transformed():
            return grid.from_zero(self._end_time, n_steps, reverse)
        end = self.sqrt_end_time
        # By its value, which a change of `data` does not hide; of a GPU that would be waited for.
        constant = type(end) is Tensor and end.device.type == "cpu" and not end.requires_grad
        if not constant or end.is_inference() or torch.is_inference_mode_enabled():
            return grid.from_zero(self._end_time, n_steps, reverse)
        key = (end.item(), end.dtype, n_steps, reverse)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, grid.from_zero(self._end_time, n_steps, reverse))
        return self._kept[1]

    @property
    def _end_time(self) -> Tensor:
        # Not by square(): AOTInductor cannot lower the power of a constant.
        end = self.sqrt_end_time
        return end * end

    def _joined(self, times: Tensor | None) -> float:
        """Up to what share of a step the rest of an interval is no step of its own."""
        # Not by its type: torch.func.functional_call puts plain tensors in place of parameters.
        learned = times is None and "sqrt_end_time" in self._parameters
        return grid.JOINED if learned else 0.0

    def _default_times(self, reverse: bool) -> Tensor:
        end = self._end_time
        start = torch.zeros_like(end)
        return torch.stack((end, start) if reverse else (start, end))


def searched_grid(
    settings: Settings,
    times: Tensor,
    method: Embedded,
    problem_of: Callable[[grid.Grid, Tableau], Problem],
) -> tuple[grid.Grid, adaptive.Found]:
    """The steps that an embedded pair takes through ``times``, differentiable in them.

    Args:
        settings: How to solve, see `Settings.present`.
        times: (n + 1,), all ascending or all descending.
        method: The pair.
        problem_of: The problem of some steps of a method.
    """
    grid.by_value("solver", "a solver with fixed steps")
    control = adaptive.Control.of(settings.rtol, settings.atol, settings.solver_options)
    attempt = grid.Grid(times[:1], times[:1] - times[:1], (1,))

    def field_at(t: Tensor) -> Field | Tables:
        return problem_of(grid.Grid(t, torch.zeros_like(t), (1,)), EULER).field

    problem = problem_of(attempt, method.tableau)
    found = engines.search(settings.engine, problem, field_at, times.tolist(), method, control)
    return adaptive.grid_of(times, found), found
