"""A solve written from the formulas alone: of a velocity's docstring, with autograd's Jacobian.

Nothing here is taken from the package but the names of what a problem holds: it is what
tests/engines/test_reference.py compares the reference with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mvae_fast.core.field import Column, Field
from mvae_fast.core.problem import Problem, Solution
from mvae_fast.core.tables import Tables

__all__ = ["jacobian", "solve", "velocity"]

PHI = {
    "softplus": lambda a: torch.logaddexp(a, torch.zeros_like(a)),
    "tanh": torch.tanh,
    "relu": torch.relu,
    "elu": F.elu,
    "silu": lambda a: a * torch.sigmoid(a),
    "square": lambda a: a * a,
    "identity": lambda a: a,
    "gelu": lambda a: a / 2 * (1 + torch.erf(a / 2**0.5)),
    "gelu_tanh": lambda a: a / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (a + 0.044715 * a**3))),
    "selu": F.selu,
    "leaky_relu": lambda a: torch.where(a > 0, a, a / 100),
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
}


def velocity(field: Field | Tables, e: int, z: Tensor) -> Tensor:
    """f at evaluation ``e``."""
    count = len(field.widths) - 1
    y = z
    for layer in range(1, count + 1):
        a = (_layer_of_tables if isinstance(field, Tables) else _layer)(field, e, layer, y)
        y = PHI[field.nonlinearity](a) if layer < count else a
    return y - z if field.residual else y


def _rows(given: tuple[Tensor | None, ...], number: int) -> Tensor | float:
    u = given[number - 1] if given else None
    return 0.0 if u is None else u


def _layer(field: Field, e: int, number: int, y: Tensor) -> Tensor:
    """sigma(G psi + gamma) (W y + B psi + u) + H psi, of which neither G nor gamma means 1."""
    layer = field.structure.layers[number - 1]
    m, before = field.widths[number], field.widths[number - 1]
    at = field.time[e]
    psi = torch.stack((torch.ones_like(at), at)) if field.time.ndim == 1 else at

    def numbers(column: Column, width: int) -> Tensor:
        index = column.offset + column.stride * torch.arange(m).unsqueeze(1) + torch.arange(width)
        return field.tensors[column.tensor].flatten()[index]

    def total(columns: tuple[Column | None, ...]) -> Tensor:
        result = y.new_zeros(m)
        for k, column in enumerate(columns):
            if column is not None:
                result = result + numbers(column, 1)[:, 0] * psi[k]
        return result

    inner = y @ numbers(layer.weight, before).T + total(layer.bias) + _rows(field.context, number)
    gamma = field.gate_context[number - 1] if field.gate_context else None
    if gamma is not None or any(column is not None for column in layer.gate):
        inner = inner * torch.sigmoid(total(layer.gate) + (0.0 if gamma is None else gamma))
    return inner + total(layer.late_bias)


def _layer_of_tables(field: Tables, e: int, number: int, y: Tensor) -> Tensor:
    """G (W y + u) + C."""
    widths = field.widths

    def piece(table: Tensor, sizes: list[int]) -> Tensor:
        row = table[min(e, table.shape[0] - 1)]
        return row[sum(sizes[: number - 1]) :][: sizes[number - 1]]

    sizes = list(widths[1:])
    areas = [a * b for a, b in zip(widths[1:], widths[:-1], strict=True)]
    weight = piece(field.weight, areas).reshape(widths[number], widths[number - 1])
    inner = y @ weight.T + _rows(field.context, number)
    if field.gate is not None:
        inner = inner * piece(field.gate, sizes)
    return inner + piece(field.bias, sizes)


def jacobian(field: Field | Tables, e: int, z: Tensor) -> tuple[Tensor, Tensor]:
    """f and df_i / dz_j, (B, D, D): one gradient for each i."""
    if not z.requires_grad:
        z = z.detach().requires_grad_()
    f = velocity(field, e, z)
    rows = [
        torch.autograd.grad(f[:, i].sum(), z, create_graph=True, materialize_grads=True)[0]
        for i in range(z.shape[1])
    ]
    return f, torch.stack(rows, 1)


def solve(problem: Problem) -> Solution:
    """All steps; without the exact log-determinant."""
    stages = len(problem.tableau.b)
    z, logp = problem.z, problem.z.new_zeros(problem.z.shape[0])
    totals = [torch.zeros_like(logp) for _ in problem.penalties]
    path = []
    for s in range(problem.h.shape[0]):
        h = problem.h[s]
        slopes: list[Tensor] = []
        change = torch.zeros_like(logp)
        for r in range(stages):
            stage = z
            for q in range(r):
                stage = stage + h * problem.tableau.a[r * stages + q] * slopes[q]
            f, full = jacobian(problem.field, s * stages + r, stage)
            slopes.append(f)
            share = h * problem.tableau.b[r]
            change = change - share * _trace(problem, full, h)
            for i, name in enumerate(problem.penalties):
                totals[i] = totals[i] + share * _penalty(name, f, full, problem.probes)
        for r in range(stages):
            z = z + h * problem.tableau.b[r] * slopes[r]
        logp = logp + change
        if s + 1 in problem.outputs:
            none = z.new_zeros(0, z.shape[0])
            path.append((z, logp, torch.stack(totals) if totals else none))
    return Solution(*(torch.stack(values) for values in zip(*path, strict=True)))


def _trace(problem: Problem, full: Tensor, h: Tensor) -> Tensor:
    if problem.trace is None:
        return full.new_zeros(full.shape[0])
    if problem.trace == "hutchinson":
        eps, dim = problem.probes, full.shape[1]
        if not problem.field.residual:
            return torch.einsum("kbi,bij,kbj->b", eps, full, eps)
        # Of f - z the trace of -z is known, and not estimated.
        net = full + torch.eye(dim, dtype=full.dtype)
        return torch.einsum("kbi,bij,kbj->b", eps, net, eps) - dim
    trace = torch.einsum("bii->b", full)
    if problem.log_det == "second_order":
        trace = trace - h / 2 * torch.einsum("bij,bji->b", full, full)
    return trace


def _penalty(name: str, f: Tensor, full: Tensor, probes: Tensor | None) -> Tensor:
    dim = f.shape[1]
    if name == "frobenius":
        return torch.einsum("bij,kbj->kbi", full, probes).square().sum((0, 2))
    if name == "root_mean_square":
        return (f.square().sum(1) / dim).sqrt()
    return {"mean_magnitude": f.abs().sum(1) / dim, "kinetic_energy": f.square().sum(1)}[name]
