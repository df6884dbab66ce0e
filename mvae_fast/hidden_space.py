r"""Euler's method on the pre-activation of a net with one hidden layer, instead of on its state.

The velocity ``f_s(z) = G_2 * (W_2 phi(G_1[s] * (W_1 z) + C_1[s])) + C_2[s]`` knows z only through
``u = W_1 z``. Where ``W_1``, ``W_2`` and ``G_2`` are the same for every step, u has steps of its
own:

.. math::
    a_s = G_1[s] \odot u_s + C_1[s], \qquad
    u_{s+1} = u_s + h_s (A \phi(a_s) + W_1 C_2[s]), \qquad
    A = W_1 \operatorname{diag}(G_2) W_2

    z_S = z_0 + G_2 \odot (W_2 P) + \sum_s h_s C_2[s], \qquad P = \sum_s h_s \phi(a_s)

They take m^2 multiply-adds a row instead of 2 D m. The log-density is that of the state's steps:
``tau_s = phi'(a_s) . c_s`` with the table c of `mvae_fast.trace.trace_table`, or for trace probes

.. math:: \tau_s = \phi'(a_s) \cdot (G_1[s] \odot e), \qquad
          e = \sum_k (W_1 \varepsilon_k) \odot (W_2^T (G_2 \odot \varepsilon_k))

The result is that of the other engines up to rounding; what is built here is built by PyTorch, so
that autograd takes the gradients of the step's products back to the tables.
"""

from __future__ import annotations

from torch import Tensor

from mvae_fast import hidden_ops
from mvae_fast.problem import Method, Solution
from mvae_fast.tables import Tables

__all__ = ["applies", "costs_less", "integrate", "takes"]


def takes(method: Method) -> bool:
    """Whether `integrate` covers a method.

    That is Euler's, with only the last state wanted, every state saved for the backward, no
    penalties and operands as they are.
    """
    return method == Method(method.outputs[-1:])


def applies(tables: Tables, method: Method) -> bool:
    """Whether `integrate` covers a solve: otherwise it takes one of the engines.

    It takes a net with one hidden layer, whose weights and gate of the last layer do not vary, and
    no residual.

    Example:
        >>> import torch
        >>> from mvae_fast.odenet import ODEnet
        >>> from mvae_fast.tables import build_tables
        >>> times = torch.zeros(4)
        >>> applies(build_tables(ODEnet((5,), (2,), layer_type="concat"), times), Method((4,)))
        True
        >>> applies(build_tables(ODEnet((5,), (2,), layer_type="squash"), times), Method((4,)))
        False
    """
    constant = tables.weight.shape[0] == 1 and (tables.gate is None or tables.gate.shape[0] == 1)
    return constant and len(tables.widths) == 3 and not tables.residual and takes(method)


# Hidden space must win by this factor and by these multiply-adds of a forward. Its m x m products,
# and those of PyTorch around them, hide the nonlinearity's pass less well, and PyTorch's calls take
# 0.1 ms a forward. Measured on one thread of a Zen 4, D = 2 to 784, S = 2 to 20: with them it is
# taken where it is faster, and nowhere else.
_FACTOR = 1.25
_OVERHEAD = 4_000_000


def costs_less(dim: int, hidden: int, batch: int, steps: int, training: bool) -> bool:
    r"""Whether hidden space takes clearly fewer multiply-adds than the state space of an engine.

    With D, m, B and S for the arguments, the products of a forward are

    .. math:: 2 B S D m \quad \text{against} \quad B (S - 1) m^2 + 2 B D m + D m^2 + S D m

    where the last three terms are ``W_1 z_0`` and ``W_2 P``, A, and ``W_1 C_2``, paid once; of
    ``u_S``, which nothing needs, there is no step. With the backward, state space takes 7/2 of its
    forward (5/2 for the backward, which recomputes ``W_1 z``) and hidden space three times its
    own (u is saved). What both have in common is left out: the passes of the nonlinearity, and the
    two products of each trace probe.

    Args:
        dim: D, the dimension of the state.
        hidden: m, the width of the hidden layer.
        batch: B, the rows.
        steps: S, the steps.
        training: Whether a backward follows.

    Example:
        >>> costs_less(dim=784, hidden=256, batch=256, steps=20, training=True)
        True
        >>> costs_less(dim=64, hidden=256, batch=256, steps=20, training=True)
        False
    """
    state_space = 2 * batch * steps * dim * hidden
    per_solve = (2 * batch + hidden + steps) * dim * hidden
    hidden_space = batch * (steps - 1) * hidden**2 + per_solve
    saving = 7 / 6 if training else 1.0  # 7/2 of the forward against 3 of it
    return _FACTOR * hidden_space + _OVERHEAD < saving * state_space


def integrate(
    z: Tensor,
    h: Tensor,
    tables: Tables,
    trace: Tensor | None = None,
    probes: Tensor | None = None,
) -> Solution:
    """Take all steps; `applies` says for which nets and methods.

    Args:
        z: (B, D), the start state, float32 or float64 on the CPU.
        h: (S,), the step sizes; may be negative.
        tables: The net.
        trace: (1 or S, m), the table of the exact trace, or None.
        probes: (K, B, D), trace probes, or None. Trace and probes are not given together.

    Returns:
        The last state (1, B, D) and the change of log-density (1, B), both differentiable once in
        ``z``, ``h``, the tables and ``trace``.

    Raises:
        RuntimeError: In a backward of the backward.
    """
    dim, hidden, _ = tables.widths
    first, last = tables.weight[0].split(dim * hidden)
    first, last = first.view(hidden, dim), last.view(dim, hidden)
    gate = None
    if tables.gate is not None:
        gate, last_gate = tables.gate.split((hidden, dim), dim=1)
        last = last_gate.mT * last
    bias, last_bias = tables.bias.split((hidden, dim), dim=1)
    coefficients = None
    if probes is not None:
        coefficients = ((probes @ first.mT) * (probes @ last)).sum(0)
    total, logp = hidden_ops.integrate_hidden(
        z @ first.mT,
        h,
        first @ last,
        gate,
        bias,
        last_bias @ first.mT,
        trace,
        coefficients,
        tables.nonlinearity,
    )
    shift = h @ last_bias.expand(h.shape[0], dim)
    end = (z + shift).addmm(total, last.mT)
    return Solution(end.unsqueeze(0), logp.unsqueeze(0), z.new_zeros((1, 0, z.shape[0])))
