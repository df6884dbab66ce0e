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
from mvae_fast.tableaus import EULER, Tableau
from mvae_fast.tables import Tables
from mvae_fast.trace import exact_probes

__all__ = ["combine", "dynamics", "integrate", "jacobian"]


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
    output, tangent, slopes = _sweep(z, tables, s, probes, with_slopes=trace is not None)
    tau = None
    if tangent is not None:
        tau = torch.linalg.vecdot(probes, tangent).sum(0)
    elif trace is not None:
        tau = _closed_form(_row(trace, s), slopes, z)
    return (output - z if tables.residual else output), tau


def jacobian(z: Tensor, tables: Tables, s: int) -> tuple[Tensor, Tensor]:
    """Velocity (B, D) and its whole Jacobian (B, D, D) at one step, with ``tables.residual``."""
    output, tangent, _ = _sweep(z, tables, s, exact_probes(z))
    assert tangent is not None
    matrix = tangent.permute(1, 2, 0)
    if not tables.residual:
        return output, matrix
    return output - z, matrix - torch.eye(z.shape[1], dtype=z.dtype, device=z.device)


def _sweep(
    z: Tensor, tables: Tables, s: int, tangent: Tensor | None, with_slopes: bool = False
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """The net's output (B, D), its product with ``tangent`` (K, B, D), and phi' by layer."""
    widths = tables.widths
    sizes = [m_out * m_in for m_in, m_out in zip(widths[:-1], widths[1:], strict=True)]
    weights = _row(tables.weight, s).split(sizes)
    biases = _row(tables.bias, s).split(list(widths[1:]))
    gates = None if tables.gate is None else _row(tables.gate, s).split(list(widths[1:]))
    last = len(sizes) - 1

    y, slopes = z, []
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
            if tangent is not None or with_slopes:
                slopes.append(nonlinearities.derivative(tables.nonlinearity, y))
            if tangent is not None:
                tangent = tangent * slopes[-1]
            y = nonlinearities.value(tables.nonlinearity, y)
    return y, tangent, slopes


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
    trace: Tensor | None = None,
    probes: Tensor | None = None,
    second: Tensor | None = None,
    tableau: Tableau = EULER,
    outputs: tuple[int, ...] | None = None,
    checkpoint_every: int = 1,
) -> tuple[Tensor, Tensor]:
    """Take all steps; arguments and result as in `mvae_fast.integrate.integrate`.

    ``checkpoint_every`` only concerns engines that save states: here autograd keeps everything.
    """
    stages = len(tableau.b)
    logp = z.new_zeros(z.shape[0])
    z_out, logp_out = [], []
    for s in range(h.shape[0]):
        velocities: list[Tensor] = []
        for r in range(stages):
            row = s * stages + r
            weights = tableau.a[r * stages : r * stages + r]
            stage = combine(z, h[s], weights, velocities)
            velocity, tau = dynamics(stage, tables, row, trace, probes)
            velocities.append(velocity)
            if tau is not None and tableau.b[r]:
                logp = logp - h[s] * tableau.b[r] * tau
            if second is not None:
                logp = logp + h[s].square() / 2 * _second_order(stage, tables, row, second)
        z = combine(z, h[s], tableau.b, velocities)
        if outputs is None or s + 1 in outputs:
            z_out.append(z)
            logp_out.append(logp)
    if outputs is None:
        z_out, logp_out = z_out[-1:], logp_out[-1:]
    return torch.stack(z_out), torch.stack(logp_out)


def combine(z: Tensor, h: Tensor, weights: tuple[float, ...], velocities: list[Tensor]) -> Tensor:
    """``z + h sum_q weights_q k_q``."""
    for weight, velocity in zip(weights, velocities, strict=True):
        if weight:
            z = z + h * weight * velocity
    return z


def _second_order(z: Tensor, tables: Tables, s: int, second: Tensor) -> Tensor:
    """``Tr J^2 = phi'(a_1) . Q phi'(a_1)`` of a net with one hidden layer."""
    dim, hidden = tables.widths[:2]
    matrix = _row(tables.weight, s)[: hidden * dim].view(hidden, dim)
    product = F.linear(z, matrix)
    if tables.gate is not None:
        product = product * _row(tables.gate, s)[:hidden]
    slope = nonlinearities.derivative(tables.nonlinearity, product + _row(tables.bias, s)[:hidden])
    return torch.linalg.vecdot(slope @ _row(second, s).view(hidden, hidden), slope)
