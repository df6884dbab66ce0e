"""The adjoint of one evaluation of the velocity by a tile of rows: of its output, then of its net.

``delta`` is the tile's part of the tape of `mvae_fast.kernels.adjoint`; all other buffers are those
of `mvae_fast.kernels.device.sweep`.
"""

import triton
import triton.language as tl

from .nonlinearity import slopes
from .product import product
from .sweep import FROBENIUS, MATRIX, MEAN_MAGNITUDE, PROBES, VECTOR
from .tiles import probe_columns, width


@triton.jit
def adjoint_of_velocity(
    z_bar, k, stages, r, R, a, h_s, share, tile, d_ld,
    delta, delta_stream, delta_ld, p, t, f_ld, gate, sums,
    probes, probe_stride, row_offset, row_inside,
    D, K, tau_bar, magnitude_bar, root_bar, energy_bar, frobenius_bar,
    GATED: tl.constexpr, RESIDUAL: tl.constexpr, TRACE: tl.constexpr, TANGENTS: tl.constexpr,
    PENALTIES: tl.constexpr, TABLES: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, DT: tl.constexpr,
):  # fmt: skip
    """The last layer's deltas, from the adjoints of z, of later stages (``stages``, R tiles) and
    of trace and penalties; with RESIDUAL it starts the adjoint of stage r."""
    i = tl.arange(0, BM)[:, None]
    f = f_ld - d_ld
    for n0 in range(0, d_ld, BN):
        c = n0 + tl.arange(0, BN)[None, :]
        inside = c < d_ld
        k_bar = share * tl.load(z_bar + i * d_ld + c, mask=inside, other=0.0)
        for q in range(r + 1, R):
            stage = tl.load(stages + q * tile + i * d_ld + c, mask=inside, other=0.0)
            k_bar += h_s * tl.load(a + q * R + r) * stage
        if PENALTIES & 7:
            velocity = tl.load(k + i * d_ld + c, mask=inside, other=0.0)
            if MEAN_MAGNITUDE & PENALTIES:
                sign = tl.where(velocity > 0, 1.0, tl.where(velocity < 0, -1.0, 0.0))
                k_bar += magnitude_bar[:, None] * sign
            if PENALTIES & 6:
                k_bar += (root_bar + energy_bar)[:, None] * velocity
        if RESIDUAL:
            tl.store(stages + r * tile + i * d_ld + c, -k_bar, mask=inside)
        if TABLES:
            tl.store(sums + f + c, tl.sum(k_bar, axis=0)[None, :], mask=inside)
        gate_bar = tl.zeros((1, BN), DT)
        if GATED:
            g = tl.load(gate + f + c, mask=inside, other=0.0)
            if TABLES:
                pre = tl.load(p + i * f_ld + f + c, mask=inside, other=0.0)
                gate_bar += tl.sum(k_bar * pre, axis=0)[None, :]
            k_bar *= g
        tl.store(delta + f + i * delta_ld + c, k_bar, mask=inside)
        if TANGENTS:
            real = row_inside[:, None] & (c < D)
            for j in range(K):
                eps = probe_columns(probes, probe_stride, j, row_offset, c, real)
                u = tl.load(t + (j * BM + i) * f_ld + f + c, mask=inside, other=0.0)
                u_bar = tl.zeros((BM, BN), DT)
                if TRACE == PROBES:
                    u_bar += tau_bar[:, None] * eps
                if FROBENIUS & PENALTIES:
                    product_of_jacobian = u
                    if GATED:
                        product_of_jacobian = u * g
                    if RESIDUAL:
                        product_of_jacobian -= eps
                    u_bar += frobenius_bar[:, None] * product_of_jacobian
                if GATED:
                    gate_bar += tl.sum(u_bar * u, axis=0)[None, :]
                    u_bar *= g
                tl.store(delta + (1 + j) * delta_stream + f + i * delta_ld + c, u_bar, mask=inside)
        if GATED and TABLES:
            tl.store(sums + f_ld + f + c, gate_bar, mask=inside)
    tl.debug_barrier()


