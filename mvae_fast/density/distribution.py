"""The distribution of data under a flow, as a ``torch.distributions.Distribution``."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from mvae_fast.checks import tensor
from mvae_fast.density.base import check_base, draw, log_base, standard_normal
from mvae_fast.density.rows import joint_batch
from mvae_fast.density.transform import FlowTransform

Shape = torch.Size | list[int] | tuple[int, ...]


class FlowDistribution(Distribution):
    r"""The distribution of x where :math:`z = \mathrm{flow}(x)` is distributed as the base.

    .. math:: \log p(x) = \log p_{base}(z) + \log \left| \det \frac{\partial z}{\partial x} \right|

    The direction is that of `FlowTransform`, and of zuko: forward in time from data to base. A
    `mvae_fast.distributions.FlowPosterior` goes the other way: there the flow makes the samples.

    Mean and entropy have no closed form, and are left out.

    Args:
        flow: A `mvae_fast.FastCNF`, or any module that is called as it is.
        base: Over z, with ``event_shape`` (D,); None for N(0, I).
        context: (*, C), what the flow is conditioned on. The batch shape of the distribution is
            that of base and context together.
        validate_args: Whether ``log_prob`` refuses values that are not finite; None for torch's
            default.
        how: As of `FlowTransform`.

    Raises:
        TypeError: If an argument is none.
        ValueError: If a shape does not fit, or the flow does not say its D and there is no base.

    References:
        FFJORD (Grathwohl et al., 2019), eq. 3, https://arxiv.org/abs/1810.01367

    Example:
        >>> import torch
        >>> from mvae_fast import FastCNF, ODEfunc, ODEnet
        >>> flow = FastCNF(ODEfunc(ODEnet((16,), (2,), context_dim=3)), trace="exact")
        >>> p = FlowDistribution(flow, context=torch.randn(4, 3))
        >>> p.batch_shape, p.event_shape
        (torch.Size([4]), torch.Size([2]))
        >>> x, logp = p.rsample_and_log_prob((7,))
        >>> x.shape, logp.shape
        (torch.Size([7, 4, 2]), torch.Size([7, 4]))
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(
        self,
        flow: nn.Module,
        base: Distribution | None = None,
        context: Tensor | None = None,
        *,
        validate_args: bool | None = None,
        **how: Any,
    ) -> None:
        if base is None:
            base = standard_normal(flow)
        self.transform = FlowTransform(flow, context, event_dim=check_base(base), **how)
        batch = base.batch_shape
        if context is not None:
            batch = joint_batch("base", batch, context)
        self.base = base if batch == base.batch_shape else base.expand(batch)
        super().__init__(batch, base.event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """All of R^D."""
        return self.transform.domain

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the base has reparametrised samples."""
        return self.base.has_rsample

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "FlowDistribution":
        """The same with a larger batch shape, without a copy."""
        new = self._get_checked_instance(FlowDistribution, _instance)
        batch, context = torch.Size(batch_shape), self.transform.context
        new.base = self.base.expand(batch)
        if context is not None:
            context = context.expand(*batch, context.shape[-1])
        new.transform = self.transform.like(context, cache_size=0)
        super(FlowDistribution, new).__init__(batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x), from one solve forward.

        Args:
            value: x, ``(*, *batch_shape, D)``.

        Returns:
            ``(*, *batch_shape)``.
        """
        tensor("value", value, "(*, *batch_shape, D)")
        if self._validate_args and value.numel():  # of no values torch finds no shape
            self._validate_sample(value)
        z, ladj = self.transform.call_and_ladj(value)
        return log_base(self.base, z) + ladj

    def sample(
        self, sample_shape: Shape = (), *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples without a gradient, from one solve backwards that takes no trace.

        Args:
            sample_shape: Leading shape of the result.
            generator: Source of the base's noise, which has to be Gaussian then.

        Returns:
            ``(*sample_shape, *batch_shape, D)``.
        """
        with torch.no_grad():
            z = draw(self.base, torch.Size(sample_shape), generator, grad=False)
            return self.transform.inv(z)

    def rsample(
        self, sample_shape: Shape = (), *, generator: torch.Generator | None = None
    ) -> Tensor:
        """As `sample`, with a gradient in the parameters of flow, base and context."""
        return self.transform.inv(draw(self.base, torch.Size(sample_shape), generator))

    def rsample_and_log_prob(
        self, sample_shape: Shape = (), *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Reparametrised samples and their log-density, from one solve.

        The log-density is that of the steps which made the samples, where `log_prob` of them takes
        the steps back.

        Args:
            sample_shape: Leading shape of the result.
            generator: Source of the base's noise, which has to be Gaussian then.

        Returns:
            x ``(*sample_shape, *batch_shape, D)`` and log p(x) ``(*sample_shape, *batch_shape)``.
        """
        z = draw(self.base, torch.Size(sample_shape), generator)
        x, ladj = self.transform.inverse_and_ladj(z)
        return x, log_base(self.base, z) - ladj

    def __repr__(self) -> str:
        name, event = type(self.transform.flow).__name__, tuple(self.event_shape)
        return f"FlowDistribution({name}, batch={tuple(self.batch_shape)}, event={event})"
