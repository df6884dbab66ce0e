r"""Explicit Runge-Kutta methods, which the engines take whole: values and gradients.

.. math:: k_r = f\Big(t + c_r h,\; z + h \sum_{q<r} a_{rq} k_q\Big), \qquad
          z \leftarrow z + h \sum_r b_r k_r, \qquad \ell \leftarrow \ell - h \sum_r b_r \tau_r

Names and coefficients are torchdiffeq's: a solver gives the same numbers here and there.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Tableau(NamedTuple):
    """A Butcher tableau of R stages.

    Args:
        c: (R,), times of the stages as shares of a step.
        a: (R * R,), row-major, zero on and above the diagonal.
        b: (R,), weights of the stages.
    """

    c: tuple[float, ...]
    a: tuple[float, ...]
    b: tuple[float, ...]


def _tableau(rows: Sequence[Sequence[float]], weights: Sequence[float]) -> Tableau:
    """From the rows of ``a`` below its diagonal; a stage's time is the sum of its row."""
    padded = [(*row, *(0.0,) * (len(weights) - len(row))) for row in ((), *rows)]
    return Tableau(
        tuple(sum(row) for row in padded), tuple(x for row in padded for x in row), tuple(weights)
    )


EULER = _tableau([], [1.0])

#: Fused methods by the names that torchdiffeq gives them.
TABLEAUS: dict[str, Tableau] = {
    "euler": EULER,
    "midpoint": _tableau([[1 / 2]], [0.0, 1.0]),
    "heun2": _tableau([[1.0]], [1 / 2, 1 / 2]),
    "heun3": _tableau([[1 / 3], [0.0, 2 / 3]], [1 / 4, 0.0, 3 / 4]),
    # Kutta's 3/8 rule, as in torchdiffeq.
    "rk4": _tableau([[1 / 3], [-1 / 3, 1.0], [1.0, -1.0, 1.0]], [1 / 8, 3 / 8, 3 / 8, 1 / 8]),
}


def combine(z: Tensor, h: Tensor, weights: tuple[float, ...], velocities: list[Tensor]) -> Tensor:
    """``z + h sum_q weights_q k_q``."""
    for weight, velocity in zip(weights, velocities, strict=True):
        if weight:
            z = z + h * weight * velocity
    return z
