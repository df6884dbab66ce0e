"""ODE functions that must be called: foreign classes, and ones with hooks or an own forward.

Of an `ODEfunc` as this library made it a solve takes the parts: velocity, kind of trace, noise.
Anything else torchdiffeq's solvers call as FFJORD does, ``odefunc(t, (z, logp, ...))``.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mvae_fast.nets.recognise import altered, is_not
from mvae_fast.ode.odefunc import ODEfunc
from mvae_fast.ode.regularized_odefunc import RegularizedODEfunc

_FORWARD = ODEfunc.forward
_FORWARD_REGULARIZED = RegularizedODEfunc.forward


def base_of(odefunc: nn.Module) -> Any:
    """The ODE function itself, out of the wrapper of the regularisers: an `ODEfunc` or foreign."""
    return odefunc.odefunc if isinstance(odefunc, RegularizedODEfunc) else odefunc


def must_be_called(odefunc: nn.Module) -> str | None:
    """What makes a call of ``odefunc`` more than its parts, or None.

    Example:
        >>> from mvae_fast.nets.odenet import ODEnet
        >>> odefunc = ODEfunc(ODEnet((8,), (2,)))
        >>> must_be_called(odefunc) is None
        True
        >>> handle = odefunc.register_forward_hook(lambda module, inputs, output: output)
        >>> must_be_called(odefunc)
        'odefunc has forward hooks'
    """
    name, base = "odefunc", odefunc
    if isinstance(odefunc, RegularizedODEfunc):
        found = altered(odefunc, _FORWARD_REGULARIZED)
        if found is not None:
            return f"{name}{found}"
        name, base = "odefunc.odefunc", odefunc.odefunc
    if not isinstance(base, ODEfunc):
        return f"{name}{is_not(base, ODEfunc)}"
    if type(base).before_odeint is not ODEfunc.before_odeint:
        return f"{name} has a before_odeint of its own"
    found = altered(base, _FORWARD)
    return None if found is None else f"{name}{found}"


def graphless(states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """States without the graph of others where none is recorded.

    The forward of `torchdiffeq.odeint_adjoint` cuts its states out of one tensor. Where that needs
    a gradient, so do the pieces, but no graph leads from them to what is made of them.
    """
    return states if torch.is_grad_enabled() else tuple(x.detach() for x in states)


class Called(nn.Module):
    """An ODE function as torchdiffeq integrates it.

    Args:
        odefunc: Any module with FFJORD's ``forward(t, states)`` and ``before_odeint(e)``.
        trace: Of an `ODEfunc`: in place of what it would choose.
        probes: (K, B, ...), scaled, or None: the noise of its solve.
    """

    def __init__(self, odefunc: nn.Module, trace: str | None, probes: Tensor | None) -> None:
        super().__init__()
        self.odefunc = odefunc
        self.trace = trace
        self.probes = probes
        base_of(odefunc).before_odeint(probes)

    def forward(self, t: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        base, states = base_of(self.odefunc), graphless(states)
        if not isinstance(base, ODEfunc):
            return tuple(self.odefunc(t, states))
        # Set for every call: with the adjoint method the backward calls again, later, and the noise
        # and trace are those of its own solve.
        if self.probes is not None:
            base._e = self.probes
        base._trace = self.trace
        try:
            return tuple(self.odefunc(t, states))
        finally:
            base._trace = None
