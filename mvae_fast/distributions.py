"""Flows as `torch.distributions`: of data, and Gaussian posteriors that a flow transports."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, constraints
from torch.distributions.kl import register_kl

from mvae_fast.checks import integers, tensor
from mvae_fast.core.problem import LogDet, Trace
from mvae_fast.density import FlowDistribution, FlowTransform
from mvae_fast.flows.base import arguments

__all__ = ["FlowDistribution", "FlowPosterior", "FlowTransform"]

Flow = Callable[..., tuple[Tensor, Tensor]]
Shape = torch.Size | tuple[int, ...]


#: Samples of an estimate for which there is no formula.
SAMPLES = 1024


class FlowPosterior(Distribution):
    r"""The distribution of :math:`z_T = \mathrm{flow}(z_0)`, with :math:`z_0 \sim N(\mu,
    \mathrm{diag}\,\sigma^2)`.

    .. math:: \log q_T(z_T) = \log q_0(z_0) - \int_0^T \mathrm{Tr}\,\frac{\partial f}{\partial
    z}\,dt

    The flow adds its change of log-density to the one it is handed, so any flow that is called
    ``flow(z, logp) -> (z_T, logp_T)``, with ``z (R, D)`` and ``logp (R, 1)``, will do; without one
    this is a diagonal Gaussian.

    A flow whose attribute ``cond_dim`` is not 0 is amortised: it is called with ``cond (R, 2 D)``,
    mean and log-variance of z_0 of each row (see `cond`). Unlike the features of an encoder these
    exist whatever subset of the modalities a product of experts was made of. A ``generator`` also
    goes to a flow that takes one: it is the source of Hutchinson's noise, too. So do ``trace`` and
    ``log_det``, as of `mvae_fast.flows.Flow.forward`; a `mvae_fast.FastCNF` takes them as settings.

    Args:
        mean: Mean of z_0, ``(..., D)``.
        logvar: log-variance of z_0, ``(..., D)``.
        flow: The flow, or None.

    Raises:
        TypeError: If mean or logvar is no dense tensor.
        ValueError: If the shapes differ, or an amortised flow expects another condition.

    References:
        Nedelkoski, Bogojeski, Kao 2020, eq. 10; Grathwohl et al., FFJORD, 2019, eq. 3; amortised
        flows: van den Berg et al. 2018, section 4.

    ``mean``, ``variance``, ``entropy()`` and ``torch.distributions.kl_divergence`` are estimates by
    `SAMPLES` samples, with gradients: of an image of a Gaussian there is no formula for them.

    Example:
        >>> def double(z, logp):
        ...     return 2 * z, logp - 2 * math.log(2)
        >>> posterior = FlowPosterior(torch.zeros(5, 2), torch.zeros(5, 2), double)
        >>> z, logp = posterior.rsample_and_log_prob((100,))
        >>> z.shape, logp.shape
        (torch.Size([100, 5, 2]), torch.Size([100, 5]))
        >>> torch.allclose(logp, Independent(Normal(torch.zeros(2), 2.0), 1).log_prob(z), atol=1e-5)
        True
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, mean: Tensor, logvar: Tensor, flow: Flow | None = None) -> None:
        tensor("mean", mean, "(..., D)")
        tensor("logvar", logvar, "(..., D)")
        if mean.dim() < 1 or mean.shape != logvar.shape:
            raise ValueError(
                "mean and logvar must both be (..., D), "
                f"got {tuple(mean.shape)} and {tuple(logvar.shape)}"
            )
        cond_dim = getattr(flow, "cond_dim", 0)
        if cond_dim not in (0, 2 * mean.shape[-1]):
            raise ValueError(
                f"flow has cond_dim={cond_dim}, expected 0 or 2 D = {2 * mean.shape[-1]}: the "
                "condition is mean and log-variance of z_0"
            )
        self.loc = mean
        self.logvar = logvar
        self.flow = flow
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)

    @property
    def scale(self) -> Tensor:
        """Standard deviation of z_0, ``(..., D)``."""
        return (0.5 * self.logvar).exp()

    @property
    def base_dist(self) -> Independent:
        """The Gaussian of z_0."""
        return Independent(Normal(self.loc, self.scale, validate_args=False), 1)

    @property
    def mean(self) -> Tensor:
        """Mean of z_T, ``(*batch_shape, D)``; with a flow an estimate by `SAMPLES` samples."""
        return self.loc if self.flow is None else self.rsample((SAMPLES,)).mean(0)

    @property
    def variance(self) -> Tensor:
        """Variance of each dimension of z_T; with a flow an estimate by `SAMPLES` samples."""
        return self.logvar.exp() if self.flow is None else self.rsample((SAMPLES,)).var(0)

    def entropy(self) -> Tensor:
        """Entropy of z_T in nats, ``batch_shape``: an estimate by `SAMPLES` samples."""
        return -self.rsample_and_log_prob((SAMPLES,))[1].mean(0)

    @property
    def cond(self) -> Tensor | None:
        """What an amortised flow is conditioned on: mean and log-variance, ``(..., 2 D)``; None
        where the flow has no ``cond_dim``."""
        if not getattr(self.flow, "cond_dim", 0):
            return None
        return torch.cat([self.loc, self.logvar], dim=-1)

    def rsample(  # type: ignore[override]  # a list of sizes is not welcome
        self, sample_shape: Shape = (), *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Reparametrised samples z_T; the trace is integrated all the same (see
        `rsample_and_log_prob`).

        Args:
            sample_shape: Leading shape of the result.
            generator: Source of all noise.

        Returns:
            ``(*sample_shape, *batch_shape, D)``.
        """
        return self.rsample_and_log_prob(sample_shape, generator=generator)[0]

    def rsample_and_log_prob(
        self,
        sample_shape: Shape = (),
        *,
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
        log_det: LogDet | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Reparametrised samples z_T with log q_T(z_T), for one integration.

        Args:
            sample_shape: Leading shape of the result.
            generator: Source of all noise.
            trace: ``"exact"``, or None as the flow is set.
            log_det: ``"exact"``, or None as the flow is set.

        Returns:
            z_T ``(*sample_shape, *batch_shape, D)`` and log q_T(z_T) ``(*sample_shape,
            *batch_shape)``.
        """
        noise = self.draw_noise(sample_shape, generator=generator)
        return self.transport_noise(noise, generator=generator, trace=trace, log_det=log_det)

    def draw_noise(
        self, sample_shape: Shape = (), *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Standard Gaussian noise for `transport_noise`.

        Args:
            sample_shape: Leading shape of the result.
            generator: Source of the noise.

        Returns:
            ``(*sample_shape, *batch_shape, D)``.
        """
        shape = (*integers("sample_shape", sample_shape, 0), *self.loc.shape)
        # What torch.randn is made of: with a generator, torch.compile gives that fixed sizes only.
        return self.loc.new_empty(shape).normal_(generator=generator)

    def transport_noise(
        self,
        noise: Tensor,
        *,
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
        log_det: LogDet | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Push :math:`z_0 = \mu + \sigma \epsilon` through the flow.

        With the noise epsilon at hand log q_0(z_0) is exact also where sigma is too small for z_0 -
        mu to resolve.

        Args:
            noise: epsilon, ``(..., *batch_shape, D)``.
            generator, trace, log_det: As of `rsample_and_log_prob`.

        Returns:
            z_T of the same shape and log q_T(z_T) without the last axis.
        """
        tensor("noise", noise, "(..., *batch_shape, D)")
        z0 = self._z0_of(noise)
        return self._push(z0, noise, generator=generator, trace=trace, log_det=log_det)

    def transport(
        self,
        z0: Tensor,
        *,
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
        log_det: LogDet | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Push given z_0 through the flow.

        ``transport(posterior.loc)`` is where the paper's code evaluates.

        Args:
            z0: ``(..., *batch_shape, D)``.
            generator, trace, log_det: As of `rsample_and_log_prob`.

        Returns:
            z_T of the same shape and log q_T(z_T) without the last axis.
        """
        tensor("z0", z0, "(..., *batch_shape, D)")
        noise = self._noise_of(z0)
        return self._push(z0, noise, generator=generator, trace=trace, log_det=log_det)

    def log_prob(
        self,
        value: Tensor,
        *,
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
        log_det: LogDet | None = None,
    ) -> Tensor:
        """Log-density at ``value`` = z_T, through ``flow(z_T, 0, reverse=True)``.

        An integrator run backwards undoes its forward run only up to the error of its steps; where
        z_0 is known, `transport` and `rsample_and_log_prob` have no such error.

        Args:
            value: ``(..., *batch_shape, D)``.
            generator, trace, log_det: As of `rsample_and_log_prob`.

        Returns:
            ``(..., *batch_shape)``.
        """
        tensor("value", value, "(..., *batch_shape, D)")
        shape = torch.broadcast_shapes(value.shape, self.loc.shape)
        z0, change = value.expand(shape), value.new_zeros(shape[:-1])
        if self.flow is not None:
            extra = arguments(self.flow, generator=generator, trace=trace, log_det=log_det)
            z0, change = self._through(self.flow, z0, change, reverse=True, **extra)
        return self._log_q0(self._noise_of(z0)) - change

    def mean_noise(self) -> Tensor:
        """The noise of z_0 at its mean, ``(*batch_shape, D)``."""
        return torch.zeros_like(self.loc)

    def _z0_of(self, noise: Tensor) -> Tensor:
        return self.loc + self.scale * noise

    def _noise_of(self, z0: Tensor) -> Tensor:
        # Where sigma underflows the mean is certain: 0 / 0 would make its density NaN.
        return (z0 - self.loc) / self.scale.clamp(min=torch.finfo(self.logvar.dtype).tiny)

    def _log_q0(self, noise: Tensor) -> Tensor:
        return -0.5 * (noise.square() + self.logvar + math.log(2 * math.pi)).sum(dim=-1)

    def _push(self, z0: Tensor, noise: Tensor, **how: Any) -> tuple[Tensor, Tensor]:
        logp = self._log_q0(noise)
        if self.flow is None:
            return z0, logp
        return self._through(self.flow, z0, logp, **arguments(self.flow, **how))

    def _through(self, flow: Flow, z: Tensor, logp: Tensor, **extra: Any) -> tuple[Tensor, Tensor]:
        """States (..., D) and log-densities (...) through the flow, which sees rows."""
        if (cond := self.cond) is not None:
            extra["cond"] = cond.expand(*z.shape[:-1], -1).reshape(-1, cond.shape[-1])
        flat, logp_t = flow(z.reshape(-1, z.shape[-1]), logp.reshape(-1, 1), **extra)
        return flat.view(z.shape), logp_t.view(logp.shape)

    def __repr__(self) -> str:
        flow = "None" if self.flow is None else type(self.flow).__name__
        return f"FlowPosterior({tuple(self.batch_shape)}, D={self.event_shape[0]}, flow={flow})"


@register_kl(FlowPosterior, Distribution)
def _kl_divergence(posterior: FlowPosterior, other: Distribution) -> Tensor:
    """``torch.distributions.kl_divergence``, an estimate by `SAMPLES` samples."""
    z, log_q = posterior.rsample_and_log_prob((SAMPLES,))
    return (log_q - other.log_prob(z)).mean(0)
