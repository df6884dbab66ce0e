"""What a program does to its tile of rows, element by element: a (BM, d_ld) buffer of its own.

A tile is read and written by all threads of a program; who calls these puts the barriers.
"""

import triton
import triton.language as tl


@triton.jit
def width(widths, layer):
    """m_layer, padded by the host to a multiple of 16, which the compiler is told here."""
    return tl.multiple_of(tl.load(widths + layer), 16)


@triton.jit
def load_rows(
    source, row, row_inside, D, d_ld, target,
    BM: tl.constexpr, BN: tl.constexpr, ADD: tl.constexpr = False,
):  # fmt: skip
    """Copy rows of a (B, D) array into a tile (BM, d_ld), with zeros where there is no more; with
    ADD, add them to it."""
    i = tl.arange(0, BM)[:, None]
    for n0 in range(0, d_ld, BN):
        c = n0 + tl.arange(0, BN)[None, :]
        real = row_inside[:, None] & (c < D)
        values = tl.load(source + row[:, None] * D + c, mask=real, other=0.0)
        if ADD:
            values += tl.load(target + i * d_ld + c, mask=c < d_ld, other=0.0)
        tl.store(target + i * d_ld + c, values, mask=c < d_ld)


@triton.jit
def store_rows(source, d_ld, target, row, row_inside, D, BM: tl.constexpr, BN: tl.constexpr):
    """Copy a tile (BM, d_ld) into rows of a (B, D) array."""
    i = tl.arange(0, BM)[:, None]
    for n0 in range(0, d_ld, BN):
        c = n0 + tl.arange(0, BN)[None, :]
        values = tl.load(source + i * d_ld + c, mask=c < d_ld, other=0.0)
        real = row_inside[:, None] & (c < D)
        tl.store(target + row[:, None] * D + c, values, mask=real)


@triton.jit
def probe_columns(probes, probe_stride, j, row_offset, c, real):
    """Columns c of eps_j (BM, BN), with zeros where they are not ``real``."""
    eps = probes + tl.cast(j, tl.int64) * probe_stride + row_offset[:, None] + c
    return tl.load(eps, mask=real, other=0.0)


@triton.jit
def load_probes(
    x, x_stream, x_ld, probes,
    probe_stride, row_offset, row_inside,
    D, d_ld, K, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Put eps_j into v_0 of stream 1 + j."""
    i = tl.arange(0, BM)[:, None]
    for j in range(K):
        for n0 in range(0, d_ld, BN):
            c = n0 + tl.arange(0, BN)[None, :]
            real = row_inside[:, None] & (c < D)
            eps = probe_columns(probes, probe_stride, j, row_offset, c, real)
            tl.store(x + (1 + j) * x_stream + i * x_ld + c, eps, mask=c < d_ld)


@triton.jit
def combine(
    z, velocities, weights, count, h, d_ld, tile, out, out_ld, BM: tl.constexpr, BN: tl.constexpr
):
    """``out = z + h sum_q weights_q k_q`` of the first ``count`` velocities, for a tile."""
    i = tl.arange(0, BM)[:, None]
    for n0 in range(0, d_ld, BN):
        c = n0 + tl.arange(0, BN)[None, :]
        inside = c < d_ld
        sums = tl.load(z + i * d_ld + c, mask=inside, other=0.0)
        for q in range(count):
            velocity = tl.load(velocities + q * tile + i * d_ld + c, mask=inside, other=0.0)
            sums += h * tl.load(weights + q) * velocity
        tl.store(out + i * out_ld + c, sums, mask=inside)


@triton.jit
def inner(
    bar, velocities, weights, count, d_ld, tile,
    BM: tl.constexpr, BN: tl.constexpr, DT: tl.constexpr,
):  # fmt: skip
    """``bar . sum_q weights_q k_q`` (BM,) of the first ``count`` velocities."""
    i = tl.arange(0, BM)[:, None]
    sums = tl.zeros((BM,), DT)
    for n0 in range(0, d_ld, BN):
        c = n0 + tl.arange(0, BN)[None, :]
        inside = c < d_ld
        left = tl.load(bar + i * d_ld + c, mask=inside, other=0.0)
        for q in range(count):
            velocity = tl.load(velocities + q * tile + i * d_ld + c, mask=inside, other=0.0)
            sums += tl.load(weights + q) * tl.sum(left * velocity, axis=1)
    return sums


@triton.jit
def accumulate(z_bar, stages, R, d_ld, tile, BM: tl.constexpr, BN: tl.constexpr):
    """``z_bar += sum_r xbar_r``."""
    i = tl.arange(0, BM)[:, None]
    for n0 in range(0, d_ld, BN):
        c = n0 + tl.arange(0, BN)[None, :]
        inside = c < d_ld
        sums = tl.load(z_bar + i * d_ld + c, mask=inside, other=0.0)
        for r in range(R):
            sums += tl.load(stages + r * tile + i * d_ld + c, mask=inside, other=0.0)
        tl.store(z_bar + i * d_ld + c, sums, mask=inside)


@triton.jit
def velocity_sums(k, d_ld, BM: tl.constexpr, BN: tl.constexpr, DT: tl.constexpr):
    """``sum_i |f_i|`` and ``sum_i f_i^2`` (BM,) each."""
    i = tl.arange(0, BM)[:, None]
    magnitude = tl.zeros((BM,), DT)
    square = tl.zeros((BM,), DT)
    for n0 in range(0, d_ld, BN):
        c = n0 + tl.arange(0, BN)[None, :]
        f = tl.load(k + i * d_ld + c, mask=c < d_ld, other=0.0)
        magnitude += tl.sum(tl.abs(f), axis=1)
        square += tl.sum(f * f, axis=1)
    return magnitude, square
