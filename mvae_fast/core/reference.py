r"""The integral in plain PyTorch: the definition that every engine is tested against.

Any float dtype, any device, differentiable to any order.

.. math:: z_{s+1} = z_s + h_s f_s(z_s), \qquad
          \ell_{s+1} = \ell_s - h_s \tau_s, \qquad \tau_s = \operatorname{Tr} J_s
          \text{ or } \sum_k \varepsilon_k \cdot J_s \varepsilon_k
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mvae_fast.core import nonlinearities
from mvae_fast.core.problem import Problem, Solution
from mvae_fast.core.tables import Tables

__all__ = ["closed_form", "combine", "dynamics", "integrate", "jacobian"]


_OPERANDS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def _row(table: Tensor, s: int) -> Tensor:
    return table[0 if table.shape[0] == 1 else s]


def dynamics(
    z: Tensor,
    tables: Tables,
    s: int,
    trace: Tensor | None = None,
    probes: Tensor | None = None,
    precision: str = "full",
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Velocity, trace and Jacobian products at one step.

    Args:
        z: (B, D), the state.
        tables: The net.
        s: Which row of the tables to use.
        trace: (1 or S, Q), see `mvae_fast.core.trace.trace_table`, or None.
        probes: (K, B, D), or None; they make the trace where ``trace`` is None.
        precision: What to round the operands of the products to, as autocast does.

    Returns:
        The velocity (B, D), the trace (B,), or None when neither trace nor probes is given, and
        ``J eps`` (K, B, D) of the probes. With ``tables.residual`` the trace lacks its ``-D``,
        which the caller of the engines adds.
    """
    output, tangent, slopes = _sweep(
        z, tables, s, probes, with_slopes=trace is not None, precision=precision
    )
    tau = None
    if trace is not None:
        tau = closed_form(_row(trace, s), slopes, z, precision)
    elif tangent is not None:
        tau = torch.linalg.vecdot(probes, tangent).sum(0)
    if not tables.residual:
        return output, tau, tangent
    return output - z, tau, tangent if tangent is None or probes is None else tangent - probes


def _linear(x: Tensor, matrix: Tensor, bias: Tensor | None, precision: str) -> Tensor:
    rounded = _OPERANDS.get(precision)
    if rounded is None:
        return F.linear(x, matrix, bias)
    product = F.linear(x.to(rounded), matrix.to(rounded)).to(x.dtype)
    return product if bias is None else product + bias


def jacobian(z: Tensor, tables: Tables, s: int) -> tuple[Tensor, Tensor]:
    """Velocity (B, D) and its whole Jacobian (B, D, D) at one step, with ``tables.residual``."""
    # Forward mode from the unit vectors: (B, D, m_l), of which row i is dy_l / dz_i. The first
    # layer's is its weight, the same for all rows of z; the second's is one product for them all.
    product: Tensor | None = None
    y = z
    layers = _layers(tables, s)
    for layer, (matrix, gate, bias) in enumerate(layers):
        if gate is not None:
            matrix = matrix * gate.unsqueeze(1)
        y = F.linear(y, matrix, bias)
        product = matrix.T.contiguous() if product is None else F.linear(product, matrix)
        if layer < len(layers) - 1:
            slope = nonlinearities.derivative(tables.nonlinearity, y)
            product = product * slope.unsqueeze(1)
            y = nonlinearities.value(tables.nonlinearity, y)
    assert product is not None
    full = product.mT.expand(z.shape[0], -1, -1)
    if not tables.residual:
        return y, full
    return y - z, full - torch.eye(z.shape[1], dtype=z.dtype, device=z.device)


def _layers(tables: Tables, s: int) -> list[tuple[Tensor, Tensor | None, Tensor]]:
    """Weight (m_l, m_{l-1}), gate (m_l,) or None, and bias (m_l,) of each layer at one step."""
    widths = tables.widths
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    weights = _row(tables.weight, s).split([m_out * m_in for m_in, m_out in pairs])
    biases = _row(tables.bias, s).split(list(widths[1:]))
    gates: Sequence[Tensor | None] = [None] * len(pairs)
    if tables.gate is not None:
        gates = _row(tables.gate, s).split(list(widths[1:]))
    return [
        (weight.view(m_out, m_in), gate, bias)
        for weight, gate, bias, (m_in, m_out) in zip(weights, gates, biases, pairs, strict=True)
    ]


