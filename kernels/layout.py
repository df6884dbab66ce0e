"""Tables as the kernels read them: every width padded with zeros to a multiple of 16.

Padding keeps the results: a padded unit feeds weights of zero. It makes every load an aligned
one, and costs nothing where all widths are multiples of 16, as tuned nets have them.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

_ALIGN = 16


class Layout:
    """Widths m_0 .. m_L of a net, as they are and padded.

    Args:
        widths: m_0 .. m_L.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        self.widths = widths
        self.padded = tuple(-(-m // _ALIGN) * _ALIGN for m in widths)

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """(m_l, m_{l-1}) of the weights."""
        return list(zip(self.widths[1:], self.widths[:-1], strict=True))

    @property
    def padded_matrices(self) -> list[tuple[int, int]]:
        """The same, padded."""
        return list(zip(self.padded[1:], self.padded[:-1], strict=True))

    @property
    def vectors(self) -> list[tuple[int, int]]:
        """(1, m_l) of gates, biases and the like."""
        return [(1, m) for m in self.widths[1:]]

    @property
    def padded_vectors(self) -> list[tuple[int, int]]:
        """The same, padded."""
        return [(1, m) for m in self.padded[1:]]


def resized(table: Tensor, shapes: list[tuple[int, int]], others: list[tuple[int, int]]) -> Tensor:
    """Row-major matrices of these shapes, one after the other, as those of others: with zeros below
    and to the right, or cut there."""
    if shapes == others:
        return table
    pieces = table.split([m * n for m, n in shapes], dim=1)
    return torch.cat(
        [
            F.pad(piece.reshape(-1, m, n), (0, q - n, 0, p - m)).flatten(1)
            for piece, (m, n), (p, q) in zip(pieces, shapes, others, strict=True)
        ],
        dim=1,
    )


def offsets(sizes: list[int]) -> list[int]:
    """Where each of several pieces, one after the other, begins."""
    return [0, *itertools.accumulate(sizes)][:-1]
