"""The CUDA engine: the kernels of the ops in `mvae_fast.ops` for tensors on a GPU."""

from __future__ import annotations

import torch

from mvae_fast import extension, ops
from mvae_fast.problem import Problem

__all__ = ["integrate", "refuses", "why_missing"]

# As in csrc/cuda/plan.h.
_MAX_LAYERS = 24
_MAX_STAGES = 8

# The schemas of its ops are defined by the C++ library.
_LOAD_ERROR = ops.why_missing() or extension.load(
    "_C_cuda",
    "_cuda_build_error.txt",
    "the CUDA extension",
    "nvcc and a torch with CUDA",
)


def why_missing() -> str | None:
    """None when the kernels can run on this machine, else the reason and the remedy."""
    if _LOAD_ERROR is not None:
        return _LOAD_ERROR
    if not torch.cuda.is_available():
        return "torch sees no GPU; remedy: a GPU with a CUDA build of torch"
    return None


def refuses(problem: Problem) -> str | None:
    """None when the kernels take the problem, else what is too much of it."""
    layers, stages = len(problem.tables.widths) - 1, len(problem.method.tableau.b)
    if layers > _MAX_LAYERS:
        return f"takes at most {_MAX_LAYERS} layers, got {layers}"
    if stages > _MAX_STAGES:
        return f"takes methods of at most {_MAX_STAGES} stages, got {stages}"
    return None


#: Takes all steps of a `mvae_fast.problem.Problem` in CUDA: the ops go by where their tensors are.
integrate = ops.integrate
