"""A density on the open unit interval."""

import torch
from torch import Tensor
from torch.distributions import Beta, Distribution
from torch.nn import functional as F

from mvae_fast.vae.likelihoods.base import Likelihood, of_rows
from mvae_fast.vae.likelihoods.spread import SMALLEST


class BetaLikelihood(Likelihood):
    r"""Beta likelihood of numbers in (0, 1), such as methylation rates.

    The decoder's output is ``(B, 2, *shape)``; softplus of it, and :math:`10^{-3}` more, are the
    concentrations :math:`\alpha` and :math:`\beta`. The mean is :math:`\alpha / (\alpha + \beta)`.

    Example:
        >>> BetaLikelihood()(torch.zeros(1, 2, 3)).mean
        tensor([[0.5000, 0.5000, 0.5000]])
    """

    n_outputs = 2

    def __call__(self, output: Tensor) -> Distribution:
        """Beta from ``output`` (B, 2, ...); the event is the whole row."""
        alpha, beta = (F.softplus(part) + SMALLEST for part in self.split(output))
        return of_rows(Beta(alpha, beta, validate_args=False))

    def check(self, x: Tensor) -> None:
        """Data must be floating point and lie in (0, 1)."""
        if not x.is_floating_point():
            raise TypeError(f"a Beta likelihood needs floating-point data, got {x.dtype}")
        if not ((x > 0) & (x < 1)).all():
            raise ValueError(
                "a Beta likelihood needs data in (0, 1), where its density is finite, "
                f"got values from {x.min().item():.17g} to {x.max().item():.17g}; "
                f"remedy: x.clamp({torch.finfo(x.dtype).eps:.1e}, 1 - "
                f"{torch.finfo(x.dtype).eps:.1e}), or continuous_bernoulli"
            )