def _sweep(
    z: Tensor,
    tables: Tables,
    s: int,
    tangent: Tensor | None,
    with_slopes: bool = False,
    precision: str = "full",
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """The net's output (B, D), its product with ``tangent`` (K, B, D), and phi' by layer."""
    layers = _layers(tables, s)
    y, slopes = z, []
    for layer, (matrix, gate, bias) in enumerate(layers):
        if gate is None:
            y = _linear(y, matrix, bias, precision)
        else:
            y = torch.addcmul(bias, _linear(y, matrix, None, precision), gate)
        if tangent is not None:
            tangent = _linear(tangent, matrix, None, precision)
            if gate is not None:
                tangent = tangent * gate
        if layer < len(layers) - 1:
            if tangent is not None or with_slopes:
                slopes.append(nonlinearities.derivative(tables.nonlinearity, y))
            if tangent is not None:
                tangent = tangent * slopes[-1]
            y = nonlinearities.value(tables.nonlinearity, y)
    return y, tangent, slopes


def closed_form(row: Tensor, slopes: list[Tensor], z: Tensor, precision: str = "full") -> Tensor:
    """The trace (B,) by one row (Q,) of `mvae_fast.core.trace.trace_table` and phi' by layer."""
    if not slopes:
        return row.expand(z.shape[0])
    if len(slopes) == 1:
        return slopes[0] @ row
    table = row.view(slopes[1].shape[1], slopes[0].shape[1])
    return torch.linalg.vecdot(_linear(slopes[0], table, None, precision), slopes[1])


def integrate(problem: Problem) -> Solution:
    """Take all steps.

    ``checkpoint_every`` only concerns engines that save states: here autograd keeps everything.
    """
    z, h, tables, method = problem.z, problem.h, problem.tables, problem.method
    tableau, stages = method.tableau, len(method.tableau.b)
    logp = z.new_zeros(z.shape[0])
    penalties = z.new_zeros((len(method.penalties), z.shape[0]))
    z_out, logp_out, penalties_out = [], [], []
    for s in range(h.shape[0]):
        velocities: list[Tensor] = []
        for r in range(stages):
            row = s * stages + r
            weights = tableau.a[r * stages : r * stages + r]
            stage = combine(z, h[s], weights, velocities)
            velocity, tau, tangent = dynamics(
                stage, tables, row, problem.trace, problem.probes, method.precision
            )
            velocities.append(velocity)
            if tau is not None and tableau.b[r]:
                logp = logp - h[s] * tableau.b[r] * tau
            if problem.second is not None:
                second = _second_order(stage, tables, row, problem.second, method.precision)
                logp = logp + h[s].square() / 2 * second
            if method.penalties and tableau.b[r]:
                values = [_PENALTIES[name](velocity, tangent) for name in method.penalties]
                penalties = penalties + h[s] * tableau.b[r] * torch.stack(values)
        z = combine(z, h[s], tableau.b, velocities)
        if s + 1 in method.outputs:
            z_out.append(z)
            logp_out.append(logp)
            penalties_out.append(penalties)
    return Solution(torch.stack(z_out), torch.stack(logp_out), torch.stack(penalties_out))


def _frobenius(velocity: Tensor, tangent: Tensor | None) -> Tensor:
    assert tangent is not None
    return tangent.square().sum((0, 2))


#: `mvae_fast.core.problem.PENALTIES`: velocity (B, D) and J eps (K, B, D) -> (B,).
_PENALTIES: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "mean_magnitude": lambda velocity, _: velocity.abs().mean(1),
    "root_mean_square": lambda velocity, _: (
        torch.linalg.vector_norm(velocity, dim=1) / velocity.shape[1] ** 0.5
    ),
    "kinetic_energy": lambda velocity, _: velocity.square().sum(1),
    "frobenius": _frobenius,
}


def combine(z: Tensor, h: Tensor, weights: tuple[float, ...], velocities: list[Tensor]) -> Tensor:
    """``z + h sum_q weights_q k_q``."""
    for weight, velocity in zip(weights, velocities, strict=True):
        if weight:
            z = z + h * weight * velocity
    return z


def _second_order(z: Tensor, tables: Tables, s: int, second: Tensor, precision: str) -> Tensor:
    """``Tr J^2 = phi'(a_1) . Q phi'(a_1)`` of a net with one hidden layer."""
    dim, hidden = tables.widths[:2]
    matrix = _row(tables.weight, s)[: hidden * dim].view(hidden, dim)
    product = _linear(z, matrix, None, precision)
    if tables.gate is not None:
        product = product * _row(tables.gate, s)[:hidden]
    slope = nonlinearities.derivative(tables.nonlinearity, product + _row(tables.bias, s)[:hidden])
    square = _row(second, s).view(hidden, hidden)  # symmetric
    return torch.linalg.vecdot(_linear(slope, square, None, precision), slope)
