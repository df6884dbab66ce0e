"""Tables as the kernels read them: every width padded with zeros to a multiple of 16.

Padding keeps the results: a padded unit feeds weights of zero. It makes every load an aligned
one, and costs nothing where all widths are multiples of 16, as tuned nets have them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Layout", "offsets", "pad_matrices", "pad_vectors", "unpad_matrices", "unpad_vectors"]

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


def _pieces(table: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    start = 0
    for size in sizes:
        yield table[:, start : start + size]
        start += size


def pad_vectors(table: Tensor, sizes: tuple[int, ...], padded: tuple[int, ...]) -> Tensor:
    """(rows, sum of sizes) -> (rows, sum of padded)."""
    if sizes == padded:
        return table
    pieces = zip(_pieces(table, list(sizes)), sizes, padded, strict=True)
    return torch.cat([F.pad(piece, (0, p - m)) for piece, m, p in pieces], dim=1)


def unpad_vectors(table: Tensor, sizes: tuple[int, ...], padded: tuple[int, ...]) -> Tensor:
    """What `pad_vectors` padded."""
    if sizes == padded:
        return table
    pieces = zip(_pieces(table, list(padded)), sizes, strict=True)
    return torch.cat([piece[:, :m] for piece, m in pieces], dim=1)


def pad_matrices(
    table: Tensor, shapes: list[tuple[int, int]], padded: list[tuple[int, int]]
) -> Tensor:
    """Row-major matrices of these shapes, one after the other, padded to others."""
    if shapes == padded:
        return table
    pieces = _pieces(table, [m * n for m, n in shapes])
    return torch.cat(
        [
            F.pad(piece.reshape(-1, m, n), (0, q - n, 0, p - m)).flatten(1)
            for piece, (m, n), (p, q) in zip(pieces, shapes, padded, strict=True)
        ],
        dim=1,
    )


def unpad_matrices(
    table: Tensor, shapes: list[tuple[int, int]], padded: list[tuple[int, int]]
) -> Tensor:
    """What `pad_matrices` padded."""
    if shapes == padded:
        return table
    pieces = _pieces(table, [p * q for p, q in padded])
    return torch.cat(
        [
            piece.reshape(-1, p, q)[:, :m, :n].flatten(1)
            for piece, (m, n), (p, q) in zip(pieces, shapes, padded, strict=True)
        ],
        dim=1,
    )


def offsets(sizes: list[int]) -> list[int]:
    """Where each of several pieces, one after the other, begins."""
    return [0, *itertools.accumulate(sizes)][:-1]
