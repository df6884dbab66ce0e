"""The extension: loads it, says what its kernels run on, and has its ops for tables.

`net_ops` has the ops that take a net's parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mvae_fast.engines import extension
from mvae_fast.engines.table_ops import TableOps

__all__ = [
    "capabilities",
    "capability",
    "integrate",
    "peak",
    "set_capability",
    "why_missing",
]

_PACKAGE = extension.PACKAGE


def _load() -> str | None:
    return extension.load(
        "_C", "_build_error.txt", "the C++ extension", "a C++17 compiler (g++)", _PACKAGE
    )


_LOAD_ERROR = _load()


def why_missing() -> str | None:
    """None when the extension is loaded, else the reason and the remedy."""
    return _LOAD_ERROR


def has(**functions: Callable[..., Any]) -> bool:
    """Whether the extension is loaded and has these ops; if not, it counts as missing from now on.

    Args:
        functions: By the name of an op, one whose parameters are named as the op's should be.
    """
    global _LOAD_ERROR
    _LOAD_ERROR = _LOAD_ERROR or extension.foreign(functions)
    return _LOAD_ERROR is None


def capabilities() -> tuple[str, ...]:
    """The instruction sets whose kernels this processor can run, best first; empty if missing."""
    if _LOAD_ERROR is not None:
        return ()
    return tuple(torch.ops.mvae_fast.cpu_capabilities.default().split())


def capability() -> str | None:
    """The instruction set whose kernels run: the best one, unless `set_capability` chose."""
    return _capability if _LOAD_ERROR is None else None


def set_capability(name: str) -> None:
    """Run the kernels of the instruction set ``name`` in the whole process, to test or compare.

    Raises:
        RuntimeError: If ``name`` is not one of `capabilities`.
    """
    global _capability
    torch.ops.mvae_fast.set_cpu_capability.default(name)
    _capability = name


def peak(repeats: int) -> int:
    """Run the float32 register tile of the products on every thread, on operands in cache.

    Args:
        repeats: How many times; one takes about a microsecond.

    Returns:
        The multiply-adds that were done; over the time it took, the machine's peak.
    """
    return torch.ops.mvae_fast.cpu_peak.default(repeats)


# Kept here as well: torch.compile cannot trace an op that returns a string.
_capability: str | None = None
if has(
    cpu_capability=capability,
    cpu_capabilities=capabilities,
    set_cpu_capability=set_capability,
    cpu_peak=peak,
):
    _capability = torch.ops.mvae_fast.cpu_capability.default()

_TABLE_OPS = TableOps("integrate")
if has(**_TABLE_OPS.fakes):
    _TABLE_OPS.register()

#: Takes all steps of a `mvae_fast.core.problem.Problem` in C++, on the CPU.
integrate = _TABLE_OPS.integrate
