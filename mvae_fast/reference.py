r"""The integral in plain PyTorch: the definition that every engine is tested against.

Any float dtype, any device, differentiable to any order.

.. math:: z_{s+1} = z_s + h_s f_s(z_s), \qquad
          \ell_{s+1} = \ell_s - h_s \tau_s, \qquad \tau_s = \operatorname{Tr} J_s
          \text{ or } \sum_k \varepsilon_k \cdot J_s \varepsilon_k
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mvae_fast import nonlinearities
from mvae_fast.tables import Tables

__all__ = ["dynamics", "integrate"]


def _row(table: Tensor, s: int) -> Tensor:
    return table[0 if table.shape[0] == 1 else s]


def dynamics(
    z: Tensor,
    tables: Tables,
    s: int,
    trace: Tensor | None = None,
    probes: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Velocity and trace at one step.

    Args:
        z: (B, D), the state.
        tables: The net.
        s: Which row of the tables to use.
        trace: (1 or S, Q), see `mvae_fast.trace.trace_table`, or None.
        probes: (K, B, D), or None. Trace and probes are not given together.

    Returns:
        The velocity (B, D) and the trace (B,), or None when neither trace nor probes is given. With
        ``tables.residual`` the trace lacks its ``-D``, which the caller of the engines adds.
    """
    widths = tables.widths
    sizes = [m_out * m_in for m_in, m_out in zip(widths[:-1], widths[1:], strict=True)]
    weights = _row(tables.weight, s).split(sizes)
    biases = _row(tables.bias, s).split(list(widths[1:]))
    gates = None if tables.gate is None else _row(tables.gate, s).split(list(widths[1:]))
    last = len(sizes) - 1

    y, tangent, slopes = z, probes, []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        matrix = weight.view(widths[layer + 1], widths[layer])
        if gates is None:
            y = F.linear(y, matrix, bias)
        else:
            y = torch.addcmul(bias, F.linear(y, matrix), gates[layer])
        if tangent is not None:
            tangent = F.linear(tangent, matrix)
            if gates is not None:
                tangent = tangent * gates[layer]
        if layer < last:
            if tangent is not None or trace is not None:
                slopes.append(nonlinearities.derivative(tables.nonlinearity, y))
            if tangent is not None:
                tangent = tangent * slopes[-1]
            y = nonlinearities.value(tables.nonlinearity, y)

    tau = None
    if tangent is not None:
        tau = torch.linalg.vecdot(probes, tangent).sum(0)
    elif trace is not None:
        tau = _closed_form(_row(trace, s), slopes, z)
    return (y - z if tables.residual else y), tau


def _closed_form(row: Tensor, slopes: list[Tensor], z: Tensor) -> Tensor:
    if not slopes:
        return row.expand(z.shape[0])
    if len(slopes) == 1:
        return slopes[0] @ row
    table = row.view(slopes[1].shape[1], slopes[0].shape[1])
    return torch.linalg.vecdot(slopes[1] @ table, slopes[0])


def integrate(
    z: Tensor,
    h: Tensor,
    tables: Tables,
    trace: Tensor | None,
    probes: Tensor | None,
    outputs: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    """Take all Euler steps; arguments and result as in `mvae_fast.integrate.integrate`."""
    logp = z.new_zeros(z.shape[0])
    z_out, logp_out = [], []
    for s in range(h.shape[0]):
        velocity, tau = dynamics(z, tables, s, trace, probes)
        z = z + h[s] * velocity
        if tau is not None:
            logp = logp - h[s] * tau
        if s + 1 in outputs:
            z_out.append(z)
            logp_out.append(logp)
    return torch.stack(z_out), torch.stack(logp_out)
