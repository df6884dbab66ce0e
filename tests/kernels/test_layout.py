"""Tables padded for the kernels, and back."""

import pytest
import torch

from mvae_fast.kernels.layout import cut, pad, padded


def shapes_of(widths):
    """Of the weights, and of the biases, of a net."""
    return list(zip(widths[1:], widths[:-1], strict=True)), [(m,) for m in widths[1:]]


@pytest.mark.parametrize("widths", [(1, 1), (3, 17, 3), (16, 33, 48, 16), (129, 5, 129)])
def test_padding_is_undone(widths):
    wide = padded(widths)
    assert all(p % 16 == 0 and 0 <= p - m < 16 for m, p in zip(widths, wide, strict=True))
    matrices, vectors = shapes_of(widths)
    weight = torch.randn(3, sum(m * n for m, n in matrices))
    assert pad(weight, matrices).shape == (3, sum(p * q for p, q in shapes_of(wide)[0]))
    assert torch.equal(cut(pad(weight, matrices), matrices), weight)
    bias = torch.randn(3, sum(widths[1:]))
    assert pad(bias, vectors).shape == (3, sum(wide[1:]))
    assert torch.equal(cut(pad(bias, vectors), vectors), bias)


def test_padding_is_zero_and_in_place():
    weight = torch.randn(1, 2 * 51)
    table = pad(weight, shapes_of((3, 17, 3))[0])
    first = table[0, : 32 * 16].view(32, 16)
    assert torch.equal(first[:17, :3], weight[0, :51].view(17, 3))
    assert first.count_nonzero() == 51 and table.count_nonzero() == 102


def test_aligned_tables_are_not_copied():
    matrices, vectors = shapes_of((128, 256, 128))
    weight, bias = torch.randn(1, 2 * 128 * 256), torch.randn(1, 384)
    assert pad(weight, matrices) is weight
    assert pad(bias, vectors) is bias
