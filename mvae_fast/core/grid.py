"""Times and step sizes of fixed-step solves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from mvae_fast.checks import positive

#: With a learned end time, a rest of less than this share of a step is no step of its own: an
#: end that moves is no multiple of the step, and each time it passes one by a little it would
#: cost one more evaluation for nothing.
JOINED = 1 / 16


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


def check_times(times: Tensor | Sequence[float], z: Tensor) -> Tensor:
    """The times in the dtype and on the device of the state ``z``.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If they are not a vector of two or more, or, for times on the CPU that are not
            traced, not all ascending or all descending: others would have to be waited for.
    """
    if not isinstance(times, Tensor):
        try:
            times = torch.as_tensor(times, dtype=z.dtype)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"integration_times: got {times!r}, expected a tensor (len,) or a list of numbers"
            ) from None
    times = times.to(z.dtype)
    if times.ndim != 1 or times.shape[0] < 2:
        raise ValueError(
            f"integration_times: got shape {tuple(times.shape)}, expected (len,) with len >= 2"
        )
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    # Of a fake tensor, detach keeps the type.
    if not traced and times.device.type == "cpu" and type(times.detach()) is Tensor:
        _check_order(times.detach().tolist())
    return times.to(z.device)


def _check_order(values: list[float]) -> None:
    for earlier, later in pairwise(values):
        if not 0 < math.copysign(1.0, values[1] - values[0]) * (later - earlier) < math.inf:
            raise ValueError(
                f"integration_times: got {earlier:g}, then {later:g}, expected all to increase or "
                "all to decrease"
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
        return Grid(h, -h, (1,)) if reverse else Grid(h.new_zeros(1), h, (1,))
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


def stepped(times: Tensor, step_size: float, *, joined: float = 0.0) -> Grid:
    """Steps of ``step_size`` from the first to the last of ``times``, the last one of what is left.

    torchdiffeq's grid, by count: a rest that is rounding is no step of its own. Reports the state
    after every step; `between` reads the states at ``times`` from them. The count depends on the
    values of ``times``, hence a host synchronisation.

    Args:
        times: (len,), all ascending or all descending.
        step_size: > 0.
        joined: Share of a step. A shorter rest is joined to the last whole step.

    Raises:
        ValueError: If an argument does not fit.

    Example:
        >>> stepped(torch.tensor([0.0, 1.0]), 0.4).h
        tensor([0.4000, 0.4000, 0.2000])
        >>> stepped(torch.tensor([0.0, 0.82]), 0.4, joined=0.1).h
        tensor([0.4000, 0.4200])
    """
    step_size = positive("solver_options['step_size']", step_size)
    n_steps, ahead = _count(times.detach(), step_size, joined)
    h = step_size if ahead else -step_size
    t = times[0] + h * torch.arange(n_steps, dtype=times.dtype, device=times.device)
    whole = torch.full_like(t[1:], h)
    return Grid(t, torch.cat((whole, times[-1:] - t[-1:])), tuple(range(1, n_steps + 1)))


def _count(times: Tensor, step_size: float, joined: float) -> tuple[int, bool]:
    """How many steps `stepped` takes, and whether they go forward."""
    by_value("solver_options['step_size']", "n_steps, and no step_size")
    values = times.tolist()
    _check_order(values)
    first, last = values[0], values[-1]
    # What the times are off by, each rounded to its dtype, and what their product may add.
    rounding = 4 * torch.finfo(times.dtype).eps * max(abs(first), abs(last)) / step_size
    rest = min(max(joined, rounding), 0.5)
    return max(1, math.ceil(abs(last - first) / step_size - rest)), last > first


def by_value(what: str, remedy: str) -> None:
    """Keep a number of steps that depends on the values of times out of graphs.

    Raises:
        ValueError: In an export.
    """
    why = f"{what}: the number of steps depends on the values of the times"
    if torch.compiler.is_exporting():
        raise ValueError(f"{why}, which an exported graph does not know; remedy: {remedy}")
    if torch.compiler.is_compiling():
        # One break, and words for those who want none (fullgraph=True).
        leave = getattr(torch._dynamo, "skip_frame", torch._dynamo.graph_break)
        leave(msg=f"{why}; remedy: {remedy}")


def between(grid: Grid, times: Tensor, start: Tensor | None, path: Tensor) -> Tensor:
    """Read a path of Euler's method at ``times``: linear between the steps, as Euler itself is.

    Args:
        grid: A grid of `stepped`, which reports every step.
        times: (n,), within the grid, the first its start and the last its end.
        start: (...), the values at the start; None for zeros.
        path: (S, ...), those after each step.

    Returns:
        (n - 1, ...), after the first time.
    """
    start = torch.zeros_like(path[0]) if start is None else start
    path = torch.cat((start.unsqueeze(0), path))
    inner = times[1:-1]
    ahead = torch.sign(grid.h[0].detach())
    s = torch.searchsorted((grid.t * ahead).detach(), (inner * ahead).detach(), right=True) - 1
    share = ((inner - grid.t[s]) / grid.h[s]).reshape(-1, *(1,) * (path.ndim - 1))
    return torch.cat((torch.lerp(path[s], path[s + 1], share), path[-1:]))
