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


class Embedded(NamedTuple):
    """A method with an estimate of its own error, for steps of a size to be found.

    Args:
        tableau: All stages that an attempt takes.
        error: (R,), weights of the stages in the estimate.
        order: Of the method: the error of a step goes with its power + 1, the estimate's with it.
    """

    tableau: Tableau
    error: tuple[float, ...]
    order: int

    @property
    def last_is_first(self) -> bool:
        """Whether the last stage is the first one of the next step."""
        stages = len(self.error)
        return self.tableau.a[-stages:] == self.tableau.b

    @property
    def taken(self) -> Tableau:
        """The method as accepted steps take it: without a stage that is for the estimate only."""
        (c, a, b), stages = self.tableau, len(self.error)
        if not self.last_is_first:
            return self.tableau
        rows = [a[r * stages : r * stages + stages - 1] for r in range(stages - 1)]
        return Tableau(c[:-1], tuple(x for row in rows for x in row), b[:-1])


def _embedded(
    rows: Sequence[Sequence[float]], weights: Sequence[float], error: Sequence[float], order: int
) -> Embedded:
    return Embedded(_tableau(rows, weights), tuple(error), order)


# Tsitouras, Runge-Kutta pairs of order 5(4), Computers & Mathematics with Applications 62 (2011).
_TSITOURAS = [
    [0.161],
    [-0.008480655492356989, 0.335480655492357],
    [2.8971530571054935, -6.359448489975075, 4.3622954328695815],
    [5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525],
    [5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401,
     -0.028269050394068383],
    [0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
     2.324710524099774],
]  # fmt: skip
# Dormand and Prince, A family of embedded Runge-Kutta formulae, J. Comp. Appl. Math. 6 (1980).
_DORMAND_PRINCE = [
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
]

#: Embedded pairs by the names that torchdiffeq gives them, and Tsitouras'.
EMBEDDED: dict[str, Embedded] = {
    "dopri5": _embedded(
        _DORMAND_PRINCE,
        [*_DORMAND_PRINCE[-1], 0.0],
        [
            35 / 384 - 1951 / 21600,
            0.0,
            500 / 1113 - 22642 / 50085,
            125 / 192 - 451 / 720,
            -2187 / 6784 + 12231 / 42400,
            11 / 84 - 649 / 6300,
            -1 / 60,
        ],
        5,
    ),
    "tsit5": _embedded(
        _TSITOURAS,
        [*_TSITOURAS[-1], 0.0],
        [
            -0.00178001105222577714,
            -0.0008164344596567469,
            0.007880878010261995,
            -0.1447110071732629,
            0.5823571654525552,
            -0.45808210592918697,
            1 / 66,
        ],
        5,
    ),  # fmt: skip
    "bosh3": _embedded(
        [[1 / 2], [0.0, 3 / 4], [2 / 9, 1 / 3, 4 / 9]],
        [2 / 9, 1 / 3, 4 / 9, 0.0],
        [2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8],
        3,
    ),
    "fehlberg2": _embedded(
        [[1 / 2], [1 / 256, 255 / 256]],
        [1 / 512, 255 / 256, 1 / 512],
        [-1 / 512, 0.0, 1 / 512],
        2,
    ),
    "adaptive_heun": _embedded([[1.0]], [1 / 2, 1 / 2], [1 / 2, -1 / 2], 2),
}


def combine(z: Tensor, h: Tensor, weights: tuple[float, ...], velocities: list[Tensor]) -> Tensor:
    """``z + h sum_q weights_q k_q``."""
    for weight, velocity in zip(weights, velocities, strict=True):
        if weight:
            z = z + h * weight * velocity
    return z