@triton.jit
def adjoint_of_net(
    x, x_stream, x_ld, delta, delta_stream, delta_ld, p, t, f_ld, x_bar, d_ld,
    widths, L, weight, gate, bias, trace, second,
    sums, tau_bar, r_bar, K,
    KIND: tl.constexpr, GATED: tl.constexpr, RESIDUAL: tl.constexpr, TRACE: tl.constexpr,
    TANGENTS: tl.constexpr, SECOND: tl.constexpr, TABLES: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From the last layer's deltas to ``x_bar`` (BM, d_ld); the trace (BM,) where TRACE is MATRIX.

    ``tau_bar`` and ``r_bar`` (BM,): adjoints of ``Tr J`` and ``Tr J^2``. ``sums``: where the column
    sums of bias, gate and trace table go, one after the other.
    """
    i = tl.arange(0, BM)[:, None]
    tau = tl.zeros((BM,), DT)
    # Offsets of the last layer, whose deltas are given.
    f = f_ld - d_ld
    w = weight
    for layer in range(L - 1):
        w += width(widths, layer) * width(widths, layer + 1)
    for back in range(L - 1):
        layer = L - 2 - back
        n_next, n_out = width(widths, layer + 2), width(widths, layer + 1)
        f_next = f
        f -= n_out
        for n0 in range(0, n_out, BN):
            c = n0 + tl.arange(0, BN)[None, :]
            inside = c < n_out
            y_bar = product(
                delta + f_next, delta_ld, w, n0, n_out, n_next, True, BM, BN, BK, DT, PRECISION
            )
            pre = tl.load(p + i * f_ld + f + c, mask=inside, other=0.0)
            a = pre
            if GATED:
                g = tl.load(gate + f + c, mask=inside, other=0.0)
                a *= g
            a += tl.load(bias + f + c, mask=inside, other=0.0)
            slope, curve = slopes(a, KIND)
            a_bar = y_bar * slope
            if TRACE == VECTOR:
                table = tl.load(trace + c, mask=inside, other=0.0)
                a_bar += tau_bar[:, None] * table * curve
                if TABLES:
                    column = tl.sum(tau_bar[:, None] * slope, axis=0)[None, :]
                    tl.store(sums + (1 + GATED) * f_ld + c, column, mask=inside)
            if SECOND:
                phi = x + (x_ld - n_out)
                q = product(phi, x_ld, second, n0, n_out, n_out, False, BM, BN, BK, DT, PRECISION)
                a_bar += (2.0 * r_bar)[:, None] * curve * q
                tl.store(delta + f_ld + i * delta_ld + c, r_bar[:, None] * slope, mask=inside)
            if TRACE == MATRIX:
                left = delta + f_ld
                if layer == 1:
                    m_1 = width(widths, 1)
                    phi = x + (x_ld - m_1)
                    q = product(phi, x_ld, trace, n0, n_out, m_1, False, BM, BN, BK, DT, PRECISION)
                    a_bar += tau_bar[:, None] * curve * q
                    tau += tl.sum(tl.where(inside, q * slope, 0.0), axis=1)
                    tl.store(left + i * delta_ld + c, tau_bar[:, None] * slope, mask=inside)
                else:
                    q = product(
                        left, delta_ld, trace, n0, n_out, n_next, True, BM, BN, BK, DT, PRECISION
                    )
                    a_bar += curve * q
            gate_bar = tl.zeros((1, BN), DT)
            if TANGENTS:
                for j in range(K):
                    omega = delta + (1 + j) * delta_stream
                    v_bar = product(
                        omega + f_next, delta_ld, w, n0, n_out, n_next, True,
                        BM, BN, BK, DT, PRECISION,
                    )  # fmt: skip
                    u = tl.load(t + (j * BM + i) * f_ld + f + c, mask=inside, other=0.0)
                    u_bar = slope * v_bar
                    coupling = curve * u * v_bar
                    if GATED:
                        gate_bar += tl.sum(u_bar * u, axis=0)[None, :]
                        coupling *= g
                        u_bar *= g
                    a_bar += coupling
                    tl.store(omega + f + i * delta_ld + c, u_bar, mask=inside)
            if TABLES:
                tl.store(sums + f + c, tl.sum(a_bar, axis=0)[None, :], mask=inside)
            if GATED:
                if TABLES:
                    gate_bar += tl.sum(a_bar * pre, axis=0)[None, :]
                    tl.store(sums + f_ld + f + c, gate_bar, mask=inside)
                a_bar *= g
            tl.store(delta + f + i * delta_ld + c, a_bar, mask=inside)
        tl.debug_barrier()
        w -= n_out * width(widths, layer)
    n_in = width(widths, 1)
    for n0 in range(0, d_ld, BN):
        c = n0 + tl.arange(0, BN)[None, :]
        bar = product(delta, delta_ld, weight, n0, d_ld, n_in, True, BM, BN, BK, DT, PRECISION)
        if RESIDUAL:
            bar += tl.load(x_bar + i * d_ld + c, mask=c < d_ld, other=0.0)
        tl.store(x_bar + i * d_ld + c, bar, mask=c < d_ld)
    tl.debug_barrier()
    return tau
