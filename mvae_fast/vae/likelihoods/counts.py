"""Likelihoods of counts, as of single-cell assays."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, NegativeBinomial, Poisson, constraints
from torch.nn import functional as F

from mvae_fast.vae.likelihoods.base import Likelihood, of_rows
from mvae_fast.vae.likelihoods.spread import PositiveParameter, Spread


class CountLikelihood(Likelihood):
    """Counts: whole numbers that are not negative, as floats or integers of any type.

    Encoders of `mlp_modality` see log(1 + x).
    """

    def check(self, x: Tensor) -> None:
        """Data must be whole numbers >= 0."""
        if not ((x >= 0) & (x == x.floor()) & x.isfinite()).all():
            bad = x[~((x >= 0) & (x == x.floor()) & x.isfinite())][0].item()
            raise ValueError(f"{self!r} needs whole numbers >= 0, got {bad:g}")

    def cast(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Integers as numbers of the model's type."""
        return x if x.is_floating_point() else x.to(dtype)


class PoissonLikelihood(CountLikelihood):
    """Poisson likelihood; the decoder's output is the logarithm of the rate.

    Example:
        >>> PoissonLikelihood()(torch.zeros(1, 2)).log_prob(torch.tensor([[0.0, 1.0]]))
        tensor([-2.])
    """

    def __call__(self, output: Tensor) -> Distribution:
        """Poisson with log-rates ``output`` (B, ...); the event is the whole row."""
        # A rate that underflows to 0 would make a count impossible, and its gradient NaN.
        rate = output.exp().clamp(min=torch.finfo(output.dtype).tiny)
        return of_rows(Poisson(rate, validate_args=False))


class NegativeBinomialLikelihood(nn.Module, CountLikelihood):
    r"""Negative binomial likelihood with mean :math:`\mu` and inverse dispersion :math:`\theta`.

    Its variance is :math:`\mu + \mu^2 / \theta`. The decoder gives :math:`\log \mu`.

    Args:
        dispersion: :math:`\theta`: a number; ``"learned"``, one parameter a dimension that begins
            at 1; or ``"predicted"``: the decoder's output is ``(B, 2, *shape)``, and the second is
            what softplus makes :math:`\theta` of.
        shape: Of a row of data, where the dispersion is learned.

    Raises:
        ValueError: If ``dispersion`` is something else, or the shape is missing.

    Example:
        >>> counts = NegativeBinomialLikelihood(2.0)(torch.full((1, 3), 1.5))
        >>> torch.allclose(counts.mean, torch.full((1, 3), 1.5).exp())
        True
    """

    _means = 1
    """Outputs of the decoder before that for the dispersion."""

    def __init__(
        self, dispersion: Spread = "learned", shape: Sequence[int] | int | None = None
    ) -> None:
        super().__init__()
        self.spread = PositiveParameter("dispersion", dispersion, shape)
        self.n_outputs = self._means + self.spread.n_outputs

    @property
    def dispersion(self) -> Spread:
        """The dispersion, as it was given."""
        return self.spread.value

    def forward(self, output: Tensor) -> Distribution:
        """The distribution of counts from a decoder's output; the event is the whole row."""
        log_mean, *predicted = self.split(output)
        return of_rows(self._counts(log_mean, *predicted))

    def _counts(self, log_mean: Tensor, *predicted: Tensor) -> Distribution:
        theta = self.spread(log_mean, *predicted)
        return NegativeBinomial(theta, logits=log_mean - theta.log(), validate_args=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dispersion!r})"


class ZeroInflatedNegativeBinomialLikelihood(NegativeBinomialLikelihood):
    r"""Zero-inflated negative binomial likelihood: a count is lost with probability :math:`\pi`.

    .. math:: p(x) = \pi\,[x = 0] + (1 - \pi)\,\mathrm{NB}(x; \mu, \theta)

    The decoder's output is ``(B, 2, *shape)``, :math:`\log\mu` and the logit of :math:`\pi`; with
    ``dispersion="predicted"`` ``(B, 3, *shape)``.

    Args:
        dispersion: As of `NegativeBinomialLikelihood`.
        shape: Of a row of data, where the dispersion is learned.

    References:
        Lopez et al., Deep generative modeling for single-cell transcriptomics, 2018.

    Example:
        >>> output = torch.stack([torch.zeros(1, 1), torch.full((1, 1), 3.0)], dim=1)
        >>> counts = ZeroInflatedNegativeBinomialLikelihood(1.0)(output)
        >>> counts.log_prob(torch.zeros(1, 1)).exp()  # sigmoid(3) + (1 - sigmoid(3)) / 2
        tensor([0.9763])
    """

    _means = 2

    def forward(self, output: Tensor) -> Distribution:
        """The distribution of counts from a decoder's output; the event is the whole row."""
        log_mean, lost, *predicted = self.split(output)
        return of_rows(ZeroInflated(self._counts(log_mean, *predicted), lost))


class ZeroInflated(Distribution):
    """A distribution of counts of which each is lost, and then 0, with a probability.

    Args:
        counts: The distribution of counts that are not lost.
        logits: Of the probability that one is lost, of the same shape.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.nonnegative_integer

    def __init__(self, counts: Distribution, logits: Tensor) -> None:
        self.counts = counts
        self.logits = logits
        super().__init__(counts.batch_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean, of the shape of the logits."""
        return self.logits.neg().sigmoid() * self.counts.mean

    @property
    def variance(self) -> Tensor:
        """The variance, of the shape of the logits."""
        kept, mean = self.logits.neg().sigmoid(), self.counts.mean
        return kept * self.counts.variance + kept * (1 - kept) * mean.square()

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        """Counts, ``(*sample_shape, *batch_shape)``."""
        counts = self.counts.sample(torch.Size(sample_shape))
        return counts * torch.bernoulli(self.logits.neg().sigmoid().expand_as(counts))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of counts, of the shape of the logits."""
        kept = F.logsigmoid(-self.logits) + self.counts.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(F.logsigmoid(self.logits), kept), kept)
