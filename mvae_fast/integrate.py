r"""The one differentiable entry to the core: checks its arguments, picks the engine, runs it."""

from __future__ import annotations

import torch
from torch import Tensor

from mvae_fast import engines
from mvae_fast.core.nonlinearities import NONLINEARITIES
from mvae_fast.core.problem import PENALTIES, PRECISIONS, Method, Problem, Solution
from mvae_fast.core.tableaus import EULER, Tableau
from mvae_fast.core.tables import Tables
from mvae_fast.core.trace import MAX_CLOSED_FORM_LAYERS

__all__ = ["check_precision", "integrate"]


def integrate(
    z: Tensor,
    h: Tensor,
    tables: Tables,
    *,
    trace: Tensor | None = None,
    probes: Tensor | None = None,
    second: Tensor | None = None,
    tableau: Tableau = EULER,
    outputs: tuple[int, ...] | None = None,
    checkpoint_every: int = 1,
    penalties: tuple[str, ...] = (),
    precision: str = "full",
    engine: str = "auto",
) -> Solution:
    r"""Integrate state and log-density change over S steps of an explicit Runge-Kutta method.

    .. math:: z_{s+1} = z_s + h_s f_s(z_s), \qquad \ell_{s+1} = \ell_s - h_s \tau_s

    for Euler's method (`mvae_fast.core.tableaus` has the general step), with the velocity ``f_s``
    that ``tables`` describe and ``tau_s`` either its exact trace (from ``trace``), or
    ``sum_k probes_k . J_s probes_k``, or 0; with ``second`` the step also adds
    ``h_s^2 / 2 Tr J_s^2`` to the log-density. ``penalties`` are integrals of the same kind, of
    values of ``f_s`` and ``J_s``.

    Args:
        z: (B, D), the start state.
        h: (S,), the step sizes; may be negative.
        tables: The net at the times of its S * R evaluations, R a step.
        trace: (1 or S * R, Q), the exact trace's table, see `mvae_fast.core.trace.trace_table`.
        probes: (K, B, D), trace probes, held fixed over the steps; may be stride 0 over rows. With
            ``trace`` they serve the penalty ``"frobenius"`` only.
        second: (1 or S, m_1 * m_1), symmetric: `mvae_fast.core.trace.second_order_table`; only with
            ``trace``, one hidden layer and Euler's method.
        tableau: The method.
        outputs: Ascending step counts in 1..S, ending in S, after which to report; default
            ``(S,)``.
        checkpoint_every: k: save the state of every k-th step only, and recompute the others in
            the backward.
        penalties: Some of `mvae_fast.core.problem.PENALTIES`, in their order.
        precision: What to round the operands of all products to: one of
            `mvae_fast.core.problem.PRECISIONS`. All but ``"full"`` need a float32 ``z``; sums,
            state and log-density stay in float32.
        engine: ``"auto"`` or one of `mvae_fast.engines.ENGINES`.

    Returns:
        States (len(outputs), B, D), log-density changes (len(outputs), B) and penalties
        (len(outputs), len(penalties), B). With ``tables.residual`` the caller still has to add
        ``D * sum(h)`` to the log-density.

    Raises:
        ValueError: If a shape, dtype, device or name does not fit.
        RuntimeError: If the named engine is missing.

    References:
        Neural Ordinary Differential Equations (Chen et al., 2018), eq. 8,
        https://arxiv.org/abs/1806.07366

    Example:
        >>> import torch
        >>> from mvae_fast.nets.odenet import ODEnet
        >>> from mvae_fast.core.tables import build_tables
        >>> net = ODEnet((), (2,), layer_type="ignore")
        >>> tables = build_tables(net, torch.zeros(4))
        >>> solution = integrate(torch.zeros(3, 2), torch.full((4,), 0.25), tables)
        >>> solution.z.shape, solution.logp.shape
        (torch.Size([1, 3, 2]), torch.Size([1, 3]))
    """
    if outputs is None:
        outputs = (h.shape[0],)
    method = Method(outputs, tableau, checkpoint_every, tuple(penalties), precision)
    problem = Problem(z, h, tables, method, trace, probes, second)
    _check(problem)
    name = engines.resolve(engine, z.device, z.dtype, precision, problem)
    return engines.get(name).integrate(problem)


