"""Tables as the kernels read them: every width padded with zeros to a multiple of 16.

Padding keeps the results: a padded unit feeds weights of zero. It makes every load an aligned
one, and costs nothing where all widths are multiples of 16, as tuned nets have them.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

_ALIGN = 16

# Row-major arrays, one after the other.
Shapes = list[tuple[int, ...]]


def padded(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Widths, or the axes of an array, as the kernels have them."""
    return tuple(-(-m // _ALIGN) * _ALIGN for m in sizes)


def pad(table: Tensor, shapes: Shapes) -> Tensor:
    """The arrays in each row of a table, with zeros at the end of every axis."""
    return _resized(table, shapes, [padded(shape) for shape in shapes])


def cut(table: Tensor, shapes: Shapes) -> Tensor:
    """What `pad` made a table of."""
    return _resized(table, [padded(shape) for shape in shapes], shapes)


def _resized(table: Tensor, shapes: Shapes, others: Shapes) -> Tensor:
    if shapes == others:
        return table
    resized = []
    pieces = table.split([math.prod(shape) for shape in shapes], dim=1)
    for piece, shape, other in zip(pieces, shapes, others, strict=True):
        axes = zip(reversed(shape), reversed(other), strict=True)
        margins = [margin for size, wanted in axes for margin in (0, wanted - size)]
        resized.append(F.pad(piece.reshape(-1, *shape), margins).flatten(1))
    return torch.cat(resized, dim=1)


def offsets(sizes: list[int]) -> list[int]:
    """Where each of several pieces, one after the other, begins."""
    return [0, *itertools.accumulate(sizes)][:-1]
