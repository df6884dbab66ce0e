"""The discrete adjoint of a window of steps in one launch (docs/math.md, section 4).

Each step is recomputed from its saved state; then the adjoint runs from the velocity back to the
state. It leaves what the gradients of the tables are made of: on the *tape* the two operands of
every product with a weight, for `mvae_fast.kernels.table_gradient`, and the column sums of bias,
gate and trace table for each tile of rows.

``x_tape`` holds for each evaluation the ``x`` of `mvae_fast.kernels.device.sweep`; ``delta_tape``
the other operand: in stream 0 the columns ``G_l abar_l`` of l = 1 .. L, then what multiplies
phi'(a_1) in the gradient of a table of the trace; in stream 1 + j those of ``G_l ubar_l``.
"""

import triton
import triton.language as tl

from .device.adjoint_sweep import adjoint_of_net, adjoint_of_velocity
from .device.sweep import (
    CONSTANT,
    FROBENIUS,
    KINETIC_ENERGY,
    MATRIX,
    MEAN_MAGNITUDE,
    NO_TRACE,
    ROOT_MEAN_SQUARE,
    evaluate,
    quadratic_form,
)
from .device.tiles import (
    accumulate,
    combine,
    inner,
    load_probes,
    load_rows,
    store_rows,
    velocity_sums,
    width,
)


