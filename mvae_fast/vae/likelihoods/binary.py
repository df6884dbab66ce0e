"""Likelihoods of data in [0, 1]."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli, ContinuousBernoulli, Distribution

from mvae_fast.vae.likelihoods.base import Likelihood, check_unit_interval, of_rows
from mvae_fast.vae.likelihoods.grey import grey


class _UnitInterval(Likelihood):
    what: str

    def check(self, x: Tensor) -> None:
        """Data must be floating point and lie in [0, 1]."""
        check_unit_interval(self.what, x)

    def cast(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Bytes as grey values 0..255 and booleans as 0 and 1."""
        return grey(x, dtype)


class BernoulliLikelihood(_UnitInterval):
    r"""Bernoulli likelihood with logits; the targets may be anything in [0, 1].

    For grey values the log-likelihood is minus the binary cross-entropy
    :math:`-\sum_j [\max(l_j, 0) - l_j x_j + \log(1 + e^{-|l_j|})]`, summed over the row, as in the
    paper. That is no density; `ContinuousBernoulliLikelihood` is one. Bytes (uint8) are taken for
    grey values 0..255, booleans for 0 and 1.

    Example:
        >>> BernoulliLikelihood()(torch.zeros(2, 8, 8)).log_prob(torch.full((2, 8, 8), 0.3)) / 64
        tensor([-0.6931, -0.6931])
    """

    what = "Bernoulli"

    def __call__(self, output: Tensor) -> Distribution:
        """Bernoulli with logits ``output`` (B, ...); the event is the whole row."""
        return of_rows(Bernoulli(logits=output, validate_args=False))


class ContinuousBernoulliLikelihood(_UnitInterval):
    r"""Continuous Bernoulli likelihood with logits, a density on [0, 1].

    .. math:: \log p(x) = \sum_j \left[x_j \log\lambda_j + (1 - x_j) \log(1 - \lambda_j) + \log
              C(\lambda_j)\right], \qquad \lambda = \sigma(l),

    with the constant that makes each an integral of 1, which the cross-entropy of
    `BernoulliLikelihood` lacks. Bytes and booleans are taken as there.

    References:
        Loaiza-Ganem and Cunningham, The continuous Bernoulli: fixing a pervasive error in
        variational autoencoders, 2019.

    Example:
        >>> uniform = ContinuousBernoulliLikelihood()(torch.zeros(1, 3))
        >>> uniform.log_prob(torch.rand(1, 3)).abs() < 1e-5
        tensor([True])
    """

    what = "continuous Bernoulli"

    def __call__(self, output: Tensor) -> Distribution:
        """Continuous Bernoulli with logits ``output`` (B, ...); the event is the whole row."""
        return of_rows(ContinuousBernoulli(logits=output, validate_args=False))
