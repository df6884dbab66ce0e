"""FFJORD's wrapper of an ODE function with regularisers, and the state_dict keys it brings."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvae_fast.ode.odefunc import ODEfunc
from mvae_fast.ode.regularization import RegularizationFn, evaluate


class RegularizedODEfunc(nn.Module):
    """An ODE function together with its regularisers.

    Its state_dict keys, ``odefunc.*``, are those of FFJORD's wrapper, which FFJORD puts around the
    ODE function whenever ``regularization_fns`` is not None.

    Args:
        odefunc: Called as ``odefunc(t, (x, logp))``.
        regularization_fns: The regularisers.
    """

    def __init__(self, odefunc: ODEfunc, regularization_fns: Sequence[RegularizationFn]) -> None:
        super().__init__()
        self.odefunc = odefunc
        self.regularization_fns = tuple(regularization_fns)

    def before_odeint(self, *args: Any, **kwargs: Any) -> None:
        """As of the wrapped ODE function."""
        self.odefunc.before_odeint(*args, **kwargs)

    def num_evals(self) -> int:
        """As of the wrapped ODE function."""
        return self.odefunc.num_evals()

    @property
    def _num_evals(self) -> Tensor:
        return self.odefunc._num_evals

    def forward(self, t: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Derivatives of ``(x, logp)`` and, if there are more states, of the regularisers."""
        x, logp, *totals = states
        if not totals:
            return self.odefunc(t, (x, logp))
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            dx, dlogp = self.odefunc(t, (x, logp))
            return dx, dlogp, *evaluate(self.regularization_fns, x, logp, dx, dlogp)


def accept_both_key_forms(
    module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *args: Any
) -> None:
    """Let a flow load checkpoints written with and without regularisers.

    A pre-hook of ``load_state_dict``. FFJORD's keys are ``odefunc.odefunc.*`` with regularisers and
    ``odefunc.*`` without.
    """
    assert isinstance(state_dict, dict)
    outer, inner = f"{prefix}odefunc.", f"{prefix}odefunc.odefunc."
    wrapped = isinstance(module.odefunc, RegularizedODEfunc)
    for key in [key for key in state_dict if key.startswith(outer)]:
        if wrapped and not key.startswith(inner):
            state_dict[inner + key.removeprefix(outer)] = state_dict.pop(key)
        elif not wrapped and key.startswith(inner):
            state_dict[outer + key.removeprefix(inner)] = state_dict.pop(key)
