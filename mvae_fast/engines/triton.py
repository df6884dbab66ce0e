"""The Triton engine: `mvae_fast.kernels`, on a GPU or in Triton's interpreter."""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mvae_fast.engines import ops
from mvae_fast.engines.cuda import lacks

refuses = lacks

# Triton reads the variable when a kernel is defined, so it counts as it is at import.
#: Whether Triton runs its kernels on the CPU, operation by operation: to test them.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "True", "on")

_HAS_TRITON = importlib.util.find_spec("triton") is not None


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


# Triton is imported by the first solve: it takes a while, and CPU users need not have it.


def _forward(z: Tensor, h: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    from mvae_fast.kernels.solve import forward

    *given, save = arguments
    *results, states = forward(z, h, *_net_and_plan(*given), save > 0)
    return *results, states.flatten()


def _backward(*arguments: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    from mvae_fast.kernels.solve import backward

    *grads, saved, z, h = arguments[:6]
    *given, tensor_grads = arguments[6:]
    net, plan = _net_and_plan(*given)
    if grads[2] is None:
        count, batch = grads[1].shape
        grads[2] = z.new_zeros((count, 0, batch))
    states = saved.view(-1, *z.shape) if z.numel() else saved.view(0, *z.shape)
    bars = backward(tuple(grads), z, states, h, net, plan, tensor_grads)
    if not tensor_grads:
        return bars[0], bars[1], []
    there = [bar for bar, index in zip(bars[2:], given[3][1:6], strict=True) if index >= 0]
    return bars[0], bars[1], there


def _net_and_plan(
    probes: Tensor | None,
    tensors: Sequence[Tensor],
    widths: Sequence[int],
    layout: Sequence[int],
    nonlinearity: int,
    residual: bool,
    exact: bool,
    *method: Any,
) -> tuple[Any, Any]:
    """The arguments that follow z and h in both schemas."""
    from mvae_fast.kernels.solve import Net, Plan

    tables: Any = [None if index < 0 else tensors[index] for index in layout[1:6]]
    plan: Any = (tuple(x) if isinstance(x, list | tuple) else x for x in method)
    net: Any = (*tables, probes, tuple(widths), nonlinearity, residual)
    return Net(*net), Plan(*plan)


ops.define_triton(_forward, _backward, ("CPU", "CUDA") if INTERPRETED else ("CUDA",))
