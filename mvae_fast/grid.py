"""Times and step sizes of fixed-step solves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Grid",
    "evaluation_times",
    "between",
    "check_times",
    "from_zero",
    "stepped",
    "subdivided",
]


@dataclass(frozen=True)
class Grid:
    """The grid of a fixed-step method.

    Args:
        t: (S,), the time at which each step starts.
        h: (S,), the step sizes; negative where time runs backwards.
        outputs: Step counts after which the state is wanted.
    """

    t: Tensor
    h: Tensor
    outputs: tuple[int, ...]


def check_times(times: Tensor, z: Tensor) -> Tensor:
    """The times in the dtype and on the device of the state ``z``.

    Raises:
        ValueError: If they are not a vector of two or more, or, for times on the CPU that are not
            traced, not all ascending or all descending: others would have to be waited for.
    """
    times = torch.as_tensor(times, dtype=z.dtype)
    if times.ndim != 1 or times.shape[0] < 2:
        raise ValueError(
            f"integration_times: got shape {tuple(times.shape)}, expected (len,) with len >= 2"
        )
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    # Of a fake tensor, detach keeps the type.
    if not traced and times.device.type == "cpu" and type(times.detach()) is Tensor:
        _check_order(times.detach())
    return times.to(z.device)


def _check_order(times: Tensor) -> None:
    steps = times.diff()
    ordered = steps * torch.sign(steps[0]) > 0
    if not bool(ordered.all()):
        first = int(ordered.int().argmin())
        raise ValueError(
            f"integration_times: got {times[first]:g}, then {times[first + 1]:g}, expected all to "
            "increase or all to decrease"
        )


def evaluation_times(grid: Grid, c: tuple[float, ...]) -> Tensor:
    """The times (S * R,) at which a method with stages at ``c`` evaluates the velocity."""
    if len(c) == 1:
        return grid.t
    # Not by a tensor of c: its copy to a GPU would wait for it, and no CUDA graph could hold it.
    return torch.stack([torch.add(grid.t, grid.h, alpha=share) for share in c], 1).flatten()


def from_zero(end: Tensor, n_steps: int, reverse: bool) -> Grid:
    """``n_steps`` equal steps over [0, end], or from ``end`` to 0; the path of every plain call.

    Args:
        end: 0-dim, the end time.
        n_steps: S.
        reverse: From ``end`` down to 0.
    """
    if n_steps == 1:  # the paper's setting, in which every call of PyTorch counts
        h = end.reshape(1)
        return Grid(h, -h, (1,)) if reverse else Grid(torch.zeros_like(h), h, (1,))
    h = (end / n_steps).expand(n_steps)
    k = torch.arange(n_steps, dtype=end.dtype, device=end.device)
    if reverse:
        return Grid(torch.addcmul(end, h, k, value=-1), -h, (n_steps,))
    return Grid(h * k, h, (n_steps,))


def subdivided(times: Tensor, n_steps: int) -> Grid:
    """``n_steps`` equal steps between each two consecutive ``times``.

    Example:
        >>> subdivided(torch.tensor([0.0, 1.0, 3.0]), 2).t
        tensor([0.0000, 0.5000, 1.0000, 2.0000])
    """
    intervals = times.shape[0] - 1
    h = (times.diff() / n_steps).unsqueeze(1).expand(intervals, n_steps)
    k = torch.arange(n_steps, dtype=times.dtype, device=times.device)
    t = torch.addcmul(times[:-1].unsqueeze(1), h, k)
    outputs = tuple(range(n_steps, intervals * n_steps + 1, n_steps))
    return Grid(t.reshape(-1), h.reshape(-1), outputs)


def stepped(times: Tensor, step_size: float) -> Grid:
    """Steps of ``step_size`` from the first to the last of ``times``, the last one shorter.

    torchdiffeq's grid. Reports the state after every step; `between` reads the states at ``times``
    from them. Their number depends on the values of ``times``, hence a host synchronisation.

    Raises:
        ValueError: If ``step_size`` is not positive, or ``times`` are not all ascending or all
            descending.
    """
    if not step_size > 0:
        raise ValueError(f"solver_options['step_size']: got {step_size}, expected > 0")
    _check_order(times.detach())
    start, end = times[0], times[-1]
    span = end - start
    n_steps = max(1, int(torch.ceil(span.detach().abs() / step_size).item()))
    k = torch.arange(n_steps, dtype=times.dtype, device=times.device)
    t = start + torch.sign(span.detach()) * step_size * k
    h = torch.cat((t, end.reshape(1))).diff()
    return Grid(t, h, tuple(range(1, n_steps + 1)))


def between(grid: Grid, times: Tensor, path: Tensor) -> Tensor:
    """Read a path of Euler's method at ``times``: linear between the steps, as Euler itself is.

    Args:
        grid: A grid of `stepped`, which reports every step.
        times: (n,), within the grid, the first its start and the last its end.
        path: (S + 1, ...), the values at the start and after each step.

    Returns:
        (n, ...).
    """
    ahead = torch.sign(grid.h[0].detach())
    s = torch.searchsorted((grid.t * ahead).detach(), (times * ahead).detach(), right=True) - 1
    share = ((times - grid.t[s]) / grid.h[s]).reshape(-1, *(1,) * (path.ndim - 1))
    return torch.lerp(path[s], path[s + 1], share)
