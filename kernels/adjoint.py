"""The discrete adjoint of a window of steps in one launch (docs/math.md, section 4).

Each step is recomputed from its saved state; then the adjoint runs from the velocity back to the
state. It leaves what the gradients of the tables are made of: on the *tape* the two operands of
every product with a weight, for `mvae_fast.kernels.table_gradient`, and the column sums of bias,
gate and trace table for each tile of rows.

``x_tape`` holds for each evaluation the ``x`` of `mvae_fast.kernels.sweep`; ``delta_tape`` the
other operand: in stream 0 the columns ``G_l abar_l`` of l = 1 .. L, then what multiplies phi'(a_1)
in the gradient of a table of the trace; in stream 1 + j those of ``G_l ubar_l``.
"""

import triton
import triton.language as tl
from mvae_fast.kernels.forward import (
    FROBENIUS,
    KINETIC_ENERGY,
    MEAN_MAGNITUDE,
    ROOT_MEAN_SQUARE,
    load_probes,
    load_rows,
    store_rows,
)
from mvae_fast.kernels.nonlinearity import slopes
from mvae_fast.kernels.product import product
from mvae_fast.kernels.sweep import (
    CONSTANT,
    MATRIX,
    NO_TRACE,
    PROBES,
    VECTOR,
    combine,
    evaluate,
    quadratic_form,
    velocity_sums,
    width,
)


@triton.jit
def add_rows(source, row, row_inside, D, d_ld, target, BM: tl.constexpr, BN: tl.constexpr):
    """Add rows of a (B, D) array to a tile (BM, d_ld)."""
    i = tl.arange(0, BM)[:, None]
    for n0 in range(0, d_ld, BN):
        c = n0 + tl.arange(0, BN)[None, :]
        real = row_inside[:, None] & (c < D)
        values = tl.load(source + row[:, None] * D + c, mask=real, other=0.0)
        values += tl.load(target + i * d_ld + c, mask=c < d_ld, other=0.0)
        tl.store(target + i * d_ld + c, values, mask=c < d_ld)


@triton.jit
def adjoint_of_net(
    x,
    x_stream,
    x_ld,
    delta,
    delta_stream,
    delta_ld,
    p,
    t,
    f_ld,
    x_bar,
    d_ld,
    widths,
    L,
    weight,
    gate,
    bias,
    trace,
    second,
    sums,
    tau_bar,
    r_bar,
    K,
    KIND: tl.constexpr,
    GATED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    TRACE: tl.constexpr,
    TANGENTS: tl.constexpr,
    SECOND: tl.constexpr,
    TABLES: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    DT: tl.constexpr,
    PRECISION: tl.constexpr,
):
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
                        omega + f_next,
                        delta_ld,
                        w,
                        n0,
                        n_out,
                        n_next,
                        True,
                        BM,
                        BN,
                        BK,
                        DT,
                        PRECISION,
                    )
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


@triton.jit
def adjoint_of_velocity(
    z_bar,
    k,
    stages,
    r,
    R,
    a,
    h_s,
    share,
    tile,
    d_ld,
    delta,
    delta_stream,
    delta_ld,
    p,
    t,
    f_ld,
    gate,
    sums,
    probes,
    probe_stride,
    row_offset,
    row_inside,
    D,
    K,
    tau_bar,
    magnitude_bar,
    root_bar,
    energy_bar,
    frobenius_bar,
    GATED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    TRACE: tl.constexpr,
    TANGENTS: tl.constexpr,
    PENALTIES: tl.constexpr,
    TABLES: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DT: tl.constexpr,
):
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
                eps = tl.load(
                    probes + tl.cast(j, tl.int64) * probe_stride + row_offset[:, None] + c,
                    mask=real,
                    other=0.0,
                )
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


