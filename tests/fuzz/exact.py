"""A solve from the mathematics: the layers' own forward, autograd, and loops over steps.

Nothing here knows of the package's tables, grids or tableaus. In float64 it is the oracle, in
float32 what eager PyTorch makes of the same discrete steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vmap

from tests.fuzz.problems import Problem, Tensors

# c, rows of a, b. Midpoint, Heun of orders 2 and 3, and Kutta's 3/8 rule.
METHODS: dict[str, tuple[list[float], list[list[float]], list[float]]] = {
    "euler": ([0], [[]], [1]),
    "midpoint": ([0, 1 / 2], [[], [1 / 2]], [0, 1]),
    "heun2": ([0, 1], [[], [1]], [1 / 2, 1 / 2]),
    "heun3": ([0, 1 / 3, 2 / 3], [[], [1 / 3], [0, 2 / 3]], [1 / 4, 0, 3 / 4]),
    "rk4": (
        [0, 1 / 3, 2 / 3, 1],
        [[], [1 / 3], [-1 / 3, 1], [1, -1, 1]],
        [1 / 8, 3 / 8, 3 / 8, 1 / 8],
    ),
}

Field = Callable[[Tensor], Tensor]


def products(f: Field, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """f(z), and J v for directions (K, B, D)."""

    def product(v: Tensor) -> tuple[Tensor, Tensor]:
        return jvp(f, (z,), (v,))

    z = z.contiguous()  # forward mode takes no expanded state
    value, tangent = vmap(product)(directions)
    return value[0], tangent


def jacobian(f: Field, z: Tensor) -> tuple[Tensor, Tensor]:
    """f(z), and its Jacobian (B, D, D): row i the derivatives of f_i."""
    unit = torch.eye(z.shape[1], dtype=z.dtype).unsqueeze(1).expand(-1, *z.shape)
    value, tangent = products(f, z, unit)
    return value, tangent.permute(1, 2, 0)


def grid(problem: Problem, tensors: Tensors) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """Start and size of every step, and the times at which the path is wanted, after the first."""
    end = tensors.root_end**2
    times = list(tensors.times) if tensors.times is not None else [torch.zeros_like(end), end]
    times = times[::-1] if problem.reverse else times
    if problem.step_size is None:
        steps = []
        for t0, t1 in zip(times[:-1], times[1:], strict=True):
            h = (t1 - t0) / problem.n_steps
            steps += [(t0 + h * k, h) for k in range(problem.n_steps)]
        return steps, times[1:]
    sign = 1.0 if times[-1] > times[0] else -1.0
    starts = [times[0]]
    while sign * (times[-1] - starts[-1]).item() > problem.step_size:
        starts.append(times[0] + sign * problem.step_size * len(starts))
    ends = [*starts[1:], times[-1]]
    return [(t0, t1 - t0) for t0, t1 in zip(starts, ends, strict=True)], times[1:]


class Solver:
    """Integrates one problem; `path` has state, log-density and penalties after every step."""

    def __init__(self, problem: Problem, tensors: Tensors) -> None:
        self.problem, self.tensors = problem, tensors
        probes = tensors.probes
        self.probes = None if probes is None else probes / problem.n_probes**0.5
        deep = len(problem.hidden) > 2
        # Beyond two hidden layers the exact trace takes the unit vectors, exact for the norm, too.
        self.exact_norm = problem.trace == "exact" and deep

    def field(self, t: Tensor) -> Field:
        def f(z: Tensor) -> Tensor:
            velocity = self.tensors.net(t, z, self.tensors.context)
            return velocity - z if self.problem.residual else velocity

        return f

    def integrands(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Velocity, trace (0 if none is wanted) and penalties at one point."""
        problem, f = self.problem, self.field(t)
        tangent = full = None
        trace = z.new_zeros(z.shape[0])
        velocity = None
        sampled = "jacobian_norm" in problem.penalties and not self.exact_norm
        if problem.trace == "exact" and problem.log_det != "exact":
            velocity, full = jacobian(f, z)
            trace = full.diagonal(dim1=1, dim2=2).sum(1)
        if problem.trace == "hutchinson" or sampled:
            velocity, tangent = products(f, z, self.probes)
            if problem.trace == "hutchinson":
                trace = (self.probes * tangent).sum((0, 2))
                if problem.residual:  # of f - z: that of -z is known, and not estimated
                    trace = trace + (self.probes**2).sum((0, 2)) - z.shape[1]
        if velocity is None:
            velocity = f(z)
        self.full = full
        penalties = []
        for name in problem.penalties:
            if name == "l1int":
                value = velocity.abs().mean(1)
            elif name == "l2int":
                value = torch.linalg.vector_norm(velocity, dim=1) / velocity.shape[1] ** 0.5
            elif name == "kinetic_energy":
                value = (velocity**2).sum(1)
            elif self.exact_norm:
                value = (full**2).sum((1, 2))
            else:
                value = (tangent**2).sum((0, 2))
            penalties.append(value)
        return velocity, trace, penalties

    def advance(self, t: Tensor, h: Tensor, z: Tensor) -> Tensor:
        """The state after one step, alone."""
        c, a, b = METHODS[self.problem.solver]
        ks: list[Tensor] = []
        for share, row in zip(c, a, strict=True):
            stage = z
            for weight, k in zip(row, ks, strict=True):
                stage = stage + h * weight * k
            ks.append(self.field(t + share * h)(stage))
        for weight, k in zip(b, ks, strict=True):
            z = z + h * weight * k
        return z

    def step(
        self, t: Tensor, h: Tensor, z: Tensor, logp: Tensor, totals: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        problem = self.problem
        if problem.log_det == "exact":
            after, full = jacobian(lambda x: self.advance(t, h, x), z)
            return after, logp - torch.linalg.slogdet(full)[1], totals
        c, a, b = METHODS[problem.solver]
        ks: list[Tensor] = []
        for share, row, weight in zip(c, a, b, strict=True):
            stage = z
            for factor, k in zip(row, ks, strict=True):
                if factor:
                    stage = stage + h * factor * k
            velocity, trace, penalties = self.integrands(t + share * h, stage)
            ks.append(velocity)
            logp = logp - h * weight * trace
            if problem.log_det == "second_order":
                logp = logp + h**2 / 2 * (self.full * self.full.mT).sum((1, 2))
            totals = [x + h * weight * y for x, y in zip(totals, penalties, strict=True)]
        after = z
        for weight, k in zip(b, ks, strict=True):
            after = after + h * weight * k
        return after, logp, totals

    def solve(self) -> dict[str, Tensor]:
        """Values after the wanted times, by name: leading axis the times, where more than one."""
        problem, z = self.problem, self.tensors.z
        logp = z[:, 0] * 0.5
        totals = [z.new_zeros(z.shape[0]) for _ in problem.penalties]
        steps, wanted = grid(problem, self.tensors)
        path = [(z, logp, totals)]
        for t, h in steps:
            path.append(self.step(t, h, *path[-1]))
        if problem.step_size is None:
            found = [path[problem.n_steps * (i + 1)] for i in range(len(wanted))]
        else:
            found = [self.between(steps, path, time) for time in wanted]
        values = {"z": torch.stack([x[0] for x in found])}
        if problem.trace is not None:
            values["logp"] = torch.stack([x[1] for x in found])
        for i, name in enumerate(problem.penalties):
            values[name] = torch.stack([x[2][i].mean() for x in found])
        return values

    def between(self, steps, path, time):  # type: ignore[no-untyped-def]
        """A path linear between its steps at one time."""
        sign = 1.0 if steps[0][1] > 0 else -1.0
        i = max(k for k, (t, _) in enumerate(steps) if k == 0 or sign * (time - t).item() >= 0)
        share = (time - steps[i][0]) / steps[i][1]

        def mixed(x: Tensor, y: Tensor) -> Tensor:
            return x + share * (y - x)

        (z0, l0, p0), (z1, l1, p1) = path[i], path[i + 1]
        return mixed(z0, z1), mixed(l0, l1), [mixed(x, y) for x, y in zip(p0, p1, strict=True)]
