"""Posteriors whose z_0 comes from a mixture of Gaussians."""

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from mvae_fast.distributions import Flow, FlowPosterior, Shape


class MixturePosterior(FlowPosterior):
    r"""As `FlowPosterior`, of :math:`z_0 \sim \frac1{|C|} \sum_{c \in C} N(\mu_c,
    \mathrm{diag}\,\sigma_c^2)`, whose log-density is that of the whole mixture.

    Samples are reparametrised within their part; which part it is does not depend on a parameter.
    ``loc`` and ``logvar`` are of the mixture as a whole, and so is the condition of an amortised
    flow. The noise of `draw_noise` and `transport_noise` is z_0 itself here.

    Args:
        mean: Of the parts, ``(R, C, D)``.
        logvar: Likewise.
        there: Which parts a row has, at least one, boolean ``(R, C)``.
        flow: The flow, or None.

    Example:
        >>> mean = torch.tensor([[[-3.0], [3.0]]])
        >>> both = MixturePosterior(mean, torch.zeros(1, 2, 1), torch.tensor([[True, True]]))
        >>> both.loc, both.scale
        (tensor([[0.]]), tensor([[3.1623]]))
    """

    def __init__(
        self, mean: Tensor, logvar: Tensor, there: Tensor, flow: Flow | None = None
    ) -> None:
        weight = there.unsqueeze(-1) / there.sum(-1)[:, None, None].to(mean.dtype)
        whole = (weight * mean).sum(1)
        variance = (weight * (logvar.exp() + (mean - whole.unsqueeze(1)).square())).sum(1)
        super().__init__(whole, variance.log(), flow)
        self.means, self.logvars, self.there = mean, logvar, there

    @property
    def base_dist(self) -> Distribution:  # type: ignore[override]
        """The mixture of z_0."""
        parts = Normal(self.means, (0.5 * self.logvars).exp(), validate_args=False)
        which = Categorical(self.there.to(self.means.dtype), validate_args=False)
        return MixtureSameFamily(which, Independent(parts, 1), validate_args=False)

    def draw_noise(
        self, sample_shape: Shape = (), *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples of z_0, ``(*sample_shape, R, D)``."""
        noise = super().draw_noise(sample_shape, generator=generator)
        pick = noise.new_empty(noise.shape[:-1]).uniform_(generator=generator)
        count = self.there.sum(-1)
        # The k-th of the parts that are there; a uniform number may be rounded up to 1.
        k = torch.minimum((pick * count).long(), count - 1)
        part = (self.there.cumsum(-1) > k.unsqueeze(-1)).int().argmax(-1)
        rows = torch.arange(len(self.there), device=part.device).expand_as(part)
        return self.means[rows, part] + (0.5 * self.logvars[rows, part]).exp() * noise

    def mean_noise(self) -> Tensor:
        """z_0 at the mean of the mixture."""
        return self.loc

    def _z0_of(self, noise: Tensor) -> Tensor:
        return noise

    def _noise_of(self, z0: Tensor) -> Tensor:
        return z0

    def _log_q0(self, noise: Tensor) -> Tensor:
        z0 = noise.unsqueeze(-2)
        scale = (0.5 * self.logvars).exp().clamp(min=torch.finfo(z0.dtype).tiny)
        log_parts = Normal(self.means, scale, validate_args=False).log_prob(z0).sum(-1)
        log_parts = log_parts.where(self.there, -torch.inf)
        return log_parts.logsumexp(-1) - self.there.sum(-1).log()
