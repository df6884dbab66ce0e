"""Product of Gaussian experts, the inference network of the MVAE."""

import torch
from torch import Tensor
from torch.nn import functional as F


def product_of_experts(
    mean: Tensor, logvar: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Product of N Gaussian experts and the prior expert N(0, I).

    With precisions :math:`\tau_k = e^{-\log\sigma_k^2}` and the prior's :math:`\tau_0 = 1`,

    .. math:: \tau = \sum_{k=0}^N \tau_k, \qquad \mu = \sum_{k=1}^N \frac{\tau_k}{\tau} \mu_k,
              \qquad \log\sigma^2 = -\log\tau .

    Everything is done on log-precisions (a logsumexp and the softmax weights that go with it), so
    that no expert can overflow or underflow the product and no epsilon is needed.

    A masked expert has exactly no weight, whatever it holds: NaN and infinity in it reach neither
    the result nor a gradient. Where every expert is masked the product is the prior.

    Args:
        mean: Expert means, ``(..., N, D)``.
        logvar: Expert log-variances, ``(..., N, D)``.
        mask: True where the expert is present, boolean, broadcastable with ``(..., N)``: a leading
            axis of subsets is welcome. None: all are present.

    Returns:
        Mean and log-variance of the product, ``(..., D)`` each.

    Raises:
        ValueError: If the shapes do not fit.
        TypeError: If the mask is not boolean.

    References:
        Wu and Goodman, Multimodal generative models for scalable weakly-supervised learning, 2018,
        sec. 2.2.

    Example:
        >>> mean, logvar = torch.ones(1, 2, 3), torch.zeros(1, 2, 3)
        >>> mean, logvar = product_of_experts(mean, logvar, torch.tensor([[True, False]]))
        >>> mean, logvar.exp()  # one unit expert at 1 and the unit prior at 0
        (tensor([[0.5000, 0.5000, 0.5000]]), tensor([[0.5000, 0.5000, 0.5000]]))
    """
    if mean.dim() < 2 or mean.shape != logvar.shape:
        raise ValueError(
            "mean and logvar must both be (..., N, D), "
            f"got {tuple(mean.shape)} and {tuple(logvar.shape)}"
        )
    log_precision = -logvar
    if mask is not None:
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be boolean, got {mask.dtype}")
        try:
            torch.broadcast_shapes(mask.shape, mean.shape[:-1])
        except RuntimeError:
            raise ValueError(
                f"mask must broadcast with (..., N) = {tuple(mean.shape[:-1])}, "
                f"got {tuple(mask.shape)}"
            ) from None
        present = mask.unsqueeze(-1)
        log_precision = log_precision.where(present, -torch.inf)
        mean = mean.where(present, 0.0)  # 0 * nan would be nan
    # The prior is row 0: mean 0, log-precision 0.
    log_total = torch.logsumexp(F.pad(log_precision, (0, 0, 1, 0)), dim=-2)
    weight = (log_precision - log_total.unsqueeze(-2)).exp()
    return (weight * mean).sum(dim=-2), -log_total
