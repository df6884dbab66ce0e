r"""Continuous normalizing flows in one launch: the whole solve of a net's ODE and its log-density.

.. math:: \frac{dz}{dt} = f_t(z), \qquad
          \frac{d \log p}{dt} = -\operatorname{Tr} \frac{\partial f_t}{\partial z}

The Triton engine of mvae_fast as a kernel of the Hugging Face Hub.
"""

from typing import Any

import torch
from torch import Tensor

from .solve import Net, Plan, backward, forward
from .tableaus import TABLEAUS
from .tables import Tables
from .trace import MAX_CLOSED_FORM_LAYERS, exact_probes, trace_table

__all__ = ["NONLINEARITIES", "PRECISIONS", "SOLVERS", "Tables", "integrate"]

#: Between the layers of a net, in the order of the kernels' numbers.
NONLINEARITIES = ("softplus", "tanh", "relu", "elu", "silu", "square", "identity")
#: What the operands of products are rounded to, likewise.
PRECISIONS = ("full", "bf16", "fp16", "tf32")
SOLVERS = tuple(TABLEAUS)


def integrate(
    z: Tensor,
    h: Tensor,
    tables: Tables,
    *,
    exact: bool = True,
    probes: Tensor | None = None,
    solver: str = "euler",
    precision: str = "full",
) -> tuple[Tensor, Tensor]:
    r"""Take S steps of an explicit Runge-Kutta method of R stages, with all gradients.

    .. math:: z_{s+1} = z_s + h_s f_s(z_s), \qquad \ell_{s+1} = \ell_s - h_s \tau_s

    for Euler's method. Differentiable once, to ``z``, ``h`` and all tables: the gradient is that of
    these steps.

    Args:
        z: (B, D), on a GPU, float32 or float64: the start state.
        h: (S,), the step sizes; may be negative.
        tables: The net, the same for all evaluations or at each of the S R ones, in order; without
            context.
        exact: The exact trace: in closed form for nets of at most two hidden layers, else by D
            unit vectors. False without ``probes``: no trace.
        probes: (K, B, D), Hutchinson's, already divided by the root of K; ``exact`` must be False.
        solver: One of ``SOLVERS``.
        precision: One of ``PRECISIONS``, for float32.

    Returns:
        The end states (B, D), and the changes of the log-density (B,).

    Raises:
        ValueError: If an argument does not fit.

    Example::

        weight = torch.randn(1, 2 * 8 + 8 * 2, device="cuda", requires_grad=True)
        net = Tables(weight, None, torch.zeros(1, 8 + 2, device="cuda"), (2, 8, 2), "tanh")
        z, change = integrate(torch.randn(5, 2, device="cuda"), torch.full((4,), 0.25).cuda(), net)
    """
    _check(z, h, tables, exact, probes, solver, precision)
    trace = None
    if exact and len(tables.widths) - 1 <= MAX_CLOSED_FORM_LAYERS:
        trace = trace_table(tables)
    elif exact:
        probes = exact_probes(z)
    method = TABLEAUS[solver]
    plan = Plan(method.a, method.b, (h.shape[0],), 1, 0, PRECISIONS.index(precision))
    kind = (tuple(tables.widths), NONLINEARITIES.index(tables.nonlinearity), tables.residual)
    given = (tables.weight, tables.gate, tables.bias, trace)
    dense = [None if x is None else x.contiguous() for x in given]
    z_T, change = _Solve.apply(plan, kind, probes, z.contiguous(), h.contiguous(), *dense)
    if tables.residual and (trace is not None or probes is not None):
        change = change + z.shape[1] * h.sum()  # the -D of the trace of a - z
    return z_T, change


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: Plan, kind: Any, probes: Any, z: Tensor, h: Tensor, *given: Any
    ) -> tuple[Tensor, Tensor]:
        weight, gate, bias, trace = given
        net = Net(weight, gate, bias, trace, None, probes, *kind)
        z_out, change, _, states = forward(z, h, net, plan, any(ctx.needs_input_grad))
        ctx.plan, ctx.kind = plan, kind
        ctx.save_for_backward(probes, z, h, states, *given)
        return z_out[0], change[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, z_bar: Tensor, change_bar: Tensor) -> tuple[Tensor | None, ...]:
        probes, z, h, states, weight, gate, bias, trace = ctx.saved_tensors
        net = Net(weight, gate, bias, trace, None, probes, *ctx.kind)
        sent_back = (z_bar[None].contiguous(), change_bar[None].contiguous())
        bars = backward(
            (*sent_back, z.new_zeros(1, 0, z.shape[0])),
            z, states, h, net, ctx.plan, any(ctx.needs_input_grad[5:]),
        )  # fmt: skip
        wanted = zip(bars[:6], ctx.needs_input_grad[3:], strict=True)
        return None, None, None, *(bar if needed else None for bar, needed in wanted)


def _check(
    z: Tensor,
    h: Tensor,
    tables: Tables,
    exact: bool,
    probes: Tensor | None,
    solver: str,
    precision: str,
) -> None:
    for name, value, choices in (
        ("tables.nonlinearity", tables.nonlinearity, NONLINEARITIES),
        ("solver", solver, SOLVERS),
        ("precision", precision, PRECISIONS),
    ):
        if value not in choices:
            raise ValueError(f"{name}: got {value!r}, expected one of {choices}")
    if z.dim() != 2 or z.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"z: got {z.dtype} {tuple(z.shape)}, expected float32 or float64 (B, D)")
    if precision != "full" and z.dtype != torch.float32:
        raise ValueError(f"precision: got {precision!r}, expected 'full' for {z.dtype}")
    if h.dim() != 1 or h.shape[0] < 1:
        raise ValueError(f"h: got {tuple(h.shape)}, expected (S,) with S >= 1")
    widths = tuple(tables.widths)
    if len(widths) < 2 or widths[0] != z.shape[1] or widths[-1] != z.shape[1]:
        raise ValueError(f"tables.widths: got {widths}, expected (D, ..., D), D = {z.shape[1]}")
    if tables.context or tables.gate_context:
        raise ValueError("tables: got a context, expected none")
    if probes is not None and (exact or probes.dim() != 3 or probes.shape[1:] != z.shape):
        raise ValueError(
            f"probes: got {tuple(probes.shape)} and exact={exact}, expected (K, B, D) and "
            "exact=False"
        )
    evaluations = h.shape[0] * len(TABLEAUS[solver].b)
    features = sum(widths[1:])
    weights = sum(m * n for m, n in zip(widths[1:], widths[:-1], strict=True))
    columns = {"weight": weights, "gate": features, "bias": features}
    given = {"h": h, "probes": probes, **{f"tables.{x}": getattr(tables, x) for x in columns}}
    for name, value in given.items():
        if value is not None and (value.device, value.dtype) != (z.device, z.dtype):
            raise ValueError(
                f"{name}: got {value.dtype} on {value.device}, expected {z.dtype} on {z.device}"
            )
    for name, size in columns.items():
        value = given[f"tables.{name}"]
        if value is not None and tuple(value.shape) not in ((1, size), (evaluations, size)):
            raise ValueError(
                f"tables.{name}: got {tuple(value.shape)}, expected (1, {size}) or "
                f"({evaluations}, {size})"
            )
