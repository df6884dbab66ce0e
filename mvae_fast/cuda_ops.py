"""The CUDA engine: the kernels of the ops in `mvae_fast.ops` for tensors on a GPU."""

from __future__ import annotations

import torch

from mvae_fast import extension, ops

__all__ = ["integrate", "why_missing"]

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


#: Takes all steps of a `mvae_fast.problem.Problem` in CUDA: the ops go by where their tensors are.
integrate = ops.integrate
