"""Gradients of weights and of matrices of the trace: products of the adjoint's two tapes.

First stage of two: each program sums one tile of the result over one share of the tape's rows. The
second stage adds up the shares in their order, so there are no atomics and the bits repeat.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["blocks_per_split", "slab_rows"])
def table_gradient_kernel(
    left, right, tile_table, shares, left_ld, right_ld,
    slabs, slab_rows, slab_stride, blocks_per_split, size, BI: tl.constexpr, BJ: tl.constexpr,
    BR: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``shares[split, group] = left^T right`` over a share of the rows of a group.

    A group is ``slabs`` pieces of ``slab_rows`` rows, the next one ``slab_stride`` rows on. A row
    of ``tile_table`` says of a tile: the columns of left and right where its table begins, its
    first row and column in it, their numbers, and where in ``size`` the table begins.
    """
    tile = tile_table + tl.program_id(0) * 7
    split, group = tl.program_id(1), tl.program_id(2)
    left_column = tl.multiple_of(tl.load(tile), 16)
    right_column = tl.multiple_of(tl.load(tile + 1), 16)
    i = tl.load(tile + 2) + tl.arange(0, BI)
    j = tl.load(tile + 3) + tl.arange(0, BJ)
    n_i = tl.multiple_of(tl.load(tile + 4), 16)
    n_j = tl.multiple_of(tl.load(tile + 5), 16)
    base = tl.load(tile + 6)

    blocks = tl.cdiv(slab_rows, BR)
    first = split * blocks_per_split
    last = tl.minimum(first + blocks_per_split, slabs * blocks)
    total = tl.zeros((BI, BJ), DT)
    for block in range(first, last):
        b = (block % blocks) * BR + tl.arange(0, BR)
        row = tl.cast(group * slabs + block // blocks, tl.int64) * slab_stride + b
        mask = (i[None, :] < n_i) & (b[:, None] < slab_rows)
        a = tl.load(left + row[:, None] * left_ld + left_column + i[None, :], mask=mask, other=0.0)
        mask = (b[:, None] < slab_rows) & (j[None, :] < n_j)
        y = tl.load(
            right + row[:, None] * right_ld + right_column + j[None, :], mask=mask, other=0.0
        )
        total = tl.dot(tl.trans(a), y, total, input_precision=PRECISION, out_dtype=DT)
    share = shares + (split * tl.num_programs(2) + group).to(tl.int64) * size + base
    tl.store(
        share + i[:, None] * n_j + j[None, :], total, mask=(i[:, None] < n_i) & (j[None, :] < n_j)
    )
