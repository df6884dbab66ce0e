"""The CUDA engine: the kernels of ``mvae_fast::solve`` for tensors on a GPU."""

import functools

import torch

from mvae_fast.checks import constant_when_traced
from mvae_fast.core.problem import Problem
from mvae_fast.engines import cpp, ops
from mvae_fast.engines.enums import FIRST_NONLINEARITIES

# As in csrc/cuda/plan.h.
_MAX_LAYERS = 24
_MAX_STAGES = 8
# What the instructions that the kernels are made of need.
_OLDEST = (8, 0)

_LOAD_ERROR = cpp.why_missing() or ops.load(
    "_C_cuda", "_cuda_build_error.txt", "the CUDA extension", "nvcc and a torch with CUDA"
)


def why_missing() -> str | None:
    """None when the kernels can run on this machine, else the reason and the remedy."""
    if _LOAD_ERROR is not None:
        return _LOAD_ERROR
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
@constant_when_traced
def _why_excluded(index: int | None) -> str | None:
    return _asked_once(torch.cuda.current_device() if index is None else index)


@functools.cache
def _asked_once(index: int) -> str | None:
    error = ops.cuda_device_error(index)
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


def lacks(problem: Problem) -> str | None:
    """None when the engines for GPUs take a problem, else what of it they have not."""
    field = problem.field
    if field.nonlinearity not in FIRST_NONLINEARITIES:
        return f"has no nonlinearity {field.nonlinearity!r}"
    if field.context or field.gate_context:
        return "has no context"
    return None


def refuses(problem: Problem) -> str | None:
    """As `lacks`, and what is too much for the kernels."""
    layers, stages = len(problem.field.widths) - 1, len(problem.tableau.b)
    if layers > _MAX_LAYERS:
        return f"takes at most {_MAX_LAYERS} layers, got {layers}"
    if stages > _MAX_STAGES:
        return f"takes methods of at most {_MAX_STAGES} stages, got {stages}"
    return lacks(problem)
