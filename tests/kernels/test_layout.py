"""Tables padded for the kernels, and back."""

import pytest
import torch

from mvae_fast.kernels import layout
from mvae_fast.kernels.layout import Layout


@pytest.mark.parametrize("widths", [(1, 1), (3, 17, 3), (16, 33, 48, 16), (129, 5, 129)])
def test_padding_is_undone(widths):
    net = Layout(widths)
    assert all(p % 16 == 0 and 0 <= p - m < 16 for m, p in zip(widths, net.padded, strict=True))
    weight = torch.randn(3, sum(m * n for m, n in net.matrices))
    padded = layout.resized(weight, net.matrices, net.padded_matrices)
    assert padded.shape == (3, sum(p * q for p, q in net.padded_matrices))
    assert torch.equal(layout.resized(padded, net.padded_matrices, net.matrices), weight)
    bias = torch.randn(3, sum(widths[1:]))
    padded = layout.resized(bias, net.vectors, net.padded_vectors)
    assert torch.equal(layout.resized(padded, net.padded_vectors, net.vectors), bias)


def test_padding_is_zero_and_in_place():
    net = Layout((3, 17, 3))
    weight = torch.randn(1, 2 * 51)
    padded = layout.resized(weight, net.matrices, net.padded_matrices)
    first = padded[0, : 32 * 16].view(32, 16)
    assert torch.equal(first[:17, :3], weight[0, :51].view(17, 3))
    assert first.count_nonzero() == 51 and padded.count_nonzero() == 102


def test_aligned_tables_are_not_copied():
    net = Layout((128, 256, 128))
    weight, bias = torch.randn(1, 2 * 128 * 256), torch.randn(1, 384)
    assert layout.resized(weight, net.matrices, net.padded_matrices) is weight
    assert layout.resized(bias, net.vectors, net.padded_vectors) is bias
