"""FFJORD's ODE function: a velocity net and how the trace of its Jacobian is found."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvae_fast.dynamics import velocity_and_trace
from mvae_fast.noise import draw_probes

__all__ = ["ODEfunc"]

_TRACE_OF_DIVERGENCE = {"approximate": "hutchinson", "brute_force": "exact"}


class ODEfunc(nn.Module):
    r"""The joint dynamics of state and log-density.

    .. math:: \frac{dz}{dt} = f(t, z), \qquad \frac{d \log p}{dt} = -\operatorname{Tr}
              \frac{\partial f}{\partial z}

    Args:
        diffeq: The velocity, called as ``diffeq(t, z)``: an `ODEnet` or any module.
        divergence_fn: ``"approximate"`` (Hutchinson's estimator) or ``"brute_force"`` (exact; for
            an `ODEnet` in closed form).
        residual: Use ``f(t, z) - z`` as velocity.
        rademacher: Rademacher instead of Gaussian noise.

    Raises:
        ValueError: If ``divergence_fn`` is not one of the two.

    References:
        FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models
        (Grathwohl et al., 2019), eq. 4 and 7, https://arxiv.org/abs/1810.01367

    Example:
        >>> import torch
        >>> from mvae_fast import ODEnet
        >>> odefunc = ODEfunc(ODEnet((8,), (3,)), divergence_fn="brute_force")
        >>> dz, dlogp = odefunc(torch.tensor(0.0), (torch.zeros(4, 3), torch.zeros(4, 1)))
        >>> dz.shape, dlogp.shape
        (torch.Size([4, 3]), torch.Size([4, 1]))
    """

    def __init__(
        self,
        diffeq: nn.Module,
        divergence_fn: str = "approximate",
        residual: bool = False,
        rademacher: bool = False,
    ) -> None:
        super().__init__()
        self.diffeq = diffeq
        self.divergence_fn = divergence_fn
        self.residual = residual
        self.rademacher = rademacher
        self._e: Tensor | None = None
        #: Evaluations of the velocity since the last solve began.
        self.evaluations = 0
        # FFJORD counts in this buffer, and its state_dicts have it. A Python int counts here:
        # reading it needs no host synchronisation, and torch.func forbids writing to a buffer.
        self.register_buffer("_num_evals", torch.tensor(0.0))

    @property
    def divergence_fn(self) -> str:
        """``"approximate"`` or ``"brute_force"``; may be set at any time."""
        return self._divergence_fn

    @divergence_fn.setter
    def divergence_fn(self, name: str) -> None:
        if name not in _TRACE_OF_DIVERGENCE:
            raise ValueError(
                f"divergence_fn: got {name!r}, expected 'approximate' or 'brute_force'"
            )
        self._divergence_fn = name

    def trace_for(self, z: Tensor) -> str:
        """``"exact"`` or ``"hutchinson"``, by FFJORD's rule.

        In eval mode a state of two dimensions always takes the exact trace.
        """
        if not self.training and z.shape[1:].numel() == 2:
            return "exact"
        return _TRACE_OF_DIVERGENCE[self._divergence_fn]

    def before_odeint(self, e: Tensor | None = None) -> None:
        """Start a solve that calls this module directly: reset the count and the noise.

        Args:
            e: Noise like the state, held fixed for the solve; None draws it at the first call.
        """
        self._e = e
        self.evaluations = 0

    def num_evals(self) -> int:
        """Evaluations of the velocity in the last solve."""
        return self.evaluations

    def forward(self, t: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Derivatives of the states, in the form that torchdiffeq calls.

        Args:
            t: 0-dim.
            states: ``(z, logp, *extras)``; extras go to ``diffeq`` and stay constant.

        Returns:
            ``(f, -trace, *zeros)``, shaped like the states.

        Raises:
            ValueError: If there are fewer than two states.
        """
        if len(states) < 2:
            raise ValueError(f"states: got {len(states)}, expected (z, logp, ...)")
        z, logp, *extras = states
        self.evaluations += 1
        trace = self.trace_for(z)
        if trace == "hutchinson" and self._e is None:
            self._e = draw_probes(z, rademacher=self.rademacher)[0]
        velocity, tau = velocity_and_trace(
            self.diffeq,
            t,
            z,
            residual=self.residual,
            trace=trace,
            probes=None if self._e is None else self._e.unsqueeze(0),
            extras=tuple(extras),
        )
        assert tau is not None
        return velocity, -tau.view_as(logp), *(torch.zeros_like(x) for x in extras)

    def extra_repr(self) -> str:
        return (
            f"divergence_fn={self.divergence_fn}, residual={self.residual}, "
            f"rademacher={self.rademacher}"
        )
