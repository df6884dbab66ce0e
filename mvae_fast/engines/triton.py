"""The Triton engine: the ops of `mvae_fast.kernels`, on a GPU or in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mvae_fast.core.problem import Problem, Solution
from mvae_fast.engines.table_ops import TableOps

__all__ = ["INTERPRETED", "integrate", "why_missing"]

# Triton reads the variable when a kernel is defined, so it counts as it is at import.
#: Whether Triton runs its kernels on the CPU, operation by operation: to test them.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "True", "on")

_HAS_TRITON = importlib.util.find_spec("triton") is not None
_TABLE_OPS = TableOps("triton_integrate")

_NET = (
    "Tensor z, {states}Tensor h, Tensor weight, Tensor? gate, Tensor bias, Tensor? trace, "
    "Tensor? second, Tensor? probes, int[] widths, int nonlinearity, bool residual, float[] a, "
    "float[] b, int[] outputs, int checkpoint_every, int penalties, int operands, "
)
_LIBRARY = torch.library.Library("mvae_fast", "FRAGMENT")


def why_missing() -> str | None:
    """None when the kernels can run on this machine, else the reason and the remedy."""
    if not _HAS_TRITON:
        return "triton is not installed; remedy: `pip install triton` (Linux)"
    if not INTERPRETED and not torch.cuda.is_available():
        return (
            "torch sees no GPU; remedy: a GPU with a CUDA build of torch, or, to test on the CPU, "
            "TRITON_INTERPRET=1 in the environment before Python starts"
        )
    return None


def integrate(problem: Problem) -> Solution:
    """Take all steps in Triton kernels."""
    return _TABLE_OPS.integrate(problem)


# Triton is imported by the first solve: it takes a while, and CPU users need not have it.


def _forward(z: Tensor, h: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from mvae_fast.kernels.solve import forward

    *given, save = arguments
    return forward(z, h, *_net_and_plan(given), save)


def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    from mvae_fast.kernels.solve import backward

    *grads, z, states, h = arguments[:6]
    *given, table_grads = arguments[6:]
    return backward(tuple(grads), z, states, h, *_net_and_plan(given), table_grads)


def _net_and_plan(arguments: Sequence[Any]) -> tuple[Any, Any]:
    """The arguments that follow z, states and h in both schemas."""
    from mvae_fast.kernels.solve import Net, Plan

    *tables, widths, nonlinearity, residual, a, b, outputs, checkpoint, penalties, operands = (
        arguments
    )
    net = (*tables, tuple(widths), nonlinearity, residual)
    return Net(*net), Plan(tuple(a), tuple(b), tuple(outputs), checkpoint, penalties, operands)


def _register() -> None:
    name = "triton_integrate"
    grads = "Tensor grad_z_out, Tensor grad_logp_out, Tensor grad_penalty_out, "
    _LIBRARY.define(
        f"{name}({_NET.format(states='')}bool save) "
        "-> (Tensor z_out, Tensor logp_out, Tensor penalty_out, Tensor states)"
    )
    _LIBRARY.define(
        f"{name}_backward({grads}{_NET.format(states='Tensor states, ')}bool table_grads) "
        "-> (Tensor z, Tensor h, Tensor weight, Tensor gate, Tensor bias, Tensor trace, "
        "Tensor second)"
    )
    for key in ("CPU", "CUDA") if INTERPRETED else ("CUDA",):
        _LIBRARY.impl(name, _forward, key)
        _LIBRARY.impl(f"{name}_backward", _backward, key)
    _TABLE_OPS.register()


_register()
