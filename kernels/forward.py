"""All steps of a solve in one launch: a program owns a tile of rows from the first to the last."""

import triton
import triton.language as tl

from .device.sweep import (
    FROBENIUS,
    KINETIC_ENERGY,
    MEAN_MAGNITUDE,
    NO_TRACE,
    ROOT_MEAN_SQUARE,
    evaluate,
    quadratic_form,
)
from .device.tiles import (
    combine,
    load_probes,
    load_rows,
    store_rows,
    velocity_sums,
    width,
)


@triton.jit(do_not_specialize=["first_step", "steps"])
def forward_kernel(
    z, h, weight, gate, bias, trace, second, probes,
    z_out, logp_out, penalty_out, states, x_scratch, d_scratch,
    widths, a, b, report,
    B, D, K, L, R, first_step, steps, checkpoint, x_ld,
    weight_stride, gate_stride, bias_stride, trace_stride, second_stride,
    probe_stride, probe_row_stride, n_penalties,
    KIND: tl.constexpr, GATED: tl.constexpr, RESIDUAL: tl.constexpr, TRACE: tl.constexpr,
    TANGENTS: tl.constexpr, SECOND: tl.constexpr, SLOPES: tl.constexpr, PENALTIES: tl.constexpr,
    SAVE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Steps ``first_step .. first_step + steps`` from ``z`` (B, D), for tiles of BM rows.

    ``d_scratch``: for each program, z, the stage point and R velocities, (BM, d_ld) each.
    ``x_scratch``: for each program, the ``x`` of `mvae_fast.kernels.device.sweep`. ``report[s]``:
    which output comes after step s, or -1. ``states`` gets the state after every
    ``checkpoint``-th step but the last.
    """
    program = tl.program_id(0)
    d_ld = width(widths, 0)
    tile = BM * d_ld
    state = d_scratch + tl.cast(program, tl.int64) * ((2 + R) * tile)
    point = state + tile
    velocities = point + tile
    x_stream = BM * x_ld
    x = x_scratch + tl.cast(program, tl.int64) * ((1 + K) * x_stream)

    for block in range(program, tl.cdiv(B, BM), tl.num_programs(0)):
        row = tl.cast(block, tl.int64) * BM + tl.arange(0, BM)
        row_inside = row < B
        row_offset = row * probe_row_stride
        load_rows(z, row, row_inside, D, d_ld, state, BM, BN)
        if TANGENTS:
            load_probes(
                x, x_stream, x_ld, probes, probe_stride, row_offset, row_inside, D, d_ld, K, BM, BN
            )
        tl.debug_barrier()
        logp = tl.zeros((BM,), DT)
        magnitude = tl.zeros((BM,), DT)
        root = tl.zeros((BM,), DT)
        energy = tl.zeros((BM,), DT)
        frobenius = tl.zeros((BM,), DT)
        for step in range(steps):
            s = first_step + step
            h_s = tl.load(h + s)
            for r in range(R):
                e = tl.cast(s * R + r, tl.int64)
                combine(state, velocities, a + r * R, r, h_s, d_ld, tile, x, x_ld, BM, BN)
                if RESIDUAL:
                    combine(state, velocities, a + r * R, r, h_s, d_ld, tile, point, d_ld, BM, BN)
                tl.debug_barrier()
                k = velocities + r * tile
                tau, squares = evaluate(
                    x, x_stream, x_ld, x, x, 0, k, point, d_ld,
                    widths, L, weight + e * weight_stride, gate + e * gate_stride,
                    bias + e * bias_stride, trace + e * trace_stride,
                    probes, probe_stride, row_offset, row_inside, D, K,
                    KIND, GATED, RESIDUAL, TRACE, TANGENTS, SLOPES, False,
                    BM, BN, BK, DT, PRECISION,
                )  # fmt: skip
                share = h_s * tl.load(b + r)
                if TRACE != NO_TRACE:
                    logp -= share * tau
                if SECOND:
                    table = second + e * second_stride
                    quadratic = quadratic_form(
                        x, x_ld, table, width(widths, 1), BM, BN, BK, DT, PRECISION
                    )
                    logp += h_s * h_s * 0.5 * quadratic
                if PENALTIES & 7:
                    absolute, square = velocity_sums(k, d_ld, BM, BN, DT)
                    magnitude += share * absolute / D
                    root += share * tl.sqrt(square / D)
                    energy += share * square
                if FROBENIUS & PENALTIES:
                    frobenius += share * squares
            combine(state, velocities, b, R, h_s, d_ld, tile, state, d_ld, BM, BN)
            # z_{s+1} is read, and the velocities are written, by other threads of this program.
            tl.debug_barrier()
            if SAVE:
                if ((step + 1) % checkpoint == 0) & (step + 1 < steps):
                    saved = states + tl.cast((step + 1) // checkpoint - 1, tl.int64) * B * D
                    store_rows(state, d_ld, saved, row, row_inside, D, BM, BN)
            o = tl.load(report + s).to(tl.int64)
            if o >= 0:
                store_rows(state, d_ld, z_out + o * B * D, row, row_inside, D, BM, BN)
                tl.store(logp_out + o * B + row, logp, mask=row_inside)
                target = penalty_out + o * n_penalties * B + row
                if MEAN_MAGNITUDE & PENALTIES:
                    tl.store(target, magnitude, mask=row_inside)
                    target += B
                if ROOT_MEAN_SQUARE & PENALTIES:
                    tl.store(target, root, mask=row_inside)
                    target += B
                if KINETIC_ENERGY & PENALTIES:
                    tl.store(target, energy, mask=row_inside)
                    target += B
                if FROBENIUS & PENALTIES:
                    tl.store(target, frobenius, mask=row_inside)
        # The next block of rows reuses the buffers.
        tl.debug_barrier()