def check_precision(precision: str, z: Tensor) -> None:
    """Raise ValueError unless ``precision`` is one, and one for the dtype of ``z``."""
    if precision not in PRECISIONS:
        names = ", ".join(map(repr, PRECISIONS))
        raise ValueError(f"precision: got {precision!r}, expected one of {names}")
    if precision != "full" and z.dtype != torch.float32:
        raise ValueError(f"precision: {precision!r} needs a float32 z, got {z.dtype}")


def _check(problem: Problem) -> None:
    z, h, tables, trace = problem.z, problem.h, problem.tables, problem.trace
    probes, second, outputs = problem.probes, problem.second, problem.method.outputs
    checkpoint_every, tableau = problem.method.checkpoint_every, problem.method.tableau
    penalties = problem.method.penalties
    widths = tables.widths
    dim = widths[0]
    if len(widths) < 2 or widths[-1] != dim:
        raise ValueError(
            f"widths: got {widths}, expected at least two, the first equal to the last"
        )
    if not z.is_floating_point():
        raise ValueError(f"z: got dtype {z.dtype}, expected a float dtype")
    if z.ndim != 2 or z.shape[1] != dim:
        raise ValueError(f"z: got shape {tuple(z.shape)}, expected (B, {dim})")
    if h.ndim != 1 or h.shape[0] < 1:
        raise ValueError(f"h: got shape {tuple(h.shape)}, expected (S,) with S >= 1")
    if tables.nonlinearity not in NONLINEARITIES:
        raise ValueError(
            f"nonlinearity: got {tables.nonlinearity!r}, expected one of "
            f"{', '.join(map(repr, NONLINEARITIES))}"
        )
    steps = h.shape[0]
    if not outputs or outputs[-1] != steps or outputs[0] < 1 or list(outputs) != sorted({*outputs}):
        raise ValueError(
            f"outputs: got {outputs}, expected ascending step counts ending in {steps}"
        )
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every: got {checkpoint_every}, expected >= 1")
    if penalties != tuple(name for name in PENALTIES if name in penalties):
        raise ValueError(f"penalties: got {penalties}, expected some of {PENALTIES} in this order")
    check_precision(problem.method.precision, z)
    if "frobenius" in penalties and probes is None:
        raise ValueError("penalties: 'frobenius' needs probes")
    if trace is not None and probes is not None and "frobenius" not in penalties:
        raise ValueError("trace and probes: got both, expected at most one")

    weights = sum(m_out * m_in for m_in, m_out in zip(widths[:-1], widths[1:], strict=True))
    rows = steps * len(tableau.b)
    _check_table("weight", tables.weight, rows, weights, z)
    _check_table("bias", tables.bias, rows, sum(widths[1:]), z)
    if tables.gate is not None:
        _check_table("gate", tables.gate, rows, sum(widths[1:]), z)
    _check_like("h", h, z)
    if trace is not None:
        _check_table("trace", trace, rows, _trace_size(widths), z)
    if second is not None:
        if trace is None or len(widths) != 3 or len(tableau.b) != 1:
            raise ValueError("second: needs trace, one hidden layer and Euler's method")
        _check_table("second", second, rows, widths[1] ** 2, z)
    if probes is not None:
        _check_like("probes", probes, z)
        if probes.ndim != 3 or probes.shape[1:] != z.shape:
            raise ValueError(
                f"probes: got shape {tuple(probes.shape)}, expected (K, {z.shape[0]}, {dim})"
            )
        if probes.requires_grad:
            raise ValueError("probes: got a tensor that requires grad, expected noise without grad")


def _trace_size(widths: tuple[int, ...]) -> int:
    depth = len(widths) - 1
    if depth > MAX_CLOSED_FORM_LAYERS:
        raise ValueError(
            f"trace: got a table for {depth} layers, expected at most {MAX_CLOSED_FORM_LAYERS}; "
            "deeper nets take probes"
        )
    return (1, widths[1], widths[1] * widths[-2])[depth - 1]


def _check_table(name: str, table: Tensor, steps: int, size: int, z: Tensor) -> None:
    if table.ndim != 2 or table.shape[0] not in (1, steps) or table.shape[1] != size:
        raise ValueError(f"{name}: got shape {tuple(table.shape)}, expected (1 or {steps}, {size})")
    _check_like(name, table, z)


def _check_like(name: str, tensor: Tensor, z: Tensor) -> None:
    if tensor.dtype != z.dtype:
        raise ValueError(f"{name}: got dtype {tensor.dtype}, expected that of z, {z.dtype}")
    if tensor.device != z.device:
        raise ValueError(f"{name}: got device {tensor.device}, expected that of z, {z.device}")
