"""The C++ engine's ops for `mvae_fast.hidden_space`, made differentiable and traceable.

The schemas of ``mvae_fast::integrate_hidden`` and ``mvae_fast::integrate_hidden_backward`` are
defined in ``csrc/hidden_ops.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mvae_fast import ops, table_ops

__all__ = ["integrate_hidden"]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    u, *rest, nonlinearity, save = inputs
    states = output[2]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(states)
    ctx.save_for_backward(u, states, *rest)
    ctx.nonlinearity = nonlinearity
    ctx.saved_states = save


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    if not ctx.saved_states:
        raise RuntimeError("mvae_fast::integrate_hidden: backward needs the states of save=True")
    u, *others = ctx.saved_tensors
    grad_total, grad_logp = grads[:2]
    gradients = torch.ops.mvae_fast.integrate_hidden_backward.default(
        torch.zeros_like(u) if grad_total is None else grad_total.contiguous(),
        u.new_zeros(u.shape[0]) if grad_logp is None else grad_logp.contiguous(),
        u,
        *others,
        ctx.nonlinearity,
    )
    inputs = (u, *others[1:])
    present = (
        None if x is None else gradient for x, gradient in zip(inputs, gradients, strict=True)
    )
    return *present, None, None


def _fake_integrate_hidden(
    u: Tensor,
    h: Tensor,
    matrix: Tensor,
    gate: Tensor | None,
    bias: Tensor,
    drift: Tensor,
    trace: Tensor | None,
    coefficients: Tensor | None,
    nonlinearity: int,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    saved = h.shape[0] - 1 if save else 0
    return u.new_empty(u.shape), u.new_empty(u.shape[:1]), u.new_empty((saved, *u.shape))


def _fake_integrate_hidden_backward(
    grad_total: Tensor,
    grad_logp: Tensor,
    u: Tensor,
    states: Tensor,
    h: Tensor,
    matrix: Tensor,
    gate: Tensor | None,
    bias: Tensor,
    drift: Tensor,
    trace: Tensor | None,
    coefficients: Tensor | None,
    nonlinearity: int,
) -> tuple[Tensor, ...]:
    inputs = (u, h, matrix, gate, bias, drift, trace, coefficients)
    return tuple(u.new_empty((0,) if x is None else x.shape) for x in inputs)


_FAKES: dict[str, Callable[..., Any]] = {
    "integrate_hidden": _fake_integrate_hidden,
    "integrate_hidden_backward": _fake_integrate_hidden_backward,
}


def _register() -> None:
    library = torch.library
    for name, fake in _FAKES.items():
        library.register_fake(f"mvae_fast::{name}", fake)
    library.register_autograd(
        "mvae_fast::integrate_hidden", _backward, setup_context=_setup_context
    )
    library.register_autograd(
        "mvae_fast::integrate_hidden_backward", table_ops.refuse_double_backward
    )


if ops.has(**_FAKES):
    _register()


def integrate_hidden(
    u: Tensor,
    h: Tensor,
    matrix: Tensor,
    gate: Tensor | None,
    bias: Tensor,
    drift: Tensor,
    trace: Tensor | None,
    coefficients: Tensor | None,
    nonlinearity: str,
) -> tuple[Tensor, Tensor]:
    r"""Take all steps of the hidden pre-activation in C++.

    .. math:: a_s = G_s \odot u_s + C_s, \qquad u_{s+1} = u_s + h_s (A \phi(a_s) + d_s), \qquad
              \ell_{s+1} = \ell_s - h_s \tau_s

    with ``tau_s = phi'(a_s) . c_s`` for a ``trace`` table c, ``phi'(a_s) . (G_s * e_b)`` in row b
    for ``coefficients`` e, else 0.

    Args:
        u: (B, m), the start.
        h: (S,), the step sizes.
        matrix: (m, m), A.
        gate: (1 or S, m), G, or None for ones.
        bias: (1 or S, m), C.
        drift: (1 or S, m), d.
        trace: (1 or S, m), c, or None.
        coefficients: (B, m), e, or None. Trace and coefficients are not given together.
        nonlinearity: phi; swish has beta = 1 here.

    Returns:
        The sum ``sum_s h_s phi(a_s)`` (B, m) and the change of log-density (B,).

    Raises:
        RuntimeError: If a shape or dtype does not fit, and in a backward of the backward.
    """
    given = (u, h, matrix, gate, bias, drift, trace, coefficients)
    tensors = tuple(None if x is None else x.contiguous() for x in given)
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    op = torch.ops.mvae_fast.integrate_hidden.default
    total, logp, _ = op(*tensors, table_ops.nonlinearity_number(nonlinearity), save)
    return total, logp
