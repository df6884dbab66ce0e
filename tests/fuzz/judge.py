"""What is too far off."""

from __future__ import annotations

from tests.fuzz.check import DOUBLE, EPSILON, Error
from tests.fuzz.problems import Problem

# Swish's learned slope b is folded into the layers around it, a sigmoid(b a) = phi(b a) / b. Its
# gradient is the difference of what the two layers give, of a phi'(a) and phi(a): for small a both
# are a / 2, and the derivative is a^2 / 4. A row's share is 2 / |a| times as far off as its parts.
SLOPE = 60

# A single number, summed over rows of both signs, may come out near zero, and then is as far off as
# its terms, not as itself: how far, in eager PyTorch too, is luck.
SINGLE = 4


def verdict(problem: Problem, error: Error) -> bool:
    """Whether an error is allowed.

    In float32: twice that of eager PyTorch, and a few ulps, since that may be exact by luck: two of
    the result, and two of each number of the problem.
    """
    if problem.dtype.itemsize == 8:
        return error.ours <= DOUBLE
    few = (4 * error.ulps + 2 * EPSILON) * (SINGLE if error.elements == 1 else 1)
    factor = SLOPE if error.kind.endswith("beta") else 1
    return error.ours <= factor * (2 * error.eager + few)
