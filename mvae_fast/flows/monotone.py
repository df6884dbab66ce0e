"""The scalar equation that inverting a planar or a Sylvester flow comes down to."""

import math

import torch
from torch import Tensor


def solve(y: Tensor, r: Tensor, s: Tensor | float, k: Tensor) -> Tensor:
    r"""The root a of :math:`a + r \tanh(s a + k) = y`, elementwise; r, s and k broadcast to y.

    With :math:`r s > -1` the left side has the slope :math:`1 + r s\,(1 - \tanh^2) > 0`, and as
    :math:`|\tanh| < 1` the one root lies within ``[y - |r|, y + |r|]``: bisection finds it to the
    precision of the dtype in little more halvings than that has bits, whatever the parameters.

    Returns:
        Shaped like the broadcast arguments; its first three derivatives are those of the implicit
        function.

    Example:
        >>> y, r, k = torch.tensor([2.0]), torch.tensor([0.5]), torch.tensor([0.1])
        >>> a = solve(y, r, 3.0, k)
        >>> torch.allclose(a + r * torch.tanh(3.0 * a + k), y)
        True
    """
    with torch.no_grad():
        low, high = y - r.abs(), y + r.abs()
        # Bits of the dtype, and some for a root that is smaller than its bracket is wide.
        for _ in range(14 - math.floor(math.log2(torch.finfo(y.dtype).eps))):
            middle = (low + high) / 2
            above = middle + r * torch.tanh(s * middle + k) > y
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        a = (low + high) / 2
    # For arguments off by d the constant a is off by O(d), after a Newton step by O(d^2), after two
    # by O(d^4): their result has the root's derivatives up to the third. The values of the steps
    # would only add rounding, magnified where the slope is small.
    for _ in range(2):
        tanh = torch.tanh(s * a + k)
        slope = 1 + r * s * (1 - tanh.square())
        error = a + r * tanh - y
        a = a - (error - error.detach()) / slope
    return a
