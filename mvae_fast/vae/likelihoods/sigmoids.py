"""Probabilities of intervals under a logistic distribution."""

import torch
from torch import Tensor
from torch.nn import functional as F


def log_interval(low: Tensor, high: Tensor) -> Tensor:
    r"""Log-probability that a standard logistic variable lies between ``low`` and ``high``.

    .. math:: \log[\sigma(b) - \sigma(a)] = \log\sigma(b) + \log\sigma(-a) + \log(1 - e^{a - b}) ,

    which cancels nowhere. The bounds may be infinite.

    Args:
        low: a, any shape.
        high: b > a, of the same shape.

    Example:
        >>> log_interval(torch.tensor([-torch.inf]), torch.tensor([0.0])).exp()
        tensor([0.5000])
    """
    unbounded = low.isinf() | high.isinf()
    # Where a bound is infinite the last term is 0, and its gradient would be NaN.
    gap = torch.where(unbounded, torch.ones_like(low), high - low)
    inside = torch.where(unbounded, torch.zeros_like(low), (-gap.neg().expm1()).log())
    return F.logsigmoid(high) + F.logsigmoid(-low) + inside
