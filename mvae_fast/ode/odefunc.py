"""FFJORD's ODE function: a velocity net and how the trace of its Jacobian is found."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mvae_fast.checks import boolean
from mvae_fast.core.problem import Trace
from mvae_fast.ode.dynamics import velocity_and_trace
from mvae_fast.ode.noise import draw_probes

#: FFJORD's words for the trace.
Divergence = Literal["approximate", "brute_force"]

_TRACE_OF_DIVERGENCE: dict[Divergence, Trace] = {
    "approximate": "hutchinson",
    "brute_force": "exact",
}
# Of functions that FFJORD's scripts set, as every script that took its code over does.
_DIVERGENCE_OF_FUNCTION: dict[str, Divergence] = {
    "divergence_approx": "approximate",
    "divergence_bf": "brute_force",
}


class ODEfunc(nn.Module):
    r"""The joint dynamics of state and log-density.

    .. math:: \frac{dz}{dt} = f(t, z), \qquad \frac{d \log p}{dt} = -\operatorname{Tr}
              \frac{\partial f}{\partial z}

    Args:
        diffeq: The velocity, called as ``diffeq(t, z)``: an `ODEnet` or any module.
        divergence_fn: ``"approximate"`` (Hutchinson's estimator) or ``"brute_force"`` (exact; for
            an `ODEnet` in closed form); or FFJORD's function for one of them, known by its name
            ``divergence_approx`` or ``divergence_bf``.
        residual: Use ``f(t, z) - z`` as velocity.
        rademacher: Rademacher instead of Gaussian noise.

    Raises:
        TypeError: If ``diffeq`` is no module: a function would hide its parameters.
        ValueError: If another argument is not one of the above.

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
        divergence_fn: Divergence | Callable[..., Tensor] = "approximate",
        residual: bool = False,
        rademacher: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(diffeq, nn.Module):
            raise TypeError(
                f"diffeq: got {diffeq!r}, expected an nn.Module; remedy: put it in the forward of "
                "a module, which also owns its parameters"
            )
        self.diffeq = diffeq
        self.divergence_fn = divergence_fn
        self.residual = boolean("residual", residual)
        self.rademacher = boolean("rademacher", rademacher)
        self._e: Tensor | None = None
        # In place of what `trace_for` says, for one call (`mvae_fast.ode.called`).
        self._trace: str | None = None
        #: Evaluations of the velocity since the last solve began.
        self.evaluations = 0
        # Not by register_buffer, which takes no name that is a property.
        self._buffers["_num_evals"] = torch.tensor(0.0)

    @property
    def _num_evals(self) -> Tensor:
        """The count as FFJORD's scripts read it, and as its state_dicts hold it.

        Filled when it is read. A Python int counts: it needs no host synchronisation, and
        torch.func forbids a solve to write to a buffer.
        """
        count = self._buffers["_num_evals"]
        assert count is not None
        return count.fill_(self.evaluations)

    @property
    def divergence_fn(self) -> Divergence:
        """``"approximate"`` or ``"brute_force"``; may be set at any time."""
        return self._divergence_fn

    @divergence_fn.setter
    def divergence_fn(self, divergence: Divergence | Callable[..., Tensor]) -> None:
        name: Any = divergence
        if callable(divergence):
            name = _DIVERGENCE_OF_FUNCTION.get(getattr(divergence, "__name__", ""), divergence)
        if not isinstance(name, str) or name not in _TRACE_OF_DIVERGENCE:
            raise ValueError(
                f"divergence_fn: got {divergence!r}, expected 'approximate' or 'brute_force', or a "
                "function called divergence_approx or divergence_bf"
            )
        self._divergence_fn: Divergence = name

    def trace_for(self, z: Tensor) -> Trace:
        """``"exact"`` or ``"hutchinson"``, by FFJORD's rule.

        In eval mode a state of two dimensions always takes the exact trace.
        """
        if not self.training and z.shape[1:].numel() == 2:
            return "exact"
        return _TRACE_OF_DIVERGENCE[self._divergence_fn]

    def before_odeint(self, e: Tensor | None = None) -> None:
        """Start a solve that calls this module directly: reset the count and the noise.

        Args:
            e: Noise like the state, or K of them on a leading axis, scaled by ``K**-0.5``; held
                fixed for the solve. None draws it at the first call.
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
        trace = self._trace or self.trace_for(z)
        if trace == "hutchinson" and self._e is None:
            self._e = draw_probes(z, rademacher=self.rademacher)[0]
        probes = self._e
        if probes is not None and probes.ndim == z.ndim:
            probes = probes.unsqueeze(0)
        velocity, tau = velocity_and_trace(
            self.diffeq,
            t,
            z,
            residual=self.residual,
            trace=trace,
            probes=probes,
            extras=tuple(extras),
        )
        assert tau is not None
        return velocity, -tau.view_as(logp), *(torch.zeros_like(x) for x in extras)

    if TYPE_CHECKING:
        __call__ = forward  # which nn.Module calls, and of which it says Any

    def extra_repr(self) -> str:
        return (
            f"divergence_fn={self.divergence_fn}, residual={self.residual}, "
            f"rademacher={self.rademacher}"
        )
