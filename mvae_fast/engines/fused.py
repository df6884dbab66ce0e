"""All steps of an ODE net in one call of an engine, by the cheapest way there is."""

from __future__ import annotations

import torch
from torch import Tensor

from mvae_fast import engines
from mvae_fast.core.grid import Grid, evaluation_times
from mvae_fast.core.logdet import integrate_log_det
from mvae_fast.core.problem import Method, Solution
from mvae_fast.core.tables import Tables, build_tables
from mvae_fast.core.trace import (
    MAX_CLOSED_FORM_LAYERS,
    exact_probes,
    second_order_table,
    trace_table,
)
from mvae_fast.engines import net_ops, table_ops
from mvae_fast.integrate import check_precision, integrate
from mvae_fast.nets.odenet import ODEnet

__all__ = ["integrate_net"]


def integrate_net(
    z: Tensor,
    steps: Grid,
    net: ODEnet,
    method: Method,
    *,
    residual: bool = False,
    trace: str | None = None,
    probes: Tensor | None = None,
    log_det: str = "trace",
    engine: str = "auto",
) -> Solution:
    """Integrate an ODE net over a grid.

    Args:
        z: (B, D), the start state.
        steps: Times and sizes of the steps.
        net: A net that is readable (`mvae_fast.nets.recognise`).
        method: How to integrate it.
        residual: The velocity is ``f - z``.
        trace: ``"exact"``, ``"hutchinson"`` or None.
        probes: (K, B, D), for ``"hutchinson"`` and for the penalty ``"frobenius"``.
        log_det: As of `mvae_fast.FastCNF`.
        engine: As of `mvae_fast.FastCNF`.

    Returns:
        As `mvae_fast.integrate.integrate`, the log-density complete with ``residual``.

    Raises:
        ValueError: If a setting does not fit.
        RuntimeError: If the named engine is missing.
    """
    if z.shape[1] != net.widths[0]:
        raise ValueError(f"z: got shape {tuple(z.shape)}, expected (B, {net.widths[0]})")
    t = evaluation_times(steps, method.tableau.c)
    if trace is not None and log_det != "trace":
        tables = build_tables(net, t, residual)
        return _log_det(z, steps, tables, method, trace, log_det, engine)
    exact = trace == "exact"
    closed = exact and len(net.layers) <= MAX_CLOSED_FORM_LAYERS
    if exact and not closed:
        probes = exact_probes(z)
    elif trace is None:
        probes = None
    check_precision(method.precision, z)
    chosen = engines.resolve(engine, z.device, z.dtype, method.precision)
    by_cpp = chosen == "cpp" and not table_ops.transformed()
    if by_cpp and net_ops.applies(net):
        solution = net_ops.integrate(
            z, t, steps.h, net, method, residual=residual, exact=closed, probes=probes
        )
    else:
        tables = build_tables(net, t, residual)
        table = trace_table(tables) if closed else None
        solution = integrate(
            z,
            steps.h,
            tables,
            trace=table,
            probes=probes,
            tableau=method.tableau,
            outputs=method.outputs,
            checkpoint_every=method.checkpoint_every,
            penalties=method.penalties,
            precision=method.precision,
            engine=engine,
        )
    if not residual or trace is None:
        return solution
    # The trace of the engines is that of f, not of f - z.
    passed = steps.h.cumsum(0)
    # Not by a list of indices, which would be copied to a GPU.
    elapsed = torch.cat([passed[s - 1 : s] for s in method.outputs])
    return solution._replace(logp=solution.logp + z.shape[1] * elapsed.unsqueeze(1))


def _log_det(
    z: Tensor,
    steps: Grid,
    tables: Tables,
    method: Method,
    trace: str,
    log_det: str,
    engine: str,
) -> Solution:
    """With more of the log-determinant of the steps than their trace."""
    if trace != "exact":
        raise ValueError(f"log_det: {log_det!r} needs trace='exact', got {trace!r}")
    if method.penalties:
        raise ValueError(f"log_det: {log_det!r} does not go with regularization_fns in training")
    second_order = log_det == "second_order"
    if second_order and len(method.tableau.b) > 1:
        raise ValueError("log_det: 'second_order' is a correction of Euler's method")
    if second_order and len(tables.widths) == 3 and not tables.residual:
        return integrate(
            z,
            steps.h,
            tables,
            trace=trace_table(tables),
            second=second_order_table(tables),
            outputs=method.outputs,
            checkpoint_every=method.checkpoint_every,
            precision=method.precision,
            engine=engine,
        )
    if method.precision != "full":
        raise ValueError(
            f"precision: {method.precision!r} does not go with log_det={log_det!r} of this net"
        )
    if engine not in ("auto", "reference"):
        raise ValueError(
            f"engine: {engine!r} has log_det='trace', and 'second_order' for one hidden layer; "
            "remedy: engine='auto'"
        )
    z_out, logp_out = integrate_log_det(
        z, steps.h, tables, method.tableau, method.outputs, second_order=second_order
    )
    return Solution(z_out, logp_out, z.new_zeros((len(method.outputs), 0, z.shape[0])))
