"""What an engine is asked and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from mvae_fast.core.tableaus import EULER, Tableau
from mvae_fast.core.tables import Tables

__all__ = ["PENALTIES", "PRECISIONS", "Method", "Problem", "Solution"]

#: Of the operands of products; sums, state and log-density keep the dtype of the state. In this
#: order they are the first values of the compiled engines' argument.
PRECISIONS: tuple[str, ...] = ("full", "bf16", "fp16")

#: Integrals along the path that engines take in the same sweep, with ``J`` the Jacobian of the
#: velocity ``f``; in this order they are the bits of the C++ engine's flag.
PENALTIES: tuple[str, ...] = (
    "mean_magnitude",  # sum_i |f_i| / D
    "root_mean_square",  # |f| / sqrt(D)
    "kinetic_energy",  # |f|^2
    "frobenius",  # sum_k |J eps_k|^2
)


@dataclass(frozen=True)
class Method:
    """How a net is integrated.

    Args:
        tableau: The Runge-Kutta method.
        outputs: Ascending step counts in 1..S, ending in S, after which to report.
        checkpoint_every: k: the state of every k-th step is saved for the backward.
        penalties: Some of `PENALTIES`, in their order.
        precision: One of `PRECISIONS`: what the operands of the products are rounded to.
    """

    outputs: tuple[int, ...]
    tableau: Tableau = EULER
    checkpoint_every: int = 1
    penalties: tuple[str, ...] = ()
    precision: str = "full"


@dataclass(frozen=True)
class Problem:
    """A net by its tables, and where to start; shapes as in `mvae_fast.integrate.integrate`.

    Args:
        z: (B, D).
        h: (S,).
        tables: The net at the times of its evaluations.
        method: How to integrate it.
        trace: The table of the exact trace, or None.
        probes: (K, B, D), or None: they make the trace where ``trace`` is None.
        second: The table of ``Tr J^2``, or None.
    """

    z: Tensor
    h: Tensor
    tables: Tables
    method: Method
    trace: Tensor | None = None
    probes: Tensor | None = None
    second: Tensor | None = None


class Solution(NamedTuple):
    """States (n, B, D), log-density changes (n, B), penalties (n, E, B) after ``outputs``."""

    z: Tensor
    logp: Tensor
    penalties: Tensor
