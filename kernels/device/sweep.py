"""One evaluation of the velocity by a tile of rows: values, tangents and the trace.

Buffers of a tile, all in global memory, where the tile's own program alone touches them and L1 and
L2 keep them. Triton cannot index registers, so a width that is not known when it compiles has to
live there.

``x`` (streams, BM, x_ld), the operands of the products: in stream 0 the columns of y_0 .. y_{L-1},
then, for a table of the trace that multiplies phi'(a_1), phi'(a_1); in stream 1 + j those of
v_0 .. v_{L-1} for probe j. ``p`` (BM, f_ld) and ``t`` (K, BM, f_ld): W_l y_{l-1} and W_l v_{l-1}
before the gate, kept for the adjoint. ``k`` (BM, d_ld): the velocity.
"""

import triton
import triton.language as tl

from .nonlinearity import slopes, value
from .product import product
from .tiles import probe_columns, width

# What makes the trace.
NO_TRACE = tl.constexpr(0)
CONSTANT = tl.constexpr(1)  # no hidden layer: the table is the trace
VECTOR = tl.constexpr(2)  # one: c . phi'(a_1)
MATRIX = tl.constexpr(3)  # two: phi'(a_2) . M phi'(a_1)
PROBES = tl.constexpr(4)

# Bits of a method's penalties, as in csrc/problem.h.
MEAN_MAGNITUDE = tl.constexpr(1)
ROOT_MEAN_SQUARE = tl.constexpr(2)
KINETIC_ENERGY = tl.constexpr(4)
FROBENIUS = tl.constexpr(8)


@triton.jit
def evaluate(
    x, x_stream, x_ld, p, t, f_ld, k, point, d_ld,
    widths, L, weight, gate, bias, trace,
    probes, probe_stride, row_offset, row_inside, D, K,
    KIND: tl.constexpr, GATED: tl.constexpr, RESIDUAL: tl.constexpr, TRACE: tl.constexpr,
    TANGENTS: tl.constexpr, SLOPES: tl.constexpr, RECORD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Fill the buffers from y_0 and v_0: the trace (BM,) and ``sum_j |J eps_j|^2`` (BM,).

    SLOPES: phi'(a_1) is wanted in ``x``. RECORD: ``p`` and ``t`` are wanted; the trace by MATRIX
    then is the adjoint's to take, which needs its product anyway.
    """
    i = tl.arange(0, BM)[:, None]
    tau = tl.zeros((BM,), DT)
    frobenius = tl.zeros((BM,), DT)
    if TRACE == CONSTANT:
        tau += tl.load(trace)
    x_in = x
    w = weight
    f = 0
    for layer in range(L):
        n_in, n_out = width(widths, layer), width(widths, layer + 1)
        for n0 in range(0, n_out, BN):
            c = n0 + tl.arange(0, BN)[None, :]
            inside = c < n_out
            a = product(x_in, x_ld, w, n0, n_out, n_in, False, BM, BN, BK, DT, PRECISION)
            if RECORD:
                tl.store(p + i * f_ld + f + c, a, mask=inside)
            if GATED:
                g = tl.load(gate + f + c, mask=inside, other=0.0)
                a *= g
            a += tl.load(bias + f + c, mask=inside, other=0.0)
            slope = a
            if layer == L - 1:
                if RESIDUAL:
                    a -= tl.load(point + i * d_ld + c, mask=inside, other=0.0)
                tl.store(k + i * d_ld + c, a, mask=inside)
            else:
                tl.store(x_in + n_in + i * x_ld + c, value(a, KIND), mask=inside)
                if TANGENTS or TRACE >= VECTOR:
                    slope, _ = slopes(a, KIND)
                    if SLOPES:
                        if layer == 0:
                            phi = x + (x_ld - n_out)
                            tl.store(phi + i * x_ld + c, slope, mask=inside)
                    if TRACE == VECTOR:
                        tau += tl.sum(slope * tl.load(trace + c, mask=inside, other=0.0), axis=1)
                    if TRACE == MATRIX and not RECORD:
                        if layer == 1:
                            phi = x + (x_ld - n_in)
                            q = product(
                                phi, x_ld, trace, n0, n_out, n_in, False, BM, BN, BK, DT, PRECISION
                            )
                            tau += tl.sum(tl.where(inside, q * slope, 0.0), axis=1)
            if TANGENTS:
                real = row_inside[:, None] & (c < D)
                for j in range(K):
                    v = x_in + (1 + j) * x_stream
                    u = product(v, x_ld, w, n0, n_out, n_in, False, BM, BN, BK, DT, PRECISION)
                    if RECORD:
                        tl.store(t + (j * BM + i) * f_ld + f + c, u, mask=inside)
                    if GATED:
                        u *= g
                    if layer == L - 1:
                        eps = probe_columns(probes, probe_stride, j, row_offset, c, real)
                        if TRACE == PROBES:
                            tau += tl.sum(u * eps, axis=1)
                        if RESIDUAL:
                            u -= eps
                        frobenius += tl.sum(u * u, axis=1)
                    else:
                        tl.store(v + n_in + i * x_ld + c, slope * u, mask=inside)
        # The next layer reads what other threads of this program have written.
        tl.debug_barrier()
        x_in += n_in
        w += n_out * n_in
        f += n_out
    return tau, frobenius


@triton.jit
def quadratic_form(
    x, x_ld, second, m,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``Tr J^2 = phi'(a_1) . Q phi'(a_1)`` (BM,), from the phi'(a_1) that `evaluate` left."""
    i = tl.arange(0, BM)[:, None]
    phi = x + (x_ld - m)
    sums = tl.zeros((BM,), DT)
    for n0 in range(0, m, BN):
        c = n0 + tl.arange(0, BN)[None, :]
        q = product(phi, x_ld, second, n0, m, m, False, BM, BN, BK, DT, PRECISION)
        sums += tl.sum(q * tl.load(phi + i * x_ld + c, mask=c < m, other=0.0).to(DT), axis=1)
    return sums