@triton.jit(do_not_specialize=["first_step", "steps", "first_tile", "tiles"])
def adjoint_kernel(
    grad_z_out, grad_logp, grad_penalty,
    z, states, h, weight, gate, bias, trace, second, probes,
    z_bar_rows, h_sums, sums, x_tape, delta_tape, d_scratch, f_scratch,
    widths, a, b, report, following,
    B, D, K, L, R, first_step, steps, first_tile, tiles,
    tape_rows, x_ld, delta_ld, f_ld, sums_ld,
    weight_stride, gate_stride, bias_stride, trace_stride, second_stride,
    probe_stride, probe_row_stride, n_penalties,
    KIND: tl.constexpr, GATED: tl.constexpr, RESIDUAL: tl.constexpr, TRACE: tl.constexpr,
    TANGENTS: tl.constexpr, SECOND: tl.constexpr, SLOPES: tl.constexpr, PENALTIES: tl.constexpr,
    TABLES: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Back over the steps ``first_step .. first_step + steps``, for ``tiles`` tiles of BM rows from
    ``first_tile`` on.

    ``z`` (B, D) is the state before the first of them, ``states`` (steps - 1, B, D) those before
    the others. ``z_bar_rows`` (B, D) holds the adjoint of the state, before and after.
    ``grad_logp`` (n, B) and ``grad_penalty`` (n, E, B) are summed over all later outputs;
    ``following[s]`` says from which output on step s is in them. With TABLES the tapes have
    ``tape_rows`` rows for each evaluation and stream and ``sums`` (tiles, steps * R, sums_ld) and
    ``h_sums`` (tiles, steps) are filled; else a program has its BM rows of tape for R evaluations.
    """
    program = tl.program_id(0)
    d_ld = width(widths, 0)
    tile = BM * d_ld
    state = d_scratch + tl.cast(program, tl.int64) * ((3 + 2 * R) * tile)
    point = state + tile
    z_bar = point + tile
    velocities = z_bar + tile
    stages = velocities + R * tile
    f_tile = BM * f_ld
    p_all = f_scratch + tl.cast(program, tl.int64) * ((1 + K) * R * f_tile)
    t_all = p_all + R * f_tile
    x_stream = tape_rows.to(tl.int64) * x_ld
    delta_stream = tape_rows.to(tl.int64) * delta_ld

    for block in range(program, tiles, tl.num_programs(0)):
        row = tl.cast(first_tile + block, tl.int64) * BM + tl.arange(0, BM)
        row_inside = row < B
        row_offset = row * probe_row_stride
        slot = tl.cast(program, tl.int64) * BM
        if TABLES:
            slot = tl.cast(block, tl.int64) * BM
        load_rows(z_bar_rows, row, row_inside, D, d_ld, z_bar, BM, BN)
        tl.debug_barrier()
        for back in range(steps):
            local = steps - 1 - back
            s = first_step + local
            h_s = tl.load(h + s)
            o = tl.load(report + s).to(tl.int64)
            if o >= 0:
                load_rows(grad_z_out + o * B * D, row, row_inside, D, d_ld, z_bar, BM, BN, ADD=True)
            if local == 0:
                load_rows(z, row, row_inside, D, d_ld, state, BM, BN)
            else:
                before = states + tl.cast(local - 1, tl.int64) * B * D
                load_rows(before, row, row_inside, D, d_ld, state, BM, BN)
            tl.debug_barrier()
            n = tl.load(following + s).to(tl.int64)
            logp_bar = tl.load(grad_logp + n * B + row, mask=row_inside, other=0.0)
            grads = grad_penalty + n * n_penalties * B + row
            magnitude_grad = tl.zeros((BM,), DT)
            root_grad = tl.zeros((BM,), DT)
            energy_grad = tl.zeros((BM,), DT)
            frobenius_grad = tl.zeros((BM,), DT)
            if MEAN_MAGNITUDE & PENALTIES:
                magnitude_grad += tl.load(grads, mask=row_inside, other=0.0)
                grads += B
            if ROOT_MEAN_SQUARE & PENALTIES:
                root_grad += tl.load(grads, mask=row_inside, other=0.0)
                grads += B
            if KINETIC_ENERGY & PENALTIES:
                energy_grad += tl.load(grads, mask=row_inside, other=0.0)
                grads += B
            if FROBENIUS & PENALTIES:
                frobenius_grad += tl.load(grads, mask=row_inside, other=0.0)

            h_bar = tl.zeros((BM,), DT)
            for r in range(R):
                slab = r
                if TABLES:
                    slab = local * R + r
                e = tl.cast(s * R + r, tl.int64)
                x = x_tape + slab * (1 + K) * x_stream + slot * x_ld
                combine(state, velocities, a + r * R, r, h_s, d_ld, tile, x, x_ld, BM, BN)
                if RESIDUAL:
                    combine(state, velocities, a + r * R, r, h_s, d_ld, tile, point, d_ld, BM, BN)
                if TANGENTS:
                    load_probes(
                        x, x_stream, x_ld, probes,
                        probe_stride, row_offset, row_inside,
                        D, d_ld, K, BM, BN,
                    )  # fmt: skip
                tl.debug_barrier()
                tau, squares = evaluate(
                    x, x_stream, x_ld, p_all + r * f_tile, t_all + r * (K * f_tile), f_ld,
                    velocities + r * tile, point, d_ld,
                    widths, L, weight + e * weight_stride, gate + e * gate_stride,
                    bias + e * bias_stride, trace + e * trace_stride,
                    probes, probe_stride, row_offset, row_inside, D, K,
                    KIND, GATED, RESIDUAL, TRACE, TANGENTS, SLOPES, True,
                    BM, BN, BK, DT, PRECISION,
                )  # fmt: skip
                weight_r = tl.load(b + r)
                if TRACE != NO_TRACE and TRACE != MATRIX:
                    h_bar -= weight_r * logp_bar * tau
                if SECOND:
                    table = second + e * second_stride
                    quadratic = quadratic_form(
                        x, x_ld, table, width(widths, 1), BM, BN, BK, DT, PRECISION
                    )
                    h_bar += h_s * logp_bar * quadratic
                if FROBENIUS & PENALTIES:
                    h_bar += weight_r * frobenius_grad * squares

            # h_bar += z_bar . sum_r b_r k_r
            h_bar += inner(z_bar, velocities, b, R, d_ld, tile, BM, BN, DT)
            for stage in range(R):
                r = R - 1 - stage
                slab = r
                if TABLES:
                    slab = local * R + r
                e = tl.cast(s * R + r, tl.int64)
                x = x_tape + slab * (1 + K) * x_stream + slot * x_ld
                delta = delta_tape + slab * (1 + K) * delta_stream + slot * delta_ld
                p = p_all + r * f_tile
                t = t_all + r * (K * f_tile)
                k = velocities + r * tile
                tile_sums = sums
                if TABLES:
                    tile_sums += (tl.cast(block, tl.int64) * (steps * R) + slab) * sums_ld
                weight_r = tl.load(b + r)
                share = h_s * weight_r
                tau_bar = -share * logp_bar
                magnitude_bar = share * magnitude_grad / D
                root_bar = root_grad
                if PENALTIES & 7:
                    absolute, square = velocity_sums(k, d_ld, BM, BN, DT)
                    root = tl.sqrt(square / D)
                    values = magnitude_grad * absolute / D + root_grad * root
                    h_bar += weight_r * (values + energy_grad * square)
                    # The norm has the subgradient 0 at 0.
                    root_bar = tl.where(
                        square > 0, share * root_grad / (D * tl.where(square > 0, root, 1.0)), 0.0
                    )
                adjoint_of_velocity(
                    z_bar, k, stages, r, R, a, h_s, share, tile, d_ld,
                    delta, delta_stream, delta_ld, p, t, f_ld, gate + e * gate_stride, tile_sums,
                    probes, probe_stride, row_offset, row_inside,
                    D, K, tau_bar, magnitude_bar, root_bar, 2.0 * share * energy_grad,
                    2.0 * share * frobenius_grad,
                    GATED, RESIDUAL, TRACE, TANGENTS, PENALTIES, TABLES,
                    BM, BN, DT,
                )  # fmt: skip
                tau = adjoint_of_net(
                    x, x_stream, x_ld, delta, delta_stream, delta_ld,
                    p, t, f_ld, stages + r * tile, d_ld,
                    widths, L, weight + e * weight_stride, gate + e * gate_stride,
                    bias + e * bias_stride, trace + e * trace_stride, second + e * second_stride,
                    tile_sums, tau_bar, 0.5 * h_s * h_s * logp_bar, K,
                    KIND, GATED, RESIDUAL, TRACE, TANGENTS, SECOND, TABLES,
                    BM, BN, BK, DT, PRECISION,
                )  # fmt: skip
                if TRACE == MATRIX:
                    h_bar -= weight_r * logp_bar * tau
                if TRACE == CONSTANT and TABLES:
                    tl.store(tile_sums + (1 + GATED) * f_ld, tl.sum(tau_bar))
                # h_bar += xbar_r . sum_q a_rq k_q
                h_bar += inner(stages + r * tile, velocities, a + r * R, r, d_ld, tile, BM, BN, DT)
            accumulate(z_bar, stages, R, d_ld, tile, BM, BN)
            tl.debug_barrier()
            tl.store(h_sums + tl.cast(block, tl.int64) * steps + local, tl.sum(h_bar))
        store_rows(z_bar, d_ld, z_bar_rows, row, row_inside, D, BM, BN)
        # The next block of rows reuses the buffers.
        tl.debug_barrier()
