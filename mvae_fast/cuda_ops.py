"""The CUDA engine: the kernels of the ops in `mvae_fast.ops` for tensors on a GPU."""

from __future__ import annotations

import functools

import torch

from mvae_fast import extension, ops
from mvae_fast.problem import Problem
from mvae_fast.table_ops import refuses_nonlinearity

__all__ = ["excludes", "integrate", "refuses", "why_missing"]

# As in csrc/cuda/plan.h.
_MAX_LAYERS = 24
_MAX_STAGES = 8
# What the instructions that the kernels are made of need.
_OLDEST = (8, 0)

_LIBRARY = torch.library.Library("mvae_fast", "FRAGMENT")
_LIBRARY.define("cuda_device_error(int device) -> str")
# The schemas of its other ops are defined by the C++ library.
_LOAD_ERROR = ops.why_missing() or extension.load(
    "_C_cuda",
    "_cuda_build_error.txt",
    "the CUDA extension",
    "nvcc and a torch with CUDA",
)


def why_missing() -> str | None:
    """None when the kernels can run on this machine, else the reason and the remedy."""
    reason = _LOAD_ERROR or ops.why_missing()
    if reason is not None:
        return reason
    if not torch.cuda.is_available():
        return "torch sees no GPU; remedy: a GPU with a CUDA build of torch"
    return None


def excludes(device: torch.device) -> str | None:
    """None when the library has code for a GPU, else the reason and the remedy.

    Args:
        device: The GPU; without an index, the current one.
    """
    return _why_excluded(device.index)


# torch.compile traces the choice of an engine, but no op that returns a string.
@torch.compiler.assume_constant_result
def _why_excluded(index: int | None) -> str | None:
    return _asked_once(torch.cuda.current_device() if index is None else index)


@functools.cache
def _asked_once(index: int) -> str | None:
    error = _device_error(index)
    if not error:
        return None
    capability = torch.cuda.get_device_capability(index)
    number = ".".join(map(str, capability))
    if capability < _OLDEST:
        remedy = "engine='auto', since its kernels need 8.0"
    else:
        remedy = f"run `TORCH_CUDA_ARCH_LIST={number} pip install .` again"
    name = torch.cuda.get_device_name(index)
    return f"on {name}, of compute capability {number}, CUDA says: {error}; remedy: {remedy}"


def _device_error(index: int) -> str:
    return torch.ops.mvae_fast.cuda_device_error.default(index)


def refuses(problem: Problem) -> str | None:
    """None when the kernels take the problem, else what is too much of it."""
    layers, stages = len(problem.tables.widths) - 1, len(problem.method.tableau.b)
    if layers > _MAX_LAYERS:
        return f"takes at most {_MAX_LAYERS} layers, got {layers}"
    if stages > _MAX_STAGES:
        return f"takes methods of at most {_MAX_STAGES} stages, got {stages}"
    return refuses_nonlinearity(problem)


#: Takes all steps of a `mvae_fast.problem.Problem` in CUDA: the ops go by where their tensors are.
integrate = ops.integrate
