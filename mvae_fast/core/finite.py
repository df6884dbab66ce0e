"""Where a solve stops being finite."""

import torch
from torch import Tensor

from mvae_fast.core import reference
from mvae_fast.core.problem import Problem, Solution
from mvae_fast.core.trace import exact_probes

#: Steps at which the reference reports at once: bounds its memory, whatever the number of steps.
_AT_ONCE = 64


def check_start(problem: Problem) -> None:
    """Raise FloatingPointError, which names the row, unless the start state is finite."""
    _raise_for(_broken_rows(problem.z), "the start state z is not finite in row {row}")


def check_end(problem: Problem, solution: Solution) -> None:
    """Raise FloatingPointError, which names the first step and row that is not finite, unless a
    solution is.

    Only then the reference integrates once more, step by step. What is not finite stays so: each
    step adds to the state, to the log-density and to the penalties.
    """
    broken = _broken(solution).any(0)
    if not broken.any():
        return
    steps = problem.h.shape[0]
    with torch.no_grad():
        found = _first(problem)
    if found is not None:
        step, rows = found
        _raise_for(rows, f"the solve is not finite from step {step} of {steps} on, in row {{row}}")
    _raise_for(
        broken,
        "the solve is not finite in row {row}; the steps of engine='reference' are, so that the "
        "range of the engine's arithmetic is to blame",
    )


def _raise_for(broken: Tensor, message: str) -> None:
    if broken.any():
        rows, row = int(broken.sum()), int(broken.nonzero()[0])
        others = f" (first of {rows} rows)" if rows > 1 else ""
        raise FloatingPointError(f"check_finite: {message.format(row=row)}{others}")


def _broken_rows(x: Tensor) -> Tensor:
    return ~x.isfinite().all(-1)


def _broken(solution: Solution) -> Tensor:
    """(outputs, B), where anything of a row is not finite."""
    states, change = _broken_rows(solution.z), ~solution.logp.isfinite()
    return states | change | ~solution.penalties.isfinite().all(1)


def _first(problem: Problem) -> tuple[int, Tensor] | None:
    """The first step after which rows are not finite, and which (B,); None if all stay finite."""
    steps = problem.h.shape[0]
    if problem.trace == "exact" and not problem.closed and not problem.jacobians:
        problem = problem._replace(probes=exact_probes(problem.z))
    good, bad = 0, steps
    while True:
        ends = sorted({good + -(-(bad - good) * i // _AT_ONCE) for i in range(1, _AT_ONCE + 1)})
        outputs = tuple(ends) if ends[-1] == steps else (*ends, steps)
        broken = _broken(reference.solve(problem._replace(outputs=outputs)))[: len(ends)]
        reached = broken.any(1).nonzero()
        if not len(reached):
            return None
        first = int(reached[0])
        good, bad = ends[first - 1] if first else good, ends[first]
        if bad - good == 1:
            return bad, broken[first]
