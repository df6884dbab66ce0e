"""What makes a flow a density: ``log_prob``, ``sample`` and ``distribution``."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from mvae_fast.checks import integers, one_of
from mvae_fast.core.problem import TRACES, Trace
from mvae_fast.density.base import check_base, log_base, log_standard_normal
from mvae_fast.density.distribution import FlowDistribution
from mvae_fast.density.rows import move
from mvae_fast.ode.settings import HasSettings, Settings

Times = Tensor | Sequence[float]


class HasDensity(HasSettings):
    r"""A flow whose forward goes from data x, at time 0, to a base, at time T.

    .. math:: z = \mathrm{flow}(x), \qquad \log p(x) = \log p_{base}(z) + \log \left| \det
              \frac{\partial z}{\partial x} \right|

    So ``log_prob`` integrates forward, and ``sample`` back, from T to 0: the direction and signs of
    zuko and of FFJORD's density estimation. A velocity that goes the other way, with the base at 0
    and data at 1, takes ``integration_times=(1.0, 0.0)`` in each of the methods, or
    `mvae_fast.likelihood`.

    The trace is that of the flow's settings. With ``"hutchinson"``, and with None over an `ODEfunc`
    of ``divergence_fn="approximate"``, the default, ``log_prob`` is an unbiased estimate, another
    number in every call: good to train with. ``trace="exact"`` in the call has no noise.
    """

    def log_prob(
        self,
        x: Tensor,
        context: Tensor | None = None,
        base: Distribution | None = None,
        *,
        trace: Trace | None = None,
        integration_times: Times | None = None,
        probes: Tensor | None = None,
        generator: torch.Generator | None = None,
        settings: Settings | None = None,
    ) -> Tensor:
        """The log-density of data, differentiable, from one solve forward.

        Args:
            x: (*, D), or with the event shape of ``base``.
            context: (*, C), for a net with a ``context_dim``; its batch is broadcast with x's.
            base: Of the states at the end; None for N(0, I).
            trace: ``"exact"`` or ``"hutchinson"`` for this call; None as the flow is set.
            integration_times: Of data and of the base, two; default ``(0, T)``.
            probes: (*, D) or (K, *, D), noise for Hutchinson's estimator in place of drawn noise.
            generator: Source of the drawn noise.
            settings: For this call, in place of the flow's own.

        Returns:
            log p(x), (*).

        Raises:
            TypeError: If an argument is none.
            ValueError: If a shape, dtype or setting does not fit.

        Example:
            >>> from mvae_fast import FastCNF, ODEfunc, ODEnet
            >>> flow = FastCNF(ODEfunc(ODEnet((16,), (2,))))
            >>> flow.log_prob(torch.zeros(5, 3, 2), trace="exact").shape
            torch.Size([5, 3])
        """
        z, ladj = move(
            self,
            "x",
            x,
            context,
            event_dim=1 if base is None else check_base(base),
            integration_times=integration_times,
            probes=probes,
            generator=generator,
            settings=self._settings_with(trace, settings),
        )
        assert ladj is not None
        return (log_standard_normal(z) if base is None else log_base(base, z)) + ladj

    def sample(
        self,
        shape: int | Sequence[int] = (),
        context: Tensor | None = None,
        base: Distribution | None = None,
        *,
        integration_times: Times | None = None,
        generator: torch.Generator | None = None,
        settings: Settings | None = None,
    ) -> Tensor:
        """Draw data, without a gradient: one solve backwards, which takes no trace.

        Args:
            shape: Leading shape of the result, or how many.
            context: (*, C), each of which has samples of its own.
            base: As of `log_prob`.
            integration_times: Of data and of the base, as of `log_prob`.
            generator: Source of the noise, of a Gaussian base.
            settings: For this call, in place of the flow's own.

        Returns:
            ``(*shape, *batch, D)``, with the batch of base and context.

        Raises:
            TypeError: If an argument is none.
            ValueError: If a shape or setting does not fit, or there is no base and the flow does
                not say its D.

        Example:
            >>> from mvae_fast import FastCNF, ODEfunc, ODEnet
            >>> flow = FastCNF(ODEfunc(ODEnet((16,), (2,))))
            >>> flow.sample(64).shape
            torch.Size([64, 2])
        """
        sizes = integers("shape", (shape,) if isinstance(shape, int) else shape, 0)
        how: dict[str, Any] = {"integration_times": integration_times, "settings": settings}
        return FlowDistribution(self, base, context, **how).sample(sizes, generator=generator)

    def distribution(
        self,
        context: Tensor | None = None,
        base: Distribution | None = None,
        *,
        trace: Trace | None = None,
        integration_times: Times | None = None,
        settings: Settings | None = None,
        validate_args: bool | None = None,
    ) -> FlowDistribution:
        """The density as a `torch.distributions.Distribution`.

        Args:
            context: (*, C), which gives the distribution its batch shape.
            base: As of `log_prob`.
            trace: As of `log_prob`, in every call.
            integration_times: As of `log_prob`, in every call.
            settings: As of `log_prob`, in every call.
            validate_args: As of `FlowDistribution`.

        Returns:
            A `FlowDistribution`, which follows the flow as it learns.
        """
        return FlowDistribution(
            self,
            base,
            context,
            validate_args=validate_args,
            integration_times=integration_times,
            settings=self._settings_with(trace, settings),
        )

    def _settings_with(self, trace: Trace | None, settings: Settings | None) -> Settings | None:
        one_of("trace", trace, (None, *TRACES))
        return settings if trace is None else replace(settings or self.settings, trace=trace)
