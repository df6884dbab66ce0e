r"""The integral in plain PyTorch: the definition that every engine is tested against.

Any float dtype, any device, differentiable to any order.

.. math:: z_{s+1} = z_s + h_s f_s(z_s), \qquad
          \ell_{s+1} = \ell_s - h_s \tau_s, \qquad \tau_s = \operatorname{Tr} J_s
          \text{ or } \sum_k \varepsilon_k \cdot J_s \varepsilon_k
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mvae_fast.core import nonlinearities
from mvae_fast.core.logdet import log_det_steps
from mvae_fast.core.problem import Problem, Solution
from mvae_fast.core.tableaus import Tableau, combine
from mvae_fast.core.tables import Tables
from mvae_fast.core.trace import second_order_table, trace_table

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
    second: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Velocity, trace and Jacobian products at one step.

    Args:
        z: (B, D), the state.
        tables: The net.
        s: Which row of the tables to use.
        trace: (1 or S, Q), see `mvae_fast.core.trace.trace_table`, or None.
        probes: (K, B, D), or None; they make the trace where ``trace`` is None.
        precision: What to round the operands of the products to, as autocast does.
        second: The table of `mvae_fast.core.trace.second_order_table` and the step size h, where
            the trace is to lack ``h/2 Tr J^2``.

    Returns:
        The velocity (B, D), the trace (B,), or None when neither trace nor probes is given, and
        ``J eps`` (K, B, D) of the probes. With ``tables.residual`` the trace lacks its ``-D``,
        which `mvae_fast.core.problem.complete` adds.
    """
    start = None if probes is None else probes.transpose(0, 1)
    output, tangent, slopes = _sweep(z, tables, s, start, trace is not None, precision)
    tangent = None if tangent is None else tangent.transpose(0, 1)
    tau = None
    if trace is not None:
        tau = closed_form(_row(trace, s), slopes, z, precision)
        if second is not None:  # Tr J^2 = phi'(a_1) . Q phi'(a_1), Q symmetric
            table, h = second
            square = _row(table, s).view(tables.widths[1], -1)
            product = _linear(slopes[0], square, None, precision)
            tau = tau - h / 2 * torch.linalg.vecdot(product, slopes[0])
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
    # Forward mode from the unit vectors, the same for all rows until a layer's slopes differ.
    unit = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    output, columns, _ = _sweep(z, tables, s, unit.unsqueeze(0))
    assert columns is not None
    full = columns.expand(z.shape[0], -1, -1).mT
    return (output - z, full - unit) if tables.residual else (output, full)


# Weight (m_l, m_{l-1}); gate (m_l,) or (B, m_l) or None; bias like it; context (B, m_l) or None.
_Layer = tuple[Tensor, Tensor | None, Tensor, Tensor | None]


def _layers(tables: Tables, s: int) -> list[_Layer]:
    """The layers at one step."""
    widths = tables.widths
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    weights = _row(tables.weight, s).split([m_out * m_in for m_in, m_out in pairs])

    def pieces(table: Tensor | None) -> Sequence[Tensor | None]:
        return [None] * len(pairs) if table is None else _row(table, s).split(list(widths[1:]))

    none: list[Tensor | None] = [None] * len(pairs)
    gates, biases, inners = map(pieces, (tables.gate, tables.bias, tables.inner))
    context, gammas = tables.context or none, tables.gate_context or none
    rows = zip(weights, pairs, gates, biases, inners, context, gammas, strict=True)
    layers: list[_Layer] = []
    for weight, (m_in, m_out), gate, bias, inner, u, gamma in rows:
        assert bias is not None
        if tables.gate_context:
            assert gate is not None and inner is not None
            gate = torch.sigmoid(gate if gamma is None else gate + gamma)
            bias = bias + gate * inner
        layers.append((weight.view(m_out, m_in), gate, bias, u))
    return layers