@triton.jit(do_not_specialize=["first_step", "steps", "first_tile", "tiles"])
def adjoint_kernel(
    grad_z_out,
    grad_logp,
    grad_penalty,
    z,
    states,
    h,
    weight,
    gate,
    bias,
    trace,
    second,
    probes,
    z_bar_rows,
    h_sums,
    sums,
    x_tape,
    delta_tape,
    d_scratch,
    f_scratch,
    widths,
    a,
    b,
    report,
    following,
    B,
    D,
    K,
    L,
    R,
    first_step,
    steps,
    first_tile,
    tiles,
    tape_rows,
    x_ld,
    delta_ld,
    f_ld,
    sums_ld,
    weight_stride,
    gate_stride,
    bias_stride,
    trace_stride,
    second_stride,
    probe_stride,
    probe_row_stride,
    n_penalties,
    KIND: tl.constexpr,
    GATED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    TRACE: tl.constexpr,
    TANGENTS: tl.constexpr,
    SECOND: tl.constexpr,
    SLOPES: tl.constexpr,
    PENALTIES: tl.constexpr,
    TABLES: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    DT: tl.constexpr,
    PRECISION: tl.constexpr,
):
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
                add_rows(grad_z_out + o * B * D, row, row_inside, D, d_ld, z_bar, BM, BN)
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
                        x,
                        x_stream,
                        x_ld,
                        probes,
                        probe_stride,
                        row_offset,
                        row_inside,
                        D,
                        d_ld,
                        K,
                        BM,
                        BN,
                    )
                tl.debug_barrier()
                tau, squares = evaluate(
                    x,
                    x_stream,
                    x_ld,
                    p_all + r * f_tile,
                    t_all + r * (K * f_tile),
                    f_ld,
                    velocities + r * tile,
                    point,
                    d_ld,
                    widths,
                    L,
                    weight + e * weight_stride,
                    gate + e * gate_stride,
                    bias + e * bias_stride,
                    trace + e * trace_stride,
                    probes,
                    probe_stride,
                    row_offset,
                    row_inside,
                    D,
                    K,
                    KIND,
                    GATED,
                    RESIDUAL,
                    TRACE,
                    TANGENTS,
                    SLOPES,
                    True,
                    BM,
                    BN,
                    BK,
                    DT,
                    PRECISION,
                )
                weight_r = tl.load(b + r)
                if TRACE != NO_TRACE and TRACE != MATRIX:
                    h_bar -= weight_r * logp_bar * tau
                if SECOND:
                    quadratic = quadratic_form(
                        x,
                        x_ld,
                        second + e * second_stride,
                        width(widths, 1),
                        BM,
                        BN,
                        BK,
                        DT,
                        PRECISION,
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
                    z_bar,
                    k,
                    stages,
                    r,
                    R,
                    a,
                    h_s,
                    share,
                    tile,
                    d_ld,
                    delta,
                    delta_stream,
                    delta_ld,
                    p,
                    t,
                    f_ld,
                    gate + e * gate_stride,
                    tile_sums,
                    probes,
                    probe_stride,
                    row_offset,
                    row_inside,
                    D,
                    K,
                    tau_bar,
                    magnitude_bar,
                    root_bar,
                    2.0 * share * energy_grad,
                    2.0 * share * frobenius_grad,
                    GATED,
                    RESIDUAL,
                    TRACE,
                    TANGENTS,
                    PENALTIES,
                    TABLES,
                    BM,
                    BN,
                    DT,
                )
                tau = adjoint_of_net(
                    x,
                    x_stream,
                    x_ld,
                    delta,
                    delta_stream,
                    delta_ld,
                    p,
                    t,
                    f_ld,
                    stages + r * tile,
                    d_ld,
                    widths,
                    L,
                    weight + e * weight_stride,
                    gate + e * gate_stride,
                    bias + e * bias_stride,
                    trace + e * trace_stride,
                    second + e * second_stride,
                    tile_sums,
                    tau_bar,
                    0.5 * h_s * h_s * logp_bar,
                    K,
                    KIND,
                    GATED,
                    RESIDUAL,
                    TRACE,
                    TANGENTS,
                    SECOND,
                    TABLES,
                    BM,
                    BN,
                    BK,
                    DT,
                    PRECISION,
                )
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


@triton.jit
def inner(
    bar,
    velocities,
    weights,
    count,
    d_ld,
    tile,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DT: tl.constexpr,
):
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
