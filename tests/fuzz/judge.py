"""What is too far off."""

from __future__ import annotations

from collections.abc import Sequence

from tests.fuzz.check import DOUBLE, EPSILON, Error, run
from tests.fuzz.problems import Problem

# Swish's learned slope b is folded into the layers around it, a sigmoid(b a) = phi(b a) / b. Its
# gradient is the sum of what these two layers give, a phi'(b a) / b and -phi(b a) / b^2 for each
# row and unit, which nearly cancel where a is small. What cancels is rounded like any number: a few
# times half an ulp of each term.
SLOPE = 4

# A gradient is a sum over rows of both signs, and may come out near zero. Then it is as far off as
# its terms, not as itself. How far is what half an ulp in each of the problem's numbers makes, as
# often as the numbers that come of one are rounded: product, sum, gate, bias, phi, phi', step and
# state.
FEW = 8

# What one draw of half ulps makes may be little by luck.
DRAWS = 16


def judged(problem: Problem, capabilities: Sequence[str]) -> list[tuple[str, Error, bool]]:
    """Instruction set, error, and whether it is allowed, for all quantities of a problem."""
    found = run(problem, capabilities)
    if not all(verdict(problem, error) for errors in found.values() for error in errors):
        found = run(problem, capabilities, DRAWS)
    return [
        (capability, error, verdict(problem, error))
        for capability, errors in found.items()
        for error in errors
    ]


def verdict(problem: Problem, error: Error) -> bool:
    """Whether an error is allowed: in float32 twice that of eager PyTorch, which may be exact by
    luck, and two ulps, and what the classes above explain."""
    if problem.dtype.itemsize == 8:
        return error.ours <= DOUBLE
    few = FEW * error.ulps + 2 * EPSILON + SLOPE * EPSILON / 2 * error.parts
    return error.ours <= 2 * error.eager + few