def _sweep(
    z: Tensor,
    tables: Tables,
    s: int,
    tangent: Tensor | None,
    with_slopes: bool = False,
    precision: str = "full",
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """The net's output (B, D), its product with ``tangent`` (B, K, D), and phi' by layer."""
    layers = _layers(tables, s)
    y, slopes = z, []
    for layer, (matrix, gate, bias, u) in enumerate(layers):
        if gate is None and u is None:
            y = _linear(y, matrix, bias, precision)
        else:
            y = _linear(y, matrix, None, precision)
            y = y if u is None else y + u
            y = y + bias if gate is None else torch.addcmul(bias, y, gate)
        if tangent is not None:
            tangent = _linear(tangent, matrix, None, precision)
            if gate is not None:
                tangent = tangent * gate.unsqueeze(-2)
        if layer < len(layers) - 1:
            if tangent is not None or with_slopes:
                slopes.append(nonlinearities.derivative(tables.nonlinearity, y))
            if tangent is not None:
                tangent = tangent * slopes[-1].unsqueeze(1)
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


def solve(problem: Problem) -> Solution:
    """Take all steps of a problem, but for `mvae_fast.core.problem.complete`.

    ``checkpoint_every`` only concerns engines that save states: here autograd keeps everything.
    """
    tables, precision = problem.field.tables(), problem.precision
    if problem.trace is not None and problem.jacobians:
        return _solve_jacobians(problem, tables)
    table = trace_table(tables) if problem.closed else None
    second_order = problem.trace is not None and problem.log_det == "second_order"
    second = second_order_table(tables) if second_order else None
    probes = problem.probes

    def evaluate(stage: Tensor, e: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        correction = None if second is None else (second, problem.h[e])
        velocity, tau, tangent = dynamics(stage, tables, e, table, probes, precision, correction)
        if not problem.penalties:
            return velocity, tau, None
        values = [_PENALTIES[name](velocity, tangent) for name in problem.penalties]
        return velocity, tau, torch.stack(values)

    return steps(problem.z, problem.h, problem.tableau, problem.outputs, evaluate)


Evaluate = Callable[[Tensor, int], tuple[Tensor, Tensor | None, Tensor | None]]


def steps(
    z: Tensor, h: Tensor, tableau: Tableau, outputs: tuple[int, ...], evaluate: Evaluate
) -> Solution:
    """All steps of a Runge-Kutta method, of any velocity.

    Args:
        z: (B, D), the start state.
        h: (S,), the step sizes.
        tableau: The method.
        outputs: Ascending step counts after which to report.
        evaluate: Velocity (B, D), trace (B,) or None, and penalties (E, B) or None at a state and
            the number of an evaluation, counted over steps and stages.
    """
    stages = len(tableau.b)
    logp, penalties = z.new_zeros(z.shape[0]), z.new_zeros((0, z.shape[0]))
    path = []
    for s in range(h.shape[0]):
        velocities: list[Tensor] = []
        for r in range(stages):
            weights = tableau.a[r * stages : r * stages + r]
            stage = combine(z, h[s], weights, velocities)
            velocity, tau, values = evaluate(stage, s * stages + r)
            velocities.append(velocity)
            if not tableau.b[r]:
                continue
            if tau is not None:
                logp = logp - h[s] * tableau.b[r] * tau
            if values is not None:
                added = h[s] * tableau.b[r] * values
                penalties = penalties + added if penalties.shape[0] else added
        z = combine(z, h[s], tableau.b, velocities)
        if s + 1 in outputs:
            path.append((z, logp, penalties))
    return Solution(*(torch.stack(values) for values in zip(*path, strict=True)))


# Elements of the Jacobians (rows, D, m) that are formed at a time on a CPU, in evaluation: those of
# 16 rows of D = 128 and m = 256 stay in its caches. 2.5 ms a row for ten steps, 2.65 with twice as
# many at a time, 3.05 with 500.
_AT_ONCE = 2**19


def _solve_jacobians(problem: Problem, tables: Tables) -> Solution:
    """With the log-determinant of the steps in place of the integral of the trace."""
    z = problem.z
    if problem.precision != "full":
        raise ValueError(
            f"precision: {problem.precision!r} does not go with log_det={problem.log_det!r} of "
            "this net"
        )
    size = max(1, _AT_ONCE // (z.shape[1] * max(tables.widths)))
    if torch.is_grad_enabled() or z.device.type != "cpu":
        size = max(1, z.shape[0])

    def some(begin: int) -> tuple[Tensor, Tensor]:
        end = begin + size

        def rows(context: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
            return tuple(None if u is None else u[begin:end] for u in context)

        here = replace(tables, context=rows(tables.context), gate_context=rows(tables.gate_context))
        return log_det_steps(
            z[begin:end],
            problem.h,
            lambda stage, e: jacobian(stage, here, e),
            problem.tableau,
            problem.outputs,
            second_order=problem.log_det == "second_order",
        )

    pieces = [some(begin) for begin in range(0, max(1, z.shape[0]), size)]
    path, logp = (torch.cat(both, 1) for both in zip(*pieces, strict=True))
    return Solution(path, logp, z.new_zeros((len(problem.outputs), 0, z.shape[0])))


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
