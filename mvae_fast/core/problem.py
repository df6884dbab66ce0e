"""What an engine is asked and what it answers."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from mvae_fast.checks import integer, one_of
from mvae_fast.core.field import Field
from mvae_fast.core.nonlinearities import NONLINEARITIES
from mvae_fast.core.tableaus import EULER, Tableau
from mvae_fast.core.tables import Tables
from mvae_fast.core.trace import MAX_CLOSED_FORM_LAYERS

#: How the trace of the Jacobian is found.
Trace = Literal["exact", "hutchinson"]
TRACES: tuple[Trace, ...] = get_args(Trace)

#: How the change of log-density is found from it.
LogDet = Literal["trace", "second_order", "exact"]
LOG_DETS: tuple[LogDet, ...] = get_args(LogDet)

#: Of the operands of products; sums, state and log-density keep the dtype of the state.
Precision = Literal["full", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

#: What is kept for the backward: the states alone, activations too, or these while they are small.
Memory = Literal["auto", "states", "activations"]
MEMORIES: tuple[Memory, ...] = get_args(Memory)

#: Integrals along the path that engines take in the same sweep, with ``J`` the Jacobian of the
#: velocity ``f``.
PENALTIES: tuple[str, ...] = (
    "mean_magnitude",  # sum_i |f_i| / D
    "root_mean_square",  # |f| / sqrt(D)
    "kinetic_energy",  # |f|^2
    "frobenius",  # sum_k |J eps_k|^2
)


class Problem(NamedTuple):
    """Everything that decides how a solve is done.

    A named tuple, which takes 1 us to make where a frozen dataclass takes 5.

    Args:
        z: (B, D), the start state.
        h: (S,), the step sizes; may be negative.
        field: The velocity at its S * R evaluations, R a step.
        outputs: Ascending step counts in 1..S, ending in S, after which to report.
        trace: One of `TRACES`, or None for no change of log-density.
        probes: (K, B, D), trace probes, held fixed over the steps, scaled; may be stride 0 over
            rows. For ``"hutchinson"`` and for the penalty ``"frobenius"``.
        log_det: One of `LOG_DETS`; the others than ``"trace"`` need the exact trace.
        tableau: The Runge-Kutta method.
        checkpoint_every: k: the state of every k-th step is saved for the backward.
        penalties: Some of `PENALTIES`, in their order.
        precision: One of `PRECISIONS`: what the operands of the products are rounded to.
        follow: ``precision`` is a wish (of ``torch.autocast``): an engine without it may take
            ``"full"``.
        memory: One of `MEMORIES`, or bytes: what an engine keeps for the backward.
        check_finite: Whether a solution that is not finite is an error.
    """

    z: Tensor
    h: Tensor
    field: Field | Tables
    outputs: tuple[int, ...]
    trace: str | None = None
    probes: Tensor | None = None
    log_det: str = "trace"
    tableau: Tableau = EULER
    checkpoint_every: int = 1
    penalties: tuple[str, ...] = ()
    precision: str = "full"
    follow: bool = False
    memory: str | int = "auto"
    check_finite: bool = False

    @property
    def closed(self) -> bool:
        """Whether the trace is exact and has a closed form; else probes give it, or the whole
        Jacobian."""
        field = self.field
        return (
            self.trace == "exact"
            and len(field.widths) <= MAX_CLOSED_FORM_LAYERS + 1
            and not field.gate_context
        )

    @property
    def jacobians(self) -> bool:
        """Whether the log-determinant takes the whole Jacobian of every step."""
        field = self.field
        second_order = self.log_det == "second_order" and len(field.widths) == 3
        return self.log_det != "trace" and not (
            second_order and not field.residual and not field.gate_context
        )

    def check(self) -> None:
        """Raise ValueError unless everything fits."""
        _check_method(self)
        _check_tensors(self)


class Solution(NamedTuple):
    """States (n, B, D), log-density changes (n, B), penalties (n, E, B) after ``outputs``."""

    z: Tensor
    logp: Tensor
    penalties: Tensor


def complete(problem: Problem, solution: Solution) -> Solution:
    """With the ``-D`` of the trace of ``f - z``, which that of ``f``, which was taken, lacks; and
    without a trace that probes gave which are for a penalty only."""
    if problem.trace is None and problem.probes is not None:
        return solution._replace(logp=torch.zeros_like(solution.logp))
    if not problem.field.residual or problem.trace is None or problem.log_det != "trace":
        return solution
    passed = problem.h.cumsum(0)
    # Not by a list of indices, which would be copied to a GPU.
    elapsed = torch.cat([passed[s - 1 : s] for s in problem.outputs])
    return solution._replace(logp=solution.logp + problem.z.shape[1] * elapsed.unsqueeze(1))


def _check_method(problem: Problem) -> None:
    widths, outputs, steps = problem.field.widths, problem.outputs, problem.h.shape[0]
    if len(widths) < 2 or widths[-1] != widths[0]:
        raise ValueError(
            f"widths: got {widths}, expected at least two, the first equal to the last"
        )
    one_of("nonlinearity", problem.field.nonlinearity, NONLINEARITIES)
    if problem.h.ndim != 1 or steps < 1:
        raise ValueError(f"h: got shape {tuple(problem.h.shape)}, expected (S,) with S >= 1")
    if not outputs or outputs[-1] != steps or outputs[0] < 1 or list(outputs) != sorted({*outputs}):
        raise ValueError(
            f"outputs: got {outputs}, expected ascending step counts ending in {steps}"
        )
    integer("checkpoint_every", problem.checkpoint_every, 1)
    penalties = problem.penalties
    if penalties != tuple(name for name in PENALTIES if name in penalties):
        raise ValueError(f"penalties: got {penalties}, expected some of {PENALTIES} in this order")
    one_of("trace", problem.trace, (None, *TRACES))
    one_of("log_det", problem.log_det, LOG_DETS)
    one_of("precision", problem.precision, PRECISIONS)
    needs_probes = problem.trace == "hutchinson" or "frobenius" in penalties
    if needs_probes and problem.probes is None:
        wants = "trace 'hutchinson'" if problem.trace == "hutchinson" else "penalty 'frobenius'"
        raise ValueError(f"probes: got None, expected (K, B, D) for the {wants}")
    if problem.probes is not None and not needs_probes:
        raise ValueError(
            "probes: given, but only trace 'hutchinson' and penalty 'frobenius' take them"
        )
    check_log_det(problem)


def check_log_det(problem: Problem) -> None:
    """Raise ValueError where the log-determinant does not go with the rest."""
    log_det = problem.log_det
    if problem.precision != "full" and problem.z.dtype != torch.float32:
        raise ValueError(
            f"precision: {problem.precision!r} needs a float32 z, got {problem.z.dtype}"
        )
    if log_det == "trace" or problem.trace is None:
        return
    if problem.trace != "exact":
        raise ValueError(f"log_det: {log_det!r} needs trace='exact', got {problem.trace!r}")
    if problem.penalties:
        raise ValueError(f"log_det: {log_det!r} does not go with regularization_fns in training")
    if log_det == "second_order" and len(problem.tableau.b) > 1:
        raise ValueError("log_det: 'second_order' is a correction of Euler's method")


def _check_tensors(problem: Problem) -> None:
    z, field, probes = problem.z, problem.field, problem.probes
    widths, rows = field.widths, problem.h.shape[0] * len(problem.tableau.b)
    dim, outputs = widths[0], sum(widths[1:])
    if not z.is_floating_point():
        raise ValueError(f"z: got dtype {z.dtype}, expected a float dtype")
    if z.ndim != 2 or z.shape[1] != dim:
        raise ValueError(f"z: got shape {tuple(z.shape)}, expected (B, {dim})")
    _check_like("h", problem.h, z)
    if isinstance(field, Tables):
        weights = sum(m_out * m_in for m_in, m_out in zip(widths[:-1], widths[1:], strict=True))
        _check_table("weight", field.weight, rows, weights, z)
        _check_table("bias", field.bias, rows, outputs, z)
        if field.gate is not None:
            _check_table("gate", field.gate, rows, outputs, z)
    else:
        features = field.structure.features
        _check_like("time", field.time, z)
        if field.time.shape not in ((rows, features), *([(rows,)] if features == 2 else [])):
            raise ValueError(
                f"time: got shape {tuple(field.time.shape)}, expected ({rows},) or ({rows}, "
                f"{features})"
            )
        for tensor in field.tensors:
            _check_like("tensors", tensor, z)
    for name in ("context", "gate_context"):
        given = getattr(field, name)
        if given and len(given) != len(widths) - 1:
            raise ValueError(f"{name}: got {len(given)}, expected {len(widths) - 1} or none")
        for u, m in zip(given, widths[1:], strict=False):
            if u is not None and u.shape != (z.shape[0], m):
                raise ValueError(
                    f"{name}: got shape {tuple(u.shape)}, expected ({z.shape[0]}, {m})"
                )
    if probes is not None:
        _check_like("probes", probes, z)
        if probes.ndim != 3 or probes.shape[1:] != z.shape:
            raise ValueError(
                f"probes: got shape {tuple(probes.shape)}, expected (K, {z.shape[0]}, {dim})"
            )
        if probes.requires_grad:
            raise ValueError("probes: got a tensor that requires grad, expected noise without grad")


def _check_table(name: str, table: Tensor, steps: int, size: int, z: Tensor) -> None:
    if table.ndim != 2 or table.shape[0] not in (1, steps) or table.shape[1] != size:
        raise ValueError(f"{name}: got shape {tuple(table.shape)}, expected (1 or {steps}, {size})")
    _check_like(name, table, z)


def _check_like(name: str, tensor: Tensor, z: Tensor) -> None:
    if tensor.dtype != z.dtype:
        raise ValueError(f"{name}: got dtype {tensor.dtype}, expected that of z, {z.dtype}")
    if tensor.device != z.device:
        raise ValueError(f"{name}: got device {tensor.device}, expected that of z, {z.device}")
